// chimera-quantize: a GGUF file in another format, with what that costs.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "replacing.hpp"

#include <chimera/exchange/quantize.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/json.hpp>

using namespace chimera;

namespace {

struct Options {
  std::string in, out, format, report, text;
  std::int64_t context = 512, tokens = 0;
  int threads = 0;
};

std::string_view name(Format format) { return format_info(format)->name; }

std::string type_names() {
  std::string names;
  for (const FileType& t : file_types) names += (names.empty() ? "" : ", ") + std::string(t.name);
  return names;
}

/// How well a model predicts a text.
struct Perplexity {
  double loss = 0;  // nats a token
  std::int64_t tokens = 0;
  double value() const { return std::exp(loss); }
};

/// The perplexity, in windows of options.context tokens side by side, each read without what came before it.
Result<Perplexity> perplexity(const Cpu& q, const std::string& path, const Options& options) {
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  const auto tokenizer = noted(read_tokenizer(*file));
  if (!tokenizer) return Error{"cannot read the tokenizer of " + path + ": " + tokenizer.error().message};
  const auto text = MappedFile::open(options.text);
  if (!text) return text.error();
  const auto saved = open_model(path);
  if (!saved) return saved.error();
  const AnyModel& model = saved->model;

  std::vector<std::int32_t> tokens = tokenizer->encode(text->text());
  if (options.tokens > 0) tokens.resize(std::min(tokens.size(), static_cast<std::size_t>(options.tokens) + 1));
  const auto most = static_cast<std::int64_t>(tokens.size()) - 1;
  if (most < 1) return Error{options.text + " has fewer than two tokens"};
  if (const auto id = std::max_element(tokens.begin(), tokens.end()); *id >= model.config->vocab)
    return Error{"the text has token " + std::to_string(*id) + ", and the model's vocabulary " +
                 std::to_string(model.config->vocab)};

  const auto weights = saved->weights(q);
  if (!weights) return weights.error();
  const std::int64_t context = std::min<std::int64_t>({options.context, model.config->context, most});
  auto memory = Buffer::of_bytes(model.loss_bytes(1, context));
  if (!memory) return memory.error();
  Loss all;
  for (std::int64_t first = 0; first < most; first += context) {
    TokenBatch batch;
    batch.sequences = 1, batch.length = std::min(context, most - first);
    batch.inputs = tokens.data() + first, batch.targets = batch.inputs + 1;
    model.loss(q, weights->data(), batch, {}, memory->bytes(), &all.sum);
    all.count += batch.counted();
  }
  return Perplexity{all.mean(), all.count};
}

struct Outcome {
  std::vector<QuantizedTensor> tensors;
  double seconds = 0;
  std::optional<Perplexity> before, after;

  /// The errors of all tensors whose format changed.
  QuantizationError error() const {
    QuantizationError sum;
    for (const QuantizedTensor& t : tensors) sum.add(t.error);
    return sum;
  }
};

void print_table(const Outcome& outcome) {
  std::printf("%-32s %-6s %-6s %14s %10s %10s %10s\n", "tensor", "from", "to", "numbers", "rmse", "largest",
              "relative");
  const auto row = [](const std::string& what, std::string_view from, std::string_view to, const QuantizationError& e) {
    std::printf("%-32s %-6s %-6s %14s %10.3e %10.3e %8.4f %%\n", what.c_str(), from.data(), to.data(),
                grouped(e.count).c_str(), e.root_mean_square(), static_cast<double>(e.largest), 100 * e.relative());
  };
  for (const QuantizedTensor& t : outcome.tensors)
    if (t.error.count > 0) row(t.name, name(t.from), name(t.to), t.error);
  row("all of these", "", "", outcome.error());
}

std::string report_json(const Options& options, const Outcome& outcome) {
  const auto error = [](const QuantizationError& e) {
    return formatted("\"numbers\": %lld, \"rmse\": %.9g, \"largest_error\": %.9g, \"relative_error\": %.9g",
                     static_cast<long long>(e.count), e.root_mean_square(), static_cast<double>(e.largest),
                     e.relative());
  };
  std::string text = "{\n  \"in\": " + json_quoted(options.in) + ",\n  \"out\": " + json_quoted(options.out) +
                     ",\n  \"file_type\": " + json_quoted(file_type_named(options.format)->name) +
                     formatted(",\n  \"seconds\": %.3f,\n  \"all\": {", outcome.seconds) + error(outcome.error()) + "}";
  if (outcome.before && outcome.after)
    text += formatted(",\n  \"perplexity\": {\"tokens\": %lld, \"before\": %.9g, \"after\": %.9g}",
                      static_cast<long long>(outcome.after->tokens), outcome.before->value(), outcome.after->value());
  text += ",\n  \"tensors\": [";
  const char* separator = "\n    ";
  for (const QuantizedTensor& t : outcome.tensors) {
    text += separator + ("{\"name\": " + json_quoted(t.name)) + ", \"from\": " + json_quoted(name(t.from)) +
            ", \"to\": " + json_quoted(name(t.to)) +
            formatted(", \"bytes\": %lld", static_cast<long long>(t.bytes_written));
    if (t.error.count > 0) text += ", " + error(t.error);
    text += "}";
    separator = ",\n    ";
  }
  return text + "\n  ]\n}\n";
}

Result<void> write_report(const Options& options, const Outcome& outcome) {
  auto file = AtomicFile::create(options.report);
  if (!file) return file.error();
  if (Result<void> s = file->write(report_json(options, outcome)); !s) return s;
  return file->commit();
}

Result<void> quantize(const Options& options) {
  const FileType* type = file_type_named(options.format);
  if (!type) return Error{"expected a format of " + type_names() + ", found " + options.format};
  if (same_file(options.in, options.out)) return Error{"IN and OUT are the same file: name another OUT"};
  if (!options.report.empty() && (same_file(options.in, options.report) || options.report == options.out))
    return Error{"the report would be written over " + options.report + ": name another file"};
  const auto in = Gguf::open(options.in);
  if (!in) return Error{in.error().message + " (chimera-convert makes a GGUF file of any model)"};
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();

  Outcome outcome;
  if (!options.text.empty()) {
    const auto before = perplexity(*cpu, options.in, options);
    if (!before) return before.error();
    outcome.before = *before;
  }
  std::int64_t bytes = 0;
  bool again = false;
  for (const GgufTensor& t : in->tensors()) {
    bytes += format_bytes(t.format, t.size());
    again |= format_info(t.format)->values > 1;
  }
  if (again) std::fprintf(stderr, "note: %s is quantized already; the errors of that stay\n", options.in.c_str());

  const auto start = Clock::now();
  ProgressLine line;
  auto tensors = quantize_gguf(*cpu, *in, options.out, *type, [&](std::size_t tensor, std::int64_t read) {
    if (!line.due()) return;
    const double done = static_cast<double>(read), speed = done / seconds_since(start);
    line.show(formatted("tensor %zu of %zu, %.0f MB/s, %s left", tensor + 1, in->tensors().size(), speed / 1e6,
                        speed > 0 ? duration((static_cast<double>(bytes) - done) / speed).c_str() : "?"));
  });
  line.clear();
  if (!tensors) return tensors.error();
  outcome.tensors = std::move(*tensors);
  outcome.seconds = seconds_since(start);
  std::int64_t written = 0;
  for (const QuantizedTensor& t : outcome.tensors) written += t.bytes_written;

  print_table(outcome);
  std::fprintf(stderr, "wrote %s: %s became %s in %.1f s, %.0f MB/s\n", shell_word(options.out).c_str(),
               size_text(static_cast<double>(bytes)).c_str(), size_text(static_cast<double>(written)).c_str(),
               outcome.seconds, static_cast<double>(bytes) / outcome.seconds / 1e6);
  if (!options.text.empty()) {
    const auto after = perplexity(*cpu, options.out, options);
    if (!after) return after.error();
    outcome.after = *after;
    std::printf("perplexity of %s tokens: %.4f before, %.4f after (%+.2f %%)\n", grouped(after->tokens).c_str(),
                outcome.before->value(), after->value(), 100 * (after->value() / outcome.before->value() - 1));
  }
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the report");
  return options.report.empty() ? Status{} : write_report(options, outcome);
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Writes a GGUF file in another format, and says how far its numbers moved.", "chimera-quantize"};
  app.end_help("chimera-quantize model.gguf small.gguf q4_k_m --text text.txt", engine_help);
  app.add_option("IN,-m,--model", options.in, "a GGUF file")->type_name("FILE")->default_str("")->required();
  app.add_option("OUT", options.out, "the GGUF file to write")->default_str("")->required();
  app.add_option("FORMAT", options.format, "one of " + type_names())->default_str("")->required();
  add_threads_option(app, options.threads);
  app.add_option("--report", options.report, "a file to write the errors of all tensors to, as JSON")->default_str("");
  app.add_option("-f,--file,--text", options.text, "a text to measure the perplexity on, before and after")
      ->type_name("FILE")
      ->default_str("");
  app.add_option("-c,--ctx-size,--context", options.context, "tokens of the text that are read at once")
      ->check(at_least(1));
  app.add_option("-n,--tokens", options.tokens, "of the text, at most; 0: all")->check(non_negative());
  return run(app, argc, argv, [&] { return quantize(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-quantize", [&] { return program(argc, argv); });
}
