// All that an application needs to run a model: one include, one config.
#include <chimera/chimera.hpp>

#include <cstdio>

inline constexpr chimera::Config mine{.vocab = 512,
                                      .width = 64,
                                      .layers = chimera::pattern("M R A", 6),
                                      .attention = {.heads = 2},
                                      .mamba2 = {.head_dim = 32, .state = 16},
                                      .ffn = {.hidden = 128}};
using Mine = chimera::LanguageModel<mine>;

int main() {
  const auto cpu = chimera::Cpu::create();
  auto weights = chimera::Buffer::create(Mine::arena_floats);
  auto state = chimera::Buffer::create(Mine::state_floats);
  auto memory = chimera::Buffer::create(Mine::decode_floats());
  auto logits = chimera::Buffer::create(mine.vocab);
  if (!cpu || !weights || !state || !memory || !logits) return 1;
  Mine::initialize(weights->data(), 1);
  for (int position = 0; position < 32; ++position)
    Mine::step(*cpu, weights->data(), 'a', position, state->data(), memory->data(), logits->data());
  const float b = *(logits->data() + 'b');
  std::printf("%lld weights, logit of b: %g\n", static_cast<long long>(Mine::parameters), double{b});
  return b == b ? 0 : 1;  // not NaN
}
