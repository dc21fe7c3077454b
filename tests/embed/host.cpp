// All that an application needs to run a model: one include, one config.
#include <chimera/chimera.hpp>

#include <cstdio>

inline constexpr chimera::Config mine{.vocab = 512,
                                      .width = 64,
                                      .layers = chimera::pattern("M R A", 6),
                                      .attention = {.heads = 2},
                                      .mamba2 = {.head_dim = 32, .state = 16},
                                      .ffn = {.hidden = 128}};

int main() {
  constexpr chimera::AnyModel model = chimera::inference_model<mine>("mine");
  const auto cpu = chimera::Cpu::create();
  auto weights = chimera::Buffer::create(model.arena_floats);
  if (!cpu || !weights) return 1;
  model.initialize(weights->data(), 1);
  const auto packed = chimera::PackedModel::create(*cpu, model, weights->data());
  if (!packed) return 1;
  auto session = chimera::Session::create(*cpu, *packed);
  if (!session) return 1;
  auto logits = session->step('a');
  for (int i = 0; i < 31 && logits; ++i) logits = session->step('a');
  if (!logits) return 1;
  const float b = (*logits)['b'];
  std::printf("%lld weights, logit of b: %g\n", static_cast<long long>(model.parameters), double{b});
  return b == b ? 0 : 1;  // not NaN
}
