// chimera-generate: writes text with a trained model.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "sampling_options.hpp"

#include <chimera/core/device.hpp>
#include <chimera/generate/beam_search.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>

using namespace chimera;

namespace {

struct Options {
  std::string model, prompt;
  std::int64_t tokens = 200;
  int threads = 0;
  SamplingOptions sampling;
  BeamSettings beams{.width = 1};
};

Status generate(const Options& options) {
  if (Status s = options.beams.validate(); !s) return s;
  const auto saved = open_model(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  const Config& config = saved->config();
  const auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();

  // Without a prompt the text begins as after a line break.
  std::vector<std::int32_t> prompt = tokenizer->encode(options.prompt.empty() ? "\n" : options.prompt);
  if (const Vocabulary& v = tokenizer->vocabulary(); v.add_bos && v.bos >= 0) prompt.insert(prompt.begin(), v.bos);
  if (static_cast<std::int64_t>(prompt.size()) > config.context)
    return Error{"the prompt has " + std::to_string(prompt.size()) + " tokens, the context of " +
                 std::string(saved->model.name) + " holds " + std::to_string(config.context) + ": shorten the prompt"};
  auto session = Session::create(*cpu, *weights);
  if (!session) return session.error();
  const auto sampling = options.sampling.settings_for(*tokenizer);
  if (!sampling) return sampling.error();
  auto sampler = TokenSampler::create(config.vocab, *sampling);
  if (!sampler) return sampler.error();
  auto stop = StopStrings::create(options.sampling.stop);
  if (!stop) return stop.error();

  auto start = Clock::now();
  auto logits = session->prefill(prompt);
  if (!logits) return logits.error();
  sampler->accept(prompt);
  const double prompt_seconds = seconds_since(start);
  start = Clock::now();
  TokenDecoder decoder(*tokenizer);
  std::fputs(options.prompt.c_str(), stdout);
  std::int64_t written = 0;
  const auto write = [&](std::int32_t token) {
    std::fputs(stop->push(decoder.push(token)).c_str(), stdout);
    std::fflush(stdout);
    ++written;
  };
  bool full = false;
  if (options.beams.width != 1) {
    BeamSettings beams = options.beams;
    beams.tokens = std::min(options.tokens, session->context() - session->position() + 1);
    const auto found = beam_search(*session, beams, [&](std::int32_t token) { return tokenizer->ends_text(token); });
    if (!found) return found.error();
    full = beams.tokens < options.tokens && !found->front().ended;
    for (const std::int32_t token : found->front().tokens)
      if (!stop->stopped() && !tokenizer->ends_text(token)) write(token);
  } else {
    while (logits && written < options.tokens && !stop->stopped()) {
      const auto token = sampler->draw(*logits);
      if (!token) return token.error();
      if (tokenizer->ends_text(*token)) break;
      write(*token);
      full = session->position() == session->context();
      if (full) break;
      logits = session->step(*token);
    }
  }
  std::printf("%s\n", (stop->push(decoder.flush()) + stop->flush()).c_str());
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
  app.add_option("--tokens", options.tokens, "tokens to write, at most")->check(non_negative());
  app.add_option("--beams", options.beams.width,
                 "above 1: search for the likeliest text with so many beams, in place of sampling");
  app.add_option("--length-penalty", options.beams.length_penalty, "in it: 0 prefers short texts, more longer ones");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());
  options.sampling.add(app);
  return run(app, argc, argv, [&] { return generate(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-generate", [&] { return program(argc, argv); });
}
