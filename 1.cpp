#include <chimera/inference.hpp>

using namespace chimera;

inline constexpr Config tiny{.vocab = 512, .width = 64, .layers = pattern("M A", 2), .attention = {.heads = 2},
                             .mamba2 = {.head_dim = 32, .state = 16}, .ffn = {.hidden = 128}};

Status run(const char* file) {
  const auto cpu = Cpu::create();
  if (!cpu) return cpu.error();
  const auto weights = pack_gguf(*cpu, file, inference_model<tiny>("tiny"));  // in the file's own formats
  if (!weights) return weights.error();
  auto session = Session::create(*cpu, *weights, {.kv = KvFormat::q8_0});  // keys and values: f32, f16, q8_0, q4_0
  if (!session) return session.error();
  if (const auto logits = session->prefill(std::vector<std::int32_t>{72, 101, 108}); !logits) return logits.error();

  auto branch = session->fork();  // goes on from here by itself
  if (!branch) return branch.error();
  Session* both[] = {&*session, &*branch};
  const std::int32_t tokens[] = {108, 112};
  return Session::step_all(both, tokens);  // one token each in one pass: the weights are read once for both
}
