// Opens a model in any of its forms and writes text with it: saved_model MODEL PROMPT. MODEL is a run's folder, a
// checkpoint, a GGUF file, or a Hugging Face folder.
#include <chimera/config/presets.hpp>
#include <chimera/core/device.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/token_decoder.hpp>

#include <cstdio>

using namespace chimera;

/// The models that this program can run: a file is run by the one that has its config.
static constexpr AnyModel models[] = {inference_model<presets::nano>("nano"),
                                      inference_model<presets::griffin_nano>("griffin-nano")};

static Status write_text(const char* path, const char* prompt) {
  const auto cpu = Cpu::create();
  if (!cpu) return cpu.error();
  const auto saved = SavedModel::open(path, models);
  if (!saved) return saved.error();
  const auto tokenizer = saved->tokenizer();
  if (!tokenizer) return tokenizer.error();
  const auto weights = saved->packed(*cpu);
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights);
  if (!session) return session.error();
  auto sampler = TokenSampler::create(saved->config().vocab, {});
  if (!sampler) return sampler.error();

  TokenDecoder decoder(*tokenizer);
  auto logits = session->prefill(tokenizer->encode(prompt));
  for (int i = 0; i < 60 && logits; ++i) {
    const auto token = sampler->draw(*logits);
    if (!token) return token.error();
    if (tokenizer->ends_text(*token)) break;
    std::fputs(decoder.push(*token).c_str(), stdout);
    logits = session->step(*token);
  }
  std::puts(decoder.flush().c_str());
  return logits ? Status{} : logits.error();
}

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: saved_model MODEL PROMPT\n"), 2;
  const Status status = write_text(argv[1], argv[2]);
  if (!status) std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return !status;
}
