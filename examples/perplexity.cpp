// chimera-perplexity: how well a model predicts a text. Chunks, and what of them counts, are llama.cpp's, so that
// figures compare.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "plots.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "session_options.hpp"
#include "text_options.hpp"

#include <chimera/generate/reader.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <vector>

using namespace chimera;

namespace {

struct Options {
  std::string model, text, svg;
  std::int64_t context = 512, chunks = 0, together = 8, bins = 0;
  int threads = 0;
  SessionSettings session;
  bool by_position = false, json = false;
};

/// Negative log-likelihoods, in nats.
struct Score {
  std::int64_t tokens = 0;
  double sum = 0, squares = 0;

  void add(double nll) { ++tokens, sum += nll, squares += nll * nll; }
  double mean() const { return sum / static_cast<double>(tokens); }
  double perplexity() const { return std::exp(mean()); }
  /// One standard deviation of the perplexity, if tokens were independent.
  double error() const {
    const double variance = squares / static_cast<double>(tokens) - mean() * mean();
    return tokens > 1 ? perplexity() * std::sqrt(std::max(variance, 0.) / static_cast<double>(tokens - 1)) : 0;
  }
};

/// The same by how many tokens of its chunk a token comes after.
class Positions {
 public:
  /// `bins` of equal length, or 0: powers of two, 1, 2-3, 4-7 and so on.
  Positions(std::int64_t context, std::int64_t bins) {
    for (std::int64_t first = 1; first < context;) {
      first_.push_back(first);
      const std::int64_t n = std::ssize(first_);
      first = bins > 0 ? std::max(first + 1, 1 + n * (context - 1) / bins) : 2 * first;
    }
    scores_.resize(first_.size());
    end_ = context;
  }

  void add(std::int64_t position, double nll) {
    const auto after = std::upper_bound(first_.begin(), first_.end(), position);
    scores_[static_cast<std::size_t>(after - first_.begin()) - 1].add(nll);
  }

  /// Calls f(first position, last position, score) for each bin.
  template <class F>
  void each(F f) const {
    for (std::size_t i = 0; i < first_.size(); ++i)
      f(first_[i], (i + 1 < first_.size() ? first_[i + 1] : end_) - 1, scores_[i]);
  }

 private:
  std::vector<std::int64_t> first_;  // position of each bin
  std::vector<Score> scores_;
  std::int64_t end_;
};

/// Reads chunks, each with a session of its own.
Result<void> read_chunks(Reader& reader, std::span<Session> sessions, std::span<const std::int32_t> tokens,
                         std::int64_t context, std::int32_t bos, Score& score, Positions* positions) {
  // The first half gives the model something to go by, and does not count; after the last token comes nothing.
  const std::size_t length = static_cast<std::size_t>(context) - 1, half = (length + 1) / 2;
  struct Chunk {
    std::vector<std::int32_t> tokens, next;
    std::vector<float> log_probabilities;
  };
  std::vector<Chunk> chunks;
  std::vector<Turn> turns;
  for (std::size_t c = 0; c < sessions.size(); ++c) {
    const auto text = tokens.subspan(c * (length + 1), length + 1);
    Chunk& chunk = chunks.emplace_back();
    chunk.tokens.assign(text.begin(), text.end() - 1), chunk.next.assign(text.begin() + 1, text.end());
    if (bos >= 0) chunk.tokens[0] = bos;
    if (!positions) std::fill_n(chunk.next.begin(), half, -1);
    chunk.log_probabilities.resize(length);
    sessions[c].reset();
  }
  for (std::size_t c = 0; c < sessions.size(); ++c)
    turns.push_back({.sequence = &sessions[c],
                     .tokens = chunks[c].tokens,
                     .targets = chunks[c].next,
                     .log_probabilities = chunks[c].log_probabilities.data(),
                     .answer = false});
  if (Result<void> s = reader.read(turns); !s) return s;
  for (std::size_t i = positions ? 0 : half; i < length; ++i)
    for (const Chunk& chunk : chunks) {
      const double nll = -static_cast<double>(chunk.log_probabilities[i]);
      if (!std::isfinite(nll)) return Error{"the model's logits are not finite numbers"};
      if (i >= half) score.add(nll);
      if (positions) positions->add(static_cast<std::int64_t>(i) + 1, nll);
    }
  return {};
}

Result<void> measure(const Options& options) {
  const auto saved = open_model(options.model, options.by_position ? options.context : 0);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  const auto text = read_text(options.text);
  if (!text) return text.error();
  const Config& config = saved->config();
  if (options.context > config.context)
    return Error{"-c must be at most the model's context of " + grouped(config.context) + ", found " +
                 grouped(options.context)};

  std::vector<std::int32_t> tokens = tokenizer->encode(*text);
  const Vocabulary& v = tokenizer->vocabulary();
  const std::int32_t bos = v.add_bos ? v.bos : -1;
  if (bos >= 0) tokens.insert(tokens.begin(), bos);
  std::int64_t chunks = static_cast<std::int64_t>(tokens.size()) / options.context;
  if (chunks < 1)
    return Error{options.text + " has " + grouped(static_cast<std::int64_t>(tokens.size())) +
                 " tokens, and a chunk takes " + grouped(options.context) + ": give a longer text or a smaller -c"};
  if (options.chunks > 0) chunks = std::min(chunks, options.chunks);

  const auto packed = saved->packed(*cpu);
  if (!packed) return packed.error();
  auto reader = Reader::create(*cpu, *packed);
  if (!reader) return reader.error();
  std::vector<Session> sessions;
  SessionSettings settings = options.session;
  settings.context = options.context;
  for (std::int64_t i = 0; i < std::min(chunks, options.together); ++i) {
    auto session = Session::create(*reader, settings);
    if (!session) return Error{session.error().message + "; --together 1 reads one chunk at a time"};
    sessions.push_back(std::move(*session));
  }

  Score score;
  Positions positions(options.context, options.bins);
  const auto start = Clock::now();
  ProgressLine line;
  for (std::int64_t done = 0; done < chunks;) {
    const std::int64_t count = std::min(options.together, chunks - done);
    const auto part = std::span(tokens).subspan(static_cast<std::size_t>(done * options.context),
                                                static_cast<std::size_t>(count * options.context));
    if (Result<void> s = read_chunks(*reader, std::span(sessions).first(static_cast<std::size_t>(count)), part,
                                     options.context, bos, score, options.by_position ? &positions : nullptr);
        !s) {
      line.end();
      return s;
    }
    done += count;
    if (done < chunks && !line.due()) continue;
    const double chunk_seconds = seconds_since(start) / static_cast<double>(done);
    line.show(formatted("chunk %s of %s: %.4f, %.0f tok/s, %s left", grouped(done).c_str(), grouped(chunks).c_str(),
                        score.perplexity(), static_cast<double>(options.context) / chunk_seconds,
                        duration(chunk_seconds * static_cast<double>(chunks - done)).c_str()));
  }
  line.end();
  std::string table, json;
  LinePlot plot{.title = "Loss by position in the text",
                .subtitle = saved->path + " on " + options.text,
                .down = "loss (nats per token)",
                .across = "tokens before it",
                .points = {}};
  if (options.by_position)
    positions.each([&](std::int64_t first, std::int64_t last, const Score& s) {
      const std::string range = first == last ? grouped(first) : grouped(first) + "-" + grouped(last);
      table += formatted("%18s %12s %10.4f\n", range.c_str(), grouped(s.tokens).c_str(), s.mean());
      json += formatted("%s\n  {\"first\": %lld, \"last\": %lld, \"tokens\": %lld, \"loss\": %.6f}",
                        json.empty() ? "" : ",", static_cast<long long>(first), static_cast<long long>(last),
                        static_cast<long long>(s.tokens), s.mean());
      plot.points.emplace_back(std::sqrt(static_cast<double>(first) * static_cast<double>(last)), s.mean());
    });
  if (!options.svg.empty())
    if (Result<void> s = write_text(options.svg, line_svg(plot)); !s) return s;
  if (options.json)
    std::printf(
        "{\"model\": %s, \"text\": %s, \"context\": %lld, \"chunks\": %lld, \"tokens\": %lld,\n "
        "\"perplexity\": %.6f, \"error\": %.6f, \"seconds\": %.3f%s}\n",
        json_quoted(saved->path).c_str(), json_quoted(options.text).c_str(), static_cast<long long>(options.context),
        static_cast<long long>(chunks), static_cast<long long>(score.tokens), score.perplexity(), score.error(),
        seconds_since(start), json.empty() ? "" : (",\n \"by_position\": [" + json + "\n]").c_str());
  else
    std::printf(
        "%sperplexity of %s tokens: %.4f +/- %.4f\n",
        table.empty() ? "" : (formatted("%18s %12s %10s\n", "tokens before it", "counted", "loss") + table).c_str(),
        grouped(score.tokens).c_str(), score.perplexity(), score.error());
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the perplexity");
  return {};
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Measures how well a model predicts a text: the lower the perplexity, the better.", "chimera-perplexity"};
  app.end_help("chimera-perplexity -m model.gguf -f text.txt",
               std::string("The text is read in chunks, each without what came before it. The second half of each "
                           "chunk counts, as in\nllama.cpp.\n\n") +
                   engine_help);
  app.add_option("FILE,-f,--file", options.text, "a text; -: standard input")->type_name("FILE")->required();
  add_model_option(app, options.model)->required();
  app.add_option("-c,--ctx-size,--context", options.context, "tokens of a chunk")->check(at_least(4));
  app.add_option("--chunks", options.chunks, "of the text, at most; 0: all")->check(non_negative());
  app.add_option("--together", options.together, "chunks that are read side by side")->check(between(1, 256));
  CLI::Option* by_position = app.add_flag(
      "--by-position", options.by_position,
      "the mean loss of tokens by how many of the chunk come before; chunks may be longer than the model's "
      "context");
  app.add_option("--bins", options.bins, "of positions, equally long; 0: powers of two")
      ->check(non_negative())
      ->needs(by_position);
  app.add_option("--svg", options.svg, "draws the loss by position there")
      ->type_name("FILE")
      ->default_str("")
      ->needs(by_position);
  add_kv_option(app, options.session.kv);
  add_threads_option(app, options.threads);
  app.add_flag("--json", options.json, "write one JSON object");
  return run(app, argc, argv, [&] { return measure(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-perplexity", [&] { return program(argc, argv); });
}
