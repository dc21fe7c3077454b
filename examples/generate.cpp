// chimera-generate: writes text with a trained model.
#include "adapter_option.hpp"
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "sampling_options.hpp"
#include "session_options.hpp"
#include "text_options.hpp"

#include <chimera/core/device.hpp>
#include <chimera/generate/beam_search.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/generate/stop_strings.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <csignal>
#include <cstdint>

using namespace chimera;

namespace {

volatile std::sig_atomic_t stop_asked = 0;

struct Options {
  std::string model;
  std::vector<std::string> adapters;
  TextOptions text;
  std::int64_t tokens = -1;
  int threads = 0;
  SessionSettings session;
  SamplingOptions sampling;
  BeamSettings beams{.width = 1};
};

Result<void> generate(const Options& options) {
  if (Result<void> s = options.beams.validate(); !s) return s;
  const auto text = options.text.text();
  if (!text) return text.error();
  const auto saved = open_model(options.model);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  const Config& config = saved->config();
  const auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  const auto loaded = load_adapters(*cpu, saved->model, options.adapters);
  if (!loaded) return loaded.error();
  std::vector<AdapterUse> uses;
  for (const LoadedAdapter& a : *loaded) uses.push_back({&a.table->weights, a.values.data()});
  const auto adapters = PackedAdapters::create(*weights, uses);
  if (!adapters) return adapters.error();

  // Without a prompt the text begins as after a line break.
  std::vector<std::int32_t> prompt = tokenizer->encode(text->empty() ? "\n" : *text);
  if (const Vocabulary& v = tokenizer->vocabulary(); v.add_bos && v.bos >= 0) prompt.insert(prompt.begin(), v.bos);
  auto session = create_session(*cpu, *weights, options.session);
  if (!session) return session.error();
  if (!uses.empty())
    if (Result<void> s = session->set_adapters(&*adapters); !s) return s;
  if (static_cast<std::int64_t>(prompt.size()) > session->context())
    return Error{"the prompt has " + std::to_string(prompt.size()) + " tokens, the context of " +
                 std::string(saved->model.name) + " holds " + std::to_string(session->context()) +
                 (session->context() < config.context ? ": give a larger -c" : ": shorten the prompt")};
  SamplingOptions flags = options.sampling;
  if (options.beams.width > 1) flags.seed = 0;  // nothing is drawn
  const auto sampling = flags.settings_for(*tokenizer, options.text);
  if (!sampling) return sampling.error();
  auto sampler = TokenSampler::create(config.vocab, *sampling);
  if (!sampler) return sampler.error();
  auto stop = StopStrings::create(options.sampling.stops(options.text));
  if (!stop) return stop.error();

  auto start = Clock::now();
  auto logits = session->prefill(prompt);
  if (!logits) return logits.error();
  sampler->accept(prompt);
  const double prompt_seconds = seconds_since(start);
  start = Clock::now();
  TokenDecoder decoder(*tokenizer);
  std::fwrite(text->data(), 1, text->size(), stdout);
  std::int64_t written = 0;
  const std::int64_t room = session->context() - session->position() + 1;  // the last token takes no place
  const bool slides = options.session.slide;
  const std::int64_t most = options.tokens >= 0 ? options.tokens : slides && options.tokens == -1 ? INT64_MAX : room;
  const auto write = [&](std::int32_t token) {
    const std::string part = stop->push(decoder.push(token));
    std::fwrite(part.data(), 1, part.size(), stdout);
    std::fflush(stdout);
    ++written;
  };
  bool full = false;
  if (options.beams.width != 1) {
    BeamSettings beams = options.beams;
    beams.tokens = std::min(most, room);
    const auto found = beam_search(*session, beams, [&](std::int32_t token) { return tokenizer->ends_text(token); });
    if (!found) return found.error();
    full = beams.tokens == room && !found->front().ended;
    for (const std::int32_t token : found->front().tokens)
      if (!stop->stopped() && !tokenizer->ends_text(token)) write(token);
  } else {
    while (logits && written < most && !stop->stopped() && stop_asked == 0) {
      const auto token = sampler->draw(*logits);
      if (!token) return token.error();
      if (tokenizer->ends_text(*token)) break;
      write(*token);
      full = !slides && session->position() == session->context();
      if (full) break;
      logits = session->step(*token);
    }
  }
  const std::string rest = stop->push(decoder.flush()) + stop->flush() + "\n";
  std::fwrite(rest.data(), 1, rest.size(), stdout);
  if (!logits) return logits.error();
  if (std::fflush(stdout) != 0 || std::ferror(stdout)) return file_error("write", "the text");

  const double seconds = seconds_since(start);
  if (full && (options.tokens == -1 || written < options.tokens))
    std::fprintf(stderr, "stopped: the context of %lld tokens is full; --slide goes on without the oldest\n",
                 static_cast<long long>(session->context()));
  std::fprintf(stderr, "prompt: %zu tokens, %.0f tok/s; text: %lld tokens, %.0f tok/s\n", prompt.size(),
               static_cast<double>(prompt.size()) / prompt_seconds, static_cast<long long>(written),
               static_cast<double>(written) / seconds);
  return {};
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Writes text with a trained model.", "chimera-generate"};
  app.end_help("chimera-generate -m model.gguf -p 'Once upon a time' -n 200", engine_help);
  add_model_option(app, options.model)->required();
  add_adapter_option(app, "--lora", options.adapters,
                     "adapters beside the model: PEFT's folder, a GGUF adapter, a run of chimera-align --lora");
  auto* prompt =
      app.add_option("-p,--prompt", options.text.prompt, "the text to continue; without it, what comes through a pipe")
          ->default_str("");
  app.add_option("-f,--file", options.text.file, "a file with the text to continue; -: standard input")
      ->type_name("FILE")
      ->default_str("")
      ->excludes(prompt);
  app.add_option("-n,--predict,--n-predict,--tokens", options.tokens,
                 "tokens to write, at most; -1: until the text ends, -2: until the context is full")
      ->check(at_least(-2));
  add_threads_option(app, options.threads);
  add_context_option(app, options.session);
  add_loop_options(app, options.session);
  add_kv_option(app, options.session.kv);
  app.add_flag("--slide,--context-shift", options.session.slide,
               "when the context is full, forget the oldest keys and values and go on");
  options.text.add_escape(app);
  app.add_option("--beams", options.beams.width,
                 "above 1: search for the likeliest text with so many beams, in place of sampling");
  app.add_option("--length-penalty", options.beams.length_penalty,
                 "of that search: 0 prefers short texts, larger numbers longer ones");
  options.sampling.add(app);
  return run(app, argc, argv, [&] {
    struct sigaction action {};
    action.sa_handler = [](int) { stop_asked = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    sigaction(SIGINT, &action, nullptr);
    return generate(options);
  });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-generate", [&] { return program(argc, argv); });
}
