// What the programs share: flags, errors, numbers as people read them, the clock, progress, and models on disk.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/train/checkpoint.hpp>

#include "registry.hpp"

#include <CLI/CLI.hpp>

#include <unistd.h>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

/// Exit codes.
enum Exit : int { success = 0, failure = 1, wrong_usage = 2 };

/// Says what went wrong, in one line.
inline int fail(const char* program, const chimera::Error& error) {
  std::fprintf(stderr, "%s: %s\n", program, error.message.c_str());
  return failure;
}

/// The whole of a program: what is thrown inside (by CLI11, or for want of memory) ends it with a message, too.
template <class F>
int run_program(const char* name, F program) noexcept {
  try {
    return program();
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

/// "700,599,840"
inline std::string grouped(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (std::size_t at = digits.size(); at > 3 + (n < 0); at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

template <class... T>
std::string formatted(const char* format, T... values) {
  char text[256];
  std::snprintf(text, sizeof text, format, values...);
  return text;
}

/// "904k", "700.6M", "10.7B"
inline std::string rounded(double n) {
  const char* unit = "";
  for (const char* next : {"k", "M", "B", "T"})
    if (n >= 999.5) n /= 1000, unit = next;
  return formatted(*unit && n < 99.95 ? "%.1f%s" : "%.0f%s", n, unit);
}

/// "1.31 GiB"
inline std::string size_text(double bytes) {
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"})
    if (bytes >= 1024) bytes /= 1024, unit = next;
  return formatted(bytes < 10 && *unit != 'B'    ? "%.2f %s"
                   : bytes < 100 && *unit != 'B' ? "%.1f %s"
                                                 : "%.0f %s",
                   bytes, unit);
}

/// "0:42", "1:02:03"
inline std::string duration(double seconds) {
  const auto s = std::llround(seconds);
  if (s < 3600) return formatted("%d:%02d", static_cast<int>(s / 60), static_cast<int>(s % 60));
  return formatted("%lld:%02d:%02d", static_cast<long long>(s / 3600), static_cast<int>(s / 60 % 60),
                   static_cast<int>(s % 60));
}

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// How far a program is, on stderr: a line that is written over on a terminal, one now and then elsewhere.
class ProgressLine {
 public:
  /// Enough time has passed since the last line.
  bool due() const { return seconds_since(shown_) >= (terminal_ ? 0.2 : 5); }

  void show(const std::string& line) {
    shown_ = Clock::now();
    if (!terminal_) return void(std::fprintf(stderr, "%s\n", line.c_str()));
    std::fprintf(stderr, "\r%-*s", width_, line.c_str());
    width_ = static_cast<int>(line.size());
  }

  /// Takes the line away, so that other words can stand in its place.
  void clear() {
    if (width_ > 0) std::fprintf(stderr, "\r%*s\r", width_, "");
    width_ = 0;
  }

  /// Leaves the line as it is: what follows starts on its own.
  void end() {
    if (width_ > 0) std::fputc('\n', stderr);
    width_ = 0;
  }

 private:
  Clock::time_point shown_ = Clock::now();
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  int width_ = 0;  // characters on the terminal's line
};

/// For --help of a flag that SavedModel::find reads.
inline constexpr const char* model_help = "a run's folder, a checkpoint, a GGUF file, or a Hugging Face folder";

/// A model on disk, and how it is run.
struct SavedModel {
  enum class Form { checkpoint, gguf, hugging_face };

  Form form;
  std::string path;  // of the checkpoint, the GGUF file, or the Hugging Face folder
  chimera::AnyModel model;
  std::optional<chimera::CheckpointHeader> header{};  // of a checkpoint

  /// `path`: a checkpoint; a run's folder, of which it takes the newest checkpoint that can be read; a GGUF file; a
  /// Hugging Face folder.
  static chimera::Result<SavedModel> find(const std::string& path) {
    const bool gguf = path.ends_with(".gguf") && !chimera::is_folder(path),
               folder = chimera::exists(path + "/config.json");
    if (gguf || folder) {
      const auto config = chimera::config_from_file(path);
      if (!config) return config.error();
      auto model = find_model(*config);
      if (!model) return chimera::Error{"cannot run " + path + ": " + model.error().message};
      return SavedModel{gguf ? Form::gguf : Form::hugging_face, path, *model};
    }
    auto file = chimera::find_checkpoint(path);
    if (!file) return chimera::Error{file.error().message + " (a model is " + model_help + ")"};
    auto header = chimera::read_checkpoint_header(*file);
    if (!header) return header.error();
    auto model = find_model(header->info.config);
    if (const auto config = chimera::config_from_file(*file);
        config && (!model || !same_meaning(*model->config, *config)))
      model = find_model(*config);
    if (!model) return chimera::Error{"cannot load " + *file + ": " + model.error().message};
    return SavedModel{Form::checkpoint, *file, *model, *header};
  }

  /// In the GGUF file, or in the folder of the weights; else bytes.
  chimera::Result<chimera::Tokenizer> tokenizer() const { return chimera::tokenizer_of(path, model.config->vocab); }

  chimera::Result<chimera::Buffer> weights(const chimera::Cpu& cpu) const {
    auto weights = chimera::Buffer::create(model.arena_floats);
    if (!weights) return weights;
    if (chimera::Status s = load(cpu, weights->data()); !s) return s.error();
    return weights;
  }

  /// For sessions: of a GGUF file in the file's own formats, of the other forms as f32.
  chimera::Result<chimera::PackedModel> packed(const chimera::Cpu& cpu) const {
    if (form == Form::gguf) return chimera::pack_gguf(cpu, path, model);
    const auto arena = weights(cpu);
    if (!arena) return arena.error();
    return chimera::PackedModel::create(cpu, model, arena->data());
  }

  /// Into model.arena_floats floats.
  chimera::Status load(const chimera::Cpu& cpu, float* weights) const {
    if (form == Form::checkpoint) return chimera::load_weights(path, model, weights);
    if (form == Form::hugging_face) return chimera::load_hugging_face(cpu, path, model, weights);
    const auto file = chimera::Gguf::open(path);
    if (!file) return file.error();
    const chimera::Status s = chimera::load_gguf(cpu, *file, model, weights);
    if (!s) return chimera::Error{"cannot load " + path + ": " + s.error().message};
    return {};
  }
};
