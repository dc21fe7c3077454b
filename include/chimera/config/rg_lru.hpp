// The numbers of Griffin's real-gated linear recurrent unit.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order. Gate matrices are [heads, in, out]: y = x W.
struct RgLruWeights {
  enum Param : std::size_t {
    gate,
    gate_bias,
    input,
    input_bias,
    conv,
    conv_bias,
    update,
    update_bias,
    decay,
    decay_bias,
    lambda,
    output,
    output_bias
  };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto r = c.rg_lru.resolved(c);
    const std::int64_t width = c.width, inner = r.inner, taps = r.conv;
    const std::int64_t block = r.heads > 0 ? inner / r.heads : 0;  // of the block-diagonal gates
    const std::int64_t in_bias = r.bias ? inner : 0, out_bias = r.bias ? width : 0;
    constexpr Init zero = Init::constant(0.f);
    return std::array{Tensor{"rg_lru.gate.weight", inner, width},
                      vector_tensor("rg_lru.gate.bias", in_bias, zero),
                      Tensor{"rg_lru.in.weight", inner, width},
                      vector_tensor("rg_lru.in.bias", in_bias, zero),
                      Tensor{"rg_lru.conv1d.weight", inner, taps, Role::taps, Init::taps(taps)},
                      vector_tensor("rg_lru.conv1d.bias", inner, zero),
                      Tensor{"rg_lru.update.weight", r.heads * block, block, Role::gate, Init::fan_in(block)},
                      vector_tensor("rg_lru.update.bias", inner, zero),
                      Tensor{"rg_lru.decay.weight", r.heads * block, block, Role::gate, Init::fan_in(block)},
                      vector_tensor("rg_lru.decay.bias", inner, zero),
                      vector_tensor("rg_lru.lambda", inner,
                                    Init::uniform(0.81f, 0.998001f, Init::Then::root_decay)),  // 0.9^2, 0.999^2
                      Tensor{"rg_lru.out.weight", width, inner, Role::matrix, Init::branch(c.layers.count)},
                      vector_tensor("rg_lru.out.bias", out_bias, zero)};
  }
};

struct RgLruConfig {
  static constexpr Kind kind = Kind::rg_lru;

  int inner = 0;  // width of the recurrence; 0: width
  int heads = 0;  // blocks of the block-diagonal gates; 0: attention.heads
  int conv = 4;
  bool bias = false;  // of the three projections

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("inner", s.inner), f("heads", s.heads), f("conv", s.conv), f("bias", s.bias);
  }
  template <class Whole>
  constexpr RgLruConfig resolved(const Whole& c) const {
    return {inner ? inner : c.width, heads ? heads : c.attention.heads, conv, bias};
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return RgLruWeights::table(c);
  }

#define CHIMERA_RULES(c, rule)                                                                         \
  rule(c.rg_lru.resolved(c).heads > 0 && c.rg_lru.resolved(c).inner % c.rg_lru.resolved(c).heads == 0, \
       "chimera: rg_lru.heads must divide the width of the recurrence");                               \
  rule(c.rg_lru.conv > 0 && c.rg_lru.conv <= 8, "chimera: rg_lru.conv must be between 1 and 8")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const RgLruConfig&) const = default;
};

}  // namespace chimera
