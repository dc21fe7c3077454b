// A host whose flags or pragmas take liberties with floating point (PRAGMAS: written before the first header). It ends
// with 0 if what must not depend on them is right.
#if defined(PRAGMAS)
_Pragma(PRAGMAS)
#endif
#include <chimera/inference.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/formats/block_formats.hpp>

#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <vector>

    using namespace chimera;

namespace {

inline constexpr Config mine{.vocab = 288,
                             .width = 64,
                             .context = 64,
                             .layers = pattern("M R A GD XM SK"),
                             .attention = {.heads = 4, .kv_heads = 2},
                             .mamba2 = {.head_dim = 16, .state = 16},
                             .rg_lru = {.heads = 2},
                             .span_knot = {.span = 2},
                             .ffn = {.hidden = 128}};

int wrong = 0;

void expect(const char* what, double value, double right, double tolerance) {
  // By bits, as the library does: with these flags a comparison with NaN may say anything.
  if (is_finite(value) && std::fabs(value - right) <= tolerance) return;
  std::printf("%s: %.10g, expected %.10g\n", what, value, right);
  ++wrong;
}

void expect(const char* what, bool right) {
  if (!right) std::printf("%s\n", what), ++wrong;
}

template <class F>
float one(F f, float x) {
  std::array<float, 4> all{x, x, x, x};
  f(Vec<4>::load(all.data())).store(all.data());
  return all[3];
}

void functions() {
  for (float x = -30.f; x <= 30.f; x += 0.37f) {
    const double wide = static_cast<double>(x), e = std::exp(wide);
    expect("exp", static_cast<double>(one([](auto v) { return exp<4>(v); }, x)), e, 4e-7 * e);
    expect("softplus", static_cast<double>(one([](auto v) { return softplus<4>(v); }, x)), std::log1p(e),
           1e-6 * std::log1p(e));
    expect("tanh", static_cast<double>(one([](auto v) { return tanh<4>(v); }, x)), std::tanh(wide), 1e-6);
    expect("log", static_cast<double>(one([](auto v) { return log<4>(v); }, static_cast<float>(e))),
           std::log(static_cast<double>(static_cast<float>(e))), 1e-5);
    expect("nearest", static_cast<double>(one([](auto v) { return format_parts::nearest<4>(v); }, x)),
           std::nearbyint(wide), 0);
  }
}

void sampler() {
  const float nan = std::bit_cast<float>(0x7FC00000), infinite = std::bit_cast<float>(0x7F800000);
  expect("exp of NaN", is_nan(one([](auto v) { return exp<4>(v); }, nan)));
  std::vector<float> logits(288, 0.f);
  auto plain = TokenSampler::create(288, {});
  logits[7] = nan;
  expect("a NaN was drawn", !plain->draw(logits));
  logits[7] = infinite;
  expect("an infinite logit was drawn", !plain->draw(logits));
  logits[7] = 0.f;
  TokenSamplerSettings settings{.top_k = 0, .top_p = 1.f, .min_p = 0.f};
  for (int i = 0; i < 288; ++i)
    if (i != 9) settings.logit_bias.push_back({i, -infinite});
  auto only = TokenSampler::create(288, settings);
  expect("a bias of minus infinity was refused", only.ok());
  for (int i = 0; only && i < 10; ++i) {
    const auto token = only->draw(logits);
    expect("a token was drawn that is forbidden", token && *token == 9);
  }
  expect("a temperature of NaN was taken", !TokenSampler::create(288, {.temperature = nan}));
  settings = {.temperature = 1.f, .top_k = 0, .top_p = 1.f, .min_p = 0.f};
  auto three = TokenSampler::create(3, settings);
  const auto d = three->distribution(std::array{0.f, 1.f, 2.f});
  for (std::size_t i = 0; d && i < 3; ++i)
    expect("p", static_cast<double>(d->probabilities[i]),
           std::array{0.09003057, 0.24472847, 0.66524096}[static_cast<std::size_t>(d->candidates[i].token)], 1e-6);
  expect("no distribution", d.ok());
}

/// Quantizing and F16 take the same bits as anywhere; a model's logits are the same but for rounding.
void model() {
  std::vector<float> weights(32);
  for (int i = 0; i < 32; ++i) weights[static_cast<std::size_t>(i)] = 0.01f * static_cast<float>(i * i % 37 - 18);
  std::vector<std::byte> block(34);
  const auto cpu = Cpu::create(1);
  expect("no block", encode(cpu->isa(), Format::q8_0, weights.data(), 32, block.data()).ok());
  unsigned hash = 0;
  for (const std::byte b : block) hash = hash * 31 + static_cast<unsigned>(b);
  expect("q8_0", static_cast<double>(hash), 3411552368., 0);

  const AnyModel any = inference_model<mine>("mine");
  std::vector<float> arena(any.arena_floats);
  any.initialize(arena.data(), 5);
  const auto packed = PackedModel::create(*cpu, any, arena.data());
  auto session = Session::create(*cpu, *packed);
  double sum = 0, squares = 0;
  for (int t : {116, 104, 101, 32, 99, 97, 116}) {
    const auto logits = session->step(t);
    for (float x : *logits) sum += static_cast<double>(x), squares += static_cast<double>(x) * static_cast<double>(x);
  }
  expect("sum of the logits", sum, -8.119463737, 1e-3);
  expect("sum of their squares", squares, 56.68040918, 1e-3);
}

}  // namespace

int main() {
  functions();
  sampler();
  model();
  return wrong;
}
