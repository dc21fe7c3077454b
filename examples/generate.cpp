// chimera-generate: writes text with a trained model.
#include "engine.hpp"
#include "program.hpp"

#include <chimera/core/device.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/text/tokenizer.hpp>

#include <chrono>

using namespace chimera;

namespace {

struct Options {
  std::string model, prompt;
  std::int64_t tokens = 200;
  int threads = 0;
  TokenSamplerSettings sampling;
};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Status generate(const Options& options) {
  const auto saved = SavedModel::find(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto weights = saved->weights(*cpu);
  if (!weights) return weights.error();
  const Config& config = *saved->model.config;
  const auto tokenizer = saved->tokenizer();
  if (!tokenizer) return tokenizer.error();

  // Without a prompt the text begins as after a line break.
  std::vector<std::int32_t> prompt = tokenizer->encode(options.prompt.empty() ? "\n" : options.prompt);
  if (const Vocabulary& v = tokenizer->vocabulary(); v.add_bos && v.bos >= 0) prompt.insert(prompt.begin(), v.bos);
  if (static_cast<std::int64_t>(prompt.size()) > config.context)
    return Error{"the prompt has " + std::to_string(prompt.size()) + " tokens, the context of " +
                 std::string(saved->model.name) + " holds " + std::to_string(config.context) + ": shorten the prompt"};
  auto session = Session::create(*cpu, saved->model, weights->data());
  if (!session) return session.error();
  auto sampler = TokenSampler::create(config.vocab, options.sampling);
  if (!sampler) return sampler.error();

  auto start = std::chrono::steady_clock::now();
  auto logits = session->prefill(prompt);
  const double prompt_seconds = seconds_since(start);
  start = std::chrono::steady_clock::now();
  TokenDecoder decoder(*tokenizer);
  std::fputs(options.prompt.c_str(), stdout);
  std::int64_t written = 0;
  bool full = false;
  for (; logits && written < options.tokens; ++written) {
    const auto token = sampler->draw(*logits);
    if (!token) return token.error();
    if (tokenizer->ends_text(*token)) break;
    std::fputs(decoder.push(*token).c_str(), stdout);
    std::fflush(stdout);
    full = session->position() == session->context();
    if (full) break;
    logits = session->step(*token);
  }
  std::printf("%s\n", decoder.flush().c_str());
  if (!logits) return logits.error();
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the text");

  const double seconds = seconds_since(start);
  if (full && written < options.tokens)
    std::fprintf(stderr, "stopped: the context of %lld tokens is full\n", static_cast<long long>(session->context()));
  std::fprintf(stderr, "prompt: %zu tokens, %.0f tok/s; text: %lld tokens, %.0f tok/s\n", prompt.size(),
               static_cast<double>(prompt.size()) / prompt_seconds, static_cast<long long>(written),
               static_cast<double>(written) / seconds);
  return {};
}

int program(int argc, char** argv) {
  Options options;
  CLI::App app{"Writes text with a trained model.", "chimera-generate"};
  app.footer(engine_help);
  app.option_defaults()->always_capture_default()->take_last();
  app.add_option("--model", options.model, model_help)->required();
  app.add_option("--prompt", options.prompt, "the text to continue");
  app.add_option("--tokens", options.tokens, "tokens to write, at most")->check(CLI::NonNegativeNumber);
  app.add_option("--temperature,--temp", options.sampling.temperature,
                 "higher: more surprising; 0: the likeliest token");
  app.add_option("--top-k", options.sampling.top_k, "draw from the k likeliest tokens; 0: from all");
  app.add_option("--top-p", options.sampling.top_p, "draw from the likeliest tokens of this total probability");
  app.add_option("--min-p", options.sampling.min_p, "least probability, relative to the likeliest token's");
  app.add_option("-s,--seed", options.sampling.seed, "the same seed gives the same text");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(CLI::NonNegativeNumber);
  if (const auto code = parse(app, argc, argv)) return *code;
  const Status status = generate(options);
  return status ? success : fail("chimera-generate", status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-generate", [&] { return program(argc, argv); });
}
