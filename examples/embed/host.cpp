// A program that carries its model: it reads no file, throws nothing, and the model runs on the program's own threads.
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/token_decoder.hpp>
#include <host/model.hpp>

#include <cstdio>

using namespace chimera;

/// Where a program with threads of its own would hand them the tasks; this one runs all of them here.
static void run_tasks(void*, std::int64_t count, TaskFunction task, void* context) {
  for (std::int64_t i = 0; i < count; ++i) task(context, i, 0);
}

static Status tell(const char* prompt, int length) {
  const auto cpu = Cpu::create(Executor{.threads = 1, .run = run_tasks});
  if (!cpu) return cpu.error();
  const auto file = Gguf::parse(tiny_file());
  if (!file) return file.error();
  const auto tokenizer = tokenizer_of(*file, tiny.vocab);
  if (!tokenizer) return tokenizer.error();
  const auto weights = pack_gguf(*cpu, *file, inference_model<tiny>("tiny"));
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights);
  if (!session) return session.error();
  auto sampler = TokenSampler::create(tiny.vocab, {});
  if (!sampler) return sampler.error();

  TokenDecoder decoder(*tokenizer);
  auto logits = session->prefill(tokenizer->encode(prompt));
  for (int i = 0; i < length && logits; ++i) {
    const auto token = sampler->draw(*logits);
    if (!token) return token.error();
    if (tokenizer->ends_text(*token)) break;
    std::fputs(decoder.push(*token).c_str(), stdout);
    logits = session->step(*token);
  }
  return logits ? Status{} : logits.error();
}

int main(int argc, char** argv) {
  const Status status = tell(argc > 1 ? argv[1] : "Once upon a time", 40);
  if (!status) std::fprintf(stderr, "%s\n", status.error().message.c_str());
  return !status;
}
