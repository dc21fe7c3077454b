// The frame of all programs: exit codes, errors, flags.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <initializer_list>
#include <optional>
#include <string>
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

/// Reads the flags. A value if the program should end at once: after --help, or when the flags make no sense.
inline std::optional<int> parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);
    std::string command = app.get_name();
    for (const CLI::App* sub : app.get_subcommands()) command += " " + sub->get_name();
    std::fprintf(stderr, "%s: %s; see %s --help\n", app.get_name().c_str(), e.what(), command.c_str());
    return wrong_usage;
  }
  return std::nullopt;
}

/// What a program does once its flags are declared: it reads them and works. Returns the exit code.
template <class Work>
int run(CLI::App& app, int argc, char** argv, Work work) {
  if (const auto code = parse(app, argc, argv)) return *code;
  const chimera::Status status = work();
  return status ? success : fail(app.get_name().c_str(), status.error());
}

/// Checks of numbers with a lower bound alone: CLI11's own write out the largest double when they fail.
inline CLI::Validator number_check(const char* name, const char* bound, bool (*holds)(double)) {
  const auto check = [=](const std::string& given) -> std::string {
    double value = 0;
    if (CLI::detail::lexical_cast(given, value) && holds(value)) return {};
    return std::string("expected a number ") + bound + ", found " + given;
  };
  return {check, name};
}
inline CLI::Validator non_negative() {
  return number_check("NONNEGATIVE", "of at least 0", [](double x) { return x >= 0; });
}
inline CLI::Validator positive() {
  return number_check("POSITIVE", "above 0", [](double x) { return x > 0; });
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
