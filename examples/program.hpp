// The frame of all programs: exit codes, errors, flags and their help.
#pragma once

#include "nearest.hpp"
#include "shell_word.hpp"

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/version.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Exit codes.
enum Exit : int { success = 0, failure = 1, wrong_usage = 2 };

/// Says what went wrong, in one line.
inline int fail(const char* program, const chimera::Error& error) {
  std::fprintf(stderr, "%s: %s\n", program, error.message.c_str());
  return failure;
}

/// The whole of a program: what is thrown inside (by CLI11, or for want of memory) ends it with a message, too, and so
/// does output that cannot be written.
template <class F>
int run_program(const char* name, F program) noexcept {
  try {
    const int code = program();
    if (code != success) return code;
    if (std::fflush(stdout) != 0) return fail(name, chimera::file_error("write", "standard output"));
    return std::ferror(stdout) ? fail(name, {"cannot write all of the standard output"}) : code;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return failure;
  }
}

/// --help: for each flag its names and value, then what it does, its range and its default in words.
class Help : public CLI::Formatter {
 public:
  Help() {
    label("OPTIONS", "FLAGS"), label("Positionals", "Arguments");
    label("SUBCOMMAND", "COMMAND"), label("Subcommands", "Commands");
  }

  std::string make_option(const CLI::Option* option, bool positional) const override {
    std::string left = "  " + names(*option, positional), text = option->get_description(), notes;
    const auto note = [&](const std::string& more) { notes += (notes.empty() ? " (" : "; ") + more; };
    const auto [type, range] = type_and_range(*option);
    if (option->get_expected_max() > 0 && !positional) left += " " + type;
    if (!range.empty()) note(range.starts_with("of ") ? range.substr(3) : range);
    if (option->get_required()) note("required");
    if (option->get_expected_max() > 0)
      if (const std::string usual = option->get_default_str(); !usual.empty() && usual != "[]" && usual != "\"\"")
        note("default: " + usual);
    for (const CLI::Option* other : option->get_excludes()) note("not with " + other->get_name());
    return columns(left, text + notes + (notes.empty() ? "" : ")"));
  }

  std::string make_subcommand(const CLI::App* command) const override {
    return columns("  " + command->get_name(), command->get_description());
  }

  std::string make_description(const CLI::App* app) const override { return app->get_description() + "\n\n"; }

 private:
  static constexpr std::size_t indent = 30, width = 100;

  static std::string names(const CLI::Option& option, bool positional) {
    if (positional) return option.get_name(true);
    std::string all;
    for (const std::string& letter : option.get_snames()) all += (all.empty() ? "-" : ", -") + letter;
    for (const std::string& word : option.get_lnames()) all += (all.empty() ? "--" : ", --") + word;
    return all;
  }

  /// CLI11 writes "INT:at least 0".
  static std::pair<std::string, std::string> type_and_range(const CLI::Option& option) {
    const std::string all = option.get_type_name(), type = all.substr(0, all.find(':'));
    const std::string range = type.size() < all.size() ? all.substr(type.size() + 1) : "";
    return {type == "INT" || type == "UINT" || type == "FLOAT" ? "N" : type, range};
  }

  /// The second column is broken between words.
  static std::string columns(const std::string& left, const std::string& right) {
    std::string all = left + (left.size() + 2 > indent ? "\n" : std::string(indent - left.size(), ' '));
    std::size_t at = left.size() + 2 > indent ? 0 : indent;
    for (std::size_t from = 0; from < right.size();) {
      const std::size_t end = std::min(right.find_first_of(" \n", from), right.size());
      if (at > indent && at + 1 + end - from > width) all += '\n', at = 0;
      if (at == 0) all.append(indent, ' '), at = indent;
      if (at > indent) all += ' ', ++at;
      all.append(right, from, end - from);
      at += end - from, from = end + 1;
    }
    return all + "\n";
  }
};

/// A program's flags. Of a flag that is given twice the last counts.
class Flags : public CLI::App {
 public:
  Flags(const std::string& description, const std::string& name) : CLI::App(description, name) {
    formatter(std::make_shared<Help>());
    option_defaults()->always_capture_default()->take_last();
    set_help_flag("-h,--help", "print this and end");
    set_version_flag("--version", name + " " + std::string(chimera::library_version), "print the version and end");
  }

  /// What --help ends with: an example, and more.
  void end_help(const std::string& example, const std::string& more = {}) {
    footer("Example:\n  " + example + (more.empty() ? "" : "\n\n" + more));
  }
};

namespace program_parts {

inline std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& word : option->get_lnames()) names.push_back("--" + word);
    for (const std::string& letter : option->get_snames()) names.push_back("-" + letter);
  }
  for (const CLI::App* part : app.get_subcommands([](const CLI::App* a) { return a->get_name().empty(); }))
    for (const std::string& name : flag_names(*part)) names.push_back(name);
  return names;
}

inline bool is_flag(const std::string& word) { return word.size() > 1 && word[0] == '-'; }

/// About a word of the command line that no flag takes.
inline std::string unexpected(const CLI::App& app, const std::string& word) {
  const auto commands = app.get_subcommands([](const CLI::App* a) { return !a->get_name().empty(); });
  if (!is_flag(word)) {
    std::vector<std::string> names;
    names.reserve(commands.size());
    for (const CLI::App* c : commands) names.push_back(c->get_name());
    return (names.empty() ? "unexpected argument " : "there is no command ") + shell_word(word) +
           did_you_mean(word, names);
  }
  const CLI::App* command = app.get_subcommands().empty() ? &app : app.get_subcommands().front();
  const std::string name = word.substr(0, word.find('='));
  return "there is no flag " + shell_word(name) + did_you_mean(name, flag_names(*command));
}

/// What CLI11 complains of, in this project's words.
inline std::string complaint(const CLI::ParseError& error) {
  std::string text = error.what();
  constexpr std::string_view unread = "Could not convert: ";
  if (text.starts_with(unread)) return "cannot read " + text.substr(unread.size());
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) return text.substr(0, text.find(':')) + " needs a value";
  if (text == "A subcommand is required") return "a command is required";
  return text;
}

}  // namespace program_parts

/// Reads the flags. A value if the program should end at once: after --help, or when the flags make no sense. A flag
/// that is not known is told before one that is missing.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  std::string wrong;
  app.allow_extras();
  for (CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    command->allow_extras(!command->get_name().empty());
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    wrong = program_parts::complaint(e);
  }
  std::vector<std::string> left = app.remaining(true);
  // "-temp 1" is read as "-t emp 1": a long name with one dash is told as such.
  const std::vector<std::string> names = program_parts::flag_names(app);
  for (int i = 1; i < argc && !wrong.empty(); ++i)
    if (const std::string word = argv[i];
        word.size() > 2 && word[0] == '-' && std::find(names.begin(), names.end(), "-" + word) != names.end())
      left.insert(left.begin(), word);
  if (const auto flag = std::find_if(left.begin(), left.end(), program_parts::is_flag); flag != left.end())
    wrong = program_parts::unexpected(app, *flag);
  else if (!left.empty())
    wrong = program_parts::unexpected(app, left.front());
  if (wrong.empty()) return std::nullopt;
  std::string command = app.get_name();
  for (const CLI::App* sub : app.get_subcommands()) command += " " + sub->get_name();
  std::fprintf(stderr, "%s: %s; see %s --help\n", app.get_name().c_str(), wrong.c_str(), command.c_str());
  return wrong_usage;
}

/// What a program does once its flags are declared: it reads them and works. Returns the exit code.
template <class Work>
int run(CLI::App& app, int argc, char** argv, Work work) {
  if (const auto code = parse(app, argc, argv)) return *code;
  const chimera::Result<void> status = work();
  return status ? success : fail(app.get_name().c_str(), status.error());
}

/// Checks of numbers, in words: "from 0 to 1".
template <class Holds>
CLI::Validator number_check(const std::string& range, Holds holds) {
  const auto check = [=](const std::string& given) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(given, value) && holds(value)) return {};
    return "expected a number " + range + ", found " + given;
  };
  return {check, range};
}
inline CLI::Validator at_least(int least) {
  return number_check("of at least " + std::to_string(least), [=](double x) { return x >= least; });
}
inline CLI::Validator non_negative() { return at_least(0); }
inline CLI::Validator positive() {
  return number_check("above 0", [](double x) { return x > 0; });
}
inline CLI::Validator between(int least, int most) {
  return number_check("from " + std::to_string(least) + " to " + std::to_string(most),
                      [=](double x) { return x >= least && x <= most; });
}

/// A flag that takes one of a few words.
template <class E>
CLI::Option* add_choice(CLI::App& app, const std::string& flag, E& value,
                        std::initializer_list<std::pair<const char*, E>> words, const std::string& help) {
  std::string names, usual;
  for (const auto& [word, meaning] : words) {
    names += (names.empty() ? "" : ", ") + std::string(word);
    if (meaning == value) usual = word;
  }
  const std::vector<std::pair<const char*, E>> choices{words};
  CLI::Option* option = app.add_option_function<std::string>(
      flag,
      [&value, choices, names, flag](const std::string& given) {
        for (const auto& [word, meaning] : choices)
          if (given == word) return void(value = meaning);
        throw CLI::ValidationError(flag, "expected one of " + names + ", found " + given);
      },
      help + ": " + names);
  return option->type_name("WORD")->default_str(usual);
}

/// --threads, of all programs that use more than one processor.
inline CLI::Option* add_threads_option(CLI::App& app, int& threads) {
  return app.add_option("-t,--threads", threads, "processors to use; 0: as many as are good")->check(non_negative());
}
