// chimera-perplexity: how well a model foretells a text. Chunks, and what of them counts, are llama.cpp's, so that figures
// compare.
#include "engine.hpp"
#include "program.hpp"
#include "session_options.hpp"

#include <chimera/generate/session.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

using namespace chimera;

namespace {

struct Options {
  std::string model, text;
  std::int64_t context = 512, chunks = 0, together = 8;
  int threads = 0;
  SessionSettings session;
  bool json = false;
};

/// Negative log-likelihoods, in nats.
struct Score {
  std::int64_t tokens = 0;
  double sum = 0, squares = 0;

  void add(double nll) { ++tokens, sum += nll, squares += nll * nll; }
  double mean() const { return sum / static_cast<double>(tokens); }
  double perplexity() const { return std::exp(mean()); }
  /// Of the perplexity: one standard deviation, if tokens were independent.
  double error() const {
    const double variance = squares / static_cast<double>(tokens) - mean() * mean();
    return tokens > 1 ? perplexity() * std::sqrt(std::max(variance, 0.) / static_cast<double>(tokens - 1)) : 0;
  }
};

double negative_log_likelihood(std::span<const float> logits, std::int32_t token) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - largest);
  return largest + std::log(sum) - static_cast<double>(logits[static_cast<std::size_t>(token)]);
}

/// Reads chunks side by side: one pass of tokens, one from each, reads every weight once.
Status read_chunks(std::span<Session> sessions, std::span<const std::int32_t> tokens, std::int64_t context,
                   std::int32_t bos, Score& score) {
  // The first half gives the model something to go by, and does not count.
  const std::size_t length = static_cast<std::size_t>(context), half = length / 2;
  std::vector<Session*> all;
  std::vector<std::int32_t> next(sessions.size());
  const auto at = [&](std::size_t chunk, std::size_t i) { return tokens[chunk * length + i]; };
  for (std::size_t c = 0; c < sessions.size(); ++c) {
    std::vector<std::int32_t> first(half + 1);
    for (std::size_t i = 0; i <= half; ++i) first[i] = at(c, i);
    if (bos >= 0) first[0] = bos;
    sessions[c].reset();
    if (const auto logits = sessions[c].prefill(first); !logits) return logits.error();
    all.push_back(&sessions[c]);
  }
  for (std::size_t i = half;; ++i) {
    for (std::size_t c = 0; c < sessions.size(); ++c) {
      next[c] = at(c, i + 1);
      const double nll = negative_log_likelihood(sessions[c].logits(), next[c]);
      if (!std::isfinite(nll)) return Error{"the model's logits are not finite numbers"};
      score.add(nll);
    }
    if (i + 2 == length) return {};
    if (Status s = Session::step(all, next); !s) return s;
  }
}

Status measure(const Options& options) {
  const auto saved = SavedModel::find(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto tokenizer = saved->tokenizer();
  if (!tokenizer) return tokenizer.error();
  const auto text = MappedFile::open(options.text);
  if (!text) return text.error();
  const Config& config = *saved->model.config;
  if (options.context > config.context)
    return Error{"--context must be at most the model's " + grouped(config.context) + ", found " +
                 grouped(options.context)};

  std::vector<std::int32_t> tokens = tokenizer->encode(text->text());
  const Vocabulary& v = tokenizer->vocabulary();
  const std::int32_t bos = v.add_bos ? v.bos : -1;
  if (bos >= 0) tokens.insert(tokens.begin(), bos);
  std::int64_t chunks = static_cast<std::int64_t>(tokens.size()) / options.context;
  if (chunks < 1)
    return Error{options.text + " has " + grouped(static_cast<std::int64_t>(tokens.size())) +
                 " tokens, and a chunk takes " + grouped(options.context) +
                 ": name a longer text or a smaller --context"};
  if (options.chunks > 0) chunks = std::min(chunks, options.chunks);

  const auto packed = saved->packed(*cpu);
  if (!packed) return packed.error();
  SessionSettings settings = options.session;
  settings.piece = std::max(settings.piece, options.together);
  std::vector<Session> sessions;
  for (std::int64_t i = 0; i < std::min(chunks, options.together); ++i) {
    auto session = Session::create(*cpu, *packed, settings);
    if (!session) return session.error();
    sessions.push_back(std::move(*session));
  }

  Score score;
  const auto start = Clock::now();
  ProgressLine line;
  for (std::int64_t done = 0; done < chunks;) {
    const std::int64_t count = std::min(options.together, chunks - done);
    const auto part = std::span(tokens).subspan(static_cast<std::size_t>(done * options.context),
                                                static_cast<std::size_t>(count * options.context));
    if (Status s =
            read_chunks(std::span(sessions).first(static_cast<std::size_t>(count)), part, options.context, bos, score);
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
  if (options.json)
    std::printf(
        "{\"model\": %s, \"text\": %s, \"context\": %lld, \"chunks\": %lld, \"tokens\": %lld,\n "
        "\"perplexity\": %.6f, \"error\": %.6f, \"seconds\": %.3f}\n",
        json_quoted(saved->path).c_str(), json_quoted(options.text).c_str(), static_cast<long long>(options.context),
        static_cast<long long>(chunks), static_cast<long long>(score.tokens), score.perplexity(), score.error(),
        seconds_since(start));
  else
    std::printf("perplexity of %s tokens: %.4f +/- %.4f\n", grouped(score.tokens).c_str(), score.perplexity(),
                score.error());
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the perplexity");
  return {};
}

int program(int argc, char** argv) {
  Options options;
  CLI::App app{"Says how well a model foretells a text.", "chimera-perplexity"};
  app.footer(
      std::string(
          "The text is read in chunks, each without what came before it, and the second half of each counts.\n\n") +
      engine_help);
  app.option_defaults()->always_capture_default()->take_last();
  app.add_option("FILE", options.text, "a text")->required();
  app.add_option("--model", options.model, model_help)->required();
  app.add_option("--context", options.context, "tokens of a chunk")
      ->check(CLI::Range(std::int64_t{4}, std::int64_t{1} << 30));
  app.add_option("--chunks", options.chunks, "at most; 0: all")->check(non_negative());
  app.add_option("--together", options.together, "chunks that are read side by side")->check(CLI::Range(1, 256));
  add_kv_option(app, options.session.kv);
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());
  app.add_flag("--json", options.json, "write one JSON object");
  if (const auto code = parse(app, argc, argv)) return *code;
  const Status status = measure(options);
  return status ? success : fail("chimera-perplexity", status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-perplexity", [&] { return program(argc, argv); });
}
