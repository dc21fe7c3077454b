// chimera-bench: how fast a model reads and writes on this machine, and how much of the machine that is.
#include "model_option.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "session_options.hpp"

#include <chimera/core/random.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/json.hpp>
#include <chimera/kernels/roofline.hpp>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

using namespace chimera;

namespace {

struct Options {
  std::string model;
  std::int64_t prompt = 512, generate = 128, repeat = 5;
  int threads = 0;
  SessionSettings session;
  bool json = false, roofline = true;
};

/// A model's weights as they are stored.
struct Weights {
  double bytes = 0;
  double bytes_read = 0;   // for a token that is written: all but an embedding of which it is a row
  double operations = 0;   // for a token of a prompt, whose logits nobody wants; a multiply-add counts two
  std::string_view form;   // of most bytes
  bool quantized = false;  // most products are of integers
};

Result<Weights> weights_of(const SavedModel& saved) {
  Weights w;
  std::array<double, 64> bytes_in{};  // [format]
  const auto add = [&](std::string_view name, Format format, std::int64_t rows, std::int64_t cols) {
    const double bytes = static_cast<double>(format_bytes(format, rows * cols));
    const bool embedding = name == "token_embd.weight";
    w.bytes += bytes;
    if (!embedding || saved.config().tied) w.bytes_read += bytes;
    if (rows > 1 && cols > 1 && !embedding && name != "output.weight")
      w.operations += 2 * static_cast<double>(rows) * static_cast<double>(cols);
    bytes_in[static_cast<std::size_t>(format)] += bytes;
  };
  if (saved.form == SavedModel::Form::gguf) {
    const auto file = Gguf::open(saved.path);
    if (!file) return file.error();
    for (const GgufTensor& t : file->tensors()) add(t.name, t.format, t.size() / t.ne[0], t.ne[0]);
  } else {
    for (const NamedTensor& t : saved.model.tensors) add(t.name(), Format::f32, t.rows, t.cols);
  }
  const FormatInfo& most =
      *format_info(static_cast<Format>(std::max_element(bytes_in.begin(), bytes_in.end()) - bytes_in.begin()));
  w.form = most.name, w.quantized = most.values > 1;
  return w;
}

/// Tokens a second, of some runs.
struct Speed {
  std::vector<double> runs;

  double best() const { return runs.empty() ? 0 : *std::max_element(runs.begin(), runs.end()); }
  double median() const {
    if (runs.empty()) return 0;
    std::vector<double> sorted = runs;
    std::sort(sorted.begin(), sorted.end());
    return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  }
};

struct Figures {
  double load = 0, first_token = 0;  // s since the program began
  Speed prefill, decode;
  double memory = 0;  // bytes at most, of the whole process
  // Of this machine, in the same run: bytes read and operations a second; 0: not measured.
  double bandwidth = 0, peak = 0;
};

/// Bytes of memory that this process took at most. (getrusage may give the figure of the process that started it.)
double peak_memory() {
  double kib = 0;
  if (std::FILE* status = std::fopen("/proc/self/status", "r")) {
    for (char line[256]; std::fgets(line, sizeof line, status) && std::sscanf(line, "VmHWM: %lf", &kib) != 1;) {
    }
    std::fclose(status);
  }
  return 1024 * kib;
}

/// The same random tokens in every run.
std::vector<std::int32_t> random_tokens(std::int64_t count, int vocab) {
  Random random{1};
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (std::int32_t& t : tokens) t = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab)));
  return tokens;
}

Result<Figures> measure(const SavedModel& saved, const Weights& weights, const Cpu& cpu, const Options& options,
                        Clock::time_point start) {
  Figures figures;
  const Config& config = saved.config();
  if (options.prompt + options.generate > config.context)
    return Error{"--prompt and --generate make " + grouped(options.prompt + options.generate) +
                 " tokens, and the context holds " + grouped(config.context)};
  const auto packed = saved.packed(cpu);
  if (!packed) return packed.error();
  SessionSettings settings = options.session;
  if (settings.context == 0) settings.context = options.prompt + options.generate;
  auto session = create_session(cpu, *packed, settings);
  if (!session) return session.error();
  figures.load = seconds_since(start);
  const auto tokens = random_tokens(options.prompt + options.generate, config.vocab);
  const std::span prompt = std::span(tokens).first(static_cast<std::size_t>(options.prompt));
  const std::span rest = std::span(tokens).subspan(prompt.size());

  // The first run warms caches up: only its first token counts.
  for (std::int64_t run = 0; run <= options.repeat; ++run) {
    if (run > 0) session->reset();
    const auto begin = Clock::now();
    if (const auto logits = session->prefill(prompt); !logits) return logits.error();
    const double read = seconds_since(begin);
    if (run == 0) figures.first_token = seconds_since(start);
    const auto middle = Clock::now();
    for (const std::int32_t token : rest)
      if (const auto logits = session->step(token); !logits) return logits.error();
    const double written = seconds_since(middle);
    if (run == 0) continue;
    figures.prefill.runs.push_back(static_cast<double>(prompt.size()) / read);
    if (!rest.empty()) figures.decode.runs.push_back(static_cast<double>(rest.size()) / written);
  }
  figures.memory = peak_memory();
  if (options.roofline && options.repeat > 0) {
    const auto bandwidth = roofline::measure_read_bandwidth(cpu);
    if (!bandwidth) return bandwidth.error();
    figures.bandwidth = *bandwidth;
    figures.peak = weights.quantized ? roofline::measure_peak_int8(cpu) : roofline::measure_peak_f32(cpu);
  }
  return figures;
}

/// 0 if the one is not known.
double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

void print_json(const SavedModel& saved, const Weights& weights, const Cpu& cpu, const Options& options,
                const Figures& f) {
  const auto list = [](const Speed& speed) {
    std::string text;
    for (const double run : speed.runs) text += (text.empty() ? "" : ", ") + formatted("%.2f", run);
    return "[" + text + "]";
  };
  const auto name = [](std::string_view text) { return json_quoted(text); };
  std::printf(
      "{\"model\": %s, \"file\": %s, \"format\": %s, \"bytes\": %.0f, \"weights\": %lld,\n \"threads\": %d, \"isa\": "
      "%s, "
      "\"prompt\": %lld, \"generate\": %lld, \"repeat\": %lld,\n \"prefill_tps\": %.2f, \"decode_tps\": %.2f, "
      "\"prefill_tps_best\": %.2f, \"decode_tps_best\": %.2f,\n \"prefill_runs\": %s, \"decode_runs\": %s,\n "
      "\"load_s\": %.4f, \"first_token_s\": %.4f, \"memory\": %.0f,\n \"read_bandwidth\": %.4g, "
      "\"bandwidth_share\": %.4f, \"peak_operations\": %.4g, \"peak_share\": %.4f}\n",
      name(saved.model.name).c_str(), name(saved.path).c_str(), name(weights.form).c_str(), weights.bytes,
      static_cast<long long>(saved.model.parameters), cpu.threads(), name(chimera::name(cpu.isa())).c_str(),
      static_cast<long long>(options.prompt), static_cast<long long>(options.generate),
      static_cast<long long>(options.repeat), f.prefill.median(), f.decode.median(), f.prefill.best(), f.decode.best(),
      list(f.prefill).c_str(), list(f.decode).c_str(), f.load, f.first_token, f.memory, f.bandwidth,
      share(f.decode.best() * weights.bytes_read, f.bandwidth), f.peak,
      share(f.prefill.best() * weights.operations, f.peak));
}

void print_table(const SavedModel& saved, const Weights& weights, const Cpu& cpu, const Options& options,
                 const Figures& f) {
  const std::string file = saved.path.substr(saved.path.rfind('/') + 1);
  const int width = static_cast<int>(file.size());
  const std::string line(file.size(), '-');
  std::printf(
      "| %-*s | format |     size | weights | threads |    test |    tok/s |     best | of the roofline       |\n",
      width, "model");
  std::printf(
      "| %s | ------ | -------: | ------: | ------: | ------: | -------: | -------: | --------------------- |\n",
      line.c_str());
  const auto row = [&](const char* test, std::int64_t tokens, const Speed& speed, const std::string& roof) {
    if (speed.runs.empty()) return;
    std::printf("| %-*s | %-6.*s | %8s | %7s | %7d | %7s | %8.1f | %8.1f | %-21s |\n", width, file.c_str(),
                static_cast<int>(weights.form.size()), weights.form.data(), size_text(weights.bytes).c_str(),
                rounded(static_cast<double>(saved.model.parameters)).c_str(), cpu.threads(),
                (test + std::to_string(tokens)).c_str(), speed.median(), speed.best(), roof.c_str());
  };
  const double computed = f.prefill.best() * weights.operations, read = f.decode.best() * weights.bytes_read;
  row("pp", options.prompt, f.prefill,
      f.peak > 0 ? formatted("%.0f %% of %.0f %s", 100 * computed / f.peak, f.peak * 1e-9,
                             weights.quantized ? "int8 GOP/s" : "GFLOP/s")
                 : "");
  row("tg", options.generate, f.decode,
      f.bandwidth > 0 ? formatted("%.0f %% of %.1f GB/s", 100 * read / f.bandwidth, f.bandwidth * 1e-9) : "");
  std::printf("\nloaded after %.3f s, first token after %.3f s, at most %s of memory\n", f.load, f.first_token,
              size_text(f.memory).c_str());
}

Result<void> bench(const Options& options, Clock::time_point start) {
  const auto saved = open_model(options.model);
  if (!saved) return saved.error();
  const auto weights = weights_of(*saved);
  if (!weights) return weights.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto figures = measure(*saved, *weights, *cpu, options, start);
  if (!figures) return figures.error();
  (options.json ? print_json : print_table)(*saved, *weights, *cpu, options, *figures);
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the figures");
  return {};
}

int program(int argc, char** argv) {
  const auto start = Clock::now();
  Options options;
  Flags app{"Measures how fast a model reads a prompt and writes.", "chimera-bench"};
  app.end_help("chimera-bench -m model.gguf -p 512 -n 128", engine_help);
  add_model_option(app, options.model)->required();
  add_threads_option(app, options.threads);
  app.add_option("-p,--prompt,--n-prompt", options.prompt, "tokens of a prompt, random ones")->check(positive());
  app.add_option("-n,--generate,--n-gen", options.generate, "tokens after the prompt, one by one")
      ->check(non_negative());
  app.add_option("-r,--repeat,--repetitions", options.repeat, "runs to measure, after a first one that warms up")
      ->check(non_negative());
  app.add_option("--piece", options.session.piece, "tokens of a prompt that are read at once")->check(positive());
  app.add_option("-c,--ctx-size,--context", options.session.context,
                 "tokens that the session holds; 0: the prompt and those after it")
      ->check(non_negative());
  add_kv_option(app, options.session.kv);
  app.add_flag_callback(
      "--no-roofline", [&] { options.roofline = false; },
      "do not measure what the machine can do, which takes a second");
  app.add_flag("--json", options.json, "write one JSON object: medians, best and single runs");
  return run(app, argc, argv, [&] { return bench(options, start); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-bench", [&] { return program(argc, argv); });
}
