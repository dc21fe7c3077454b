// The numbers of the feed-forward layers, SwiGLU.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

struct SwiGluWeights {
  enum Param : std::size_t { gate_up, down, sub_norm };  // gate_up: the rows of gate, then the rows of up

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const std::int64_t width = c.width, hidden = c.ffn.hidden;
    return std::array{Tensor{"ffn_gate_up.weight", 2 * hidden, width, Role::matrix, Init::normal(), {hidden, hidden}},
                      Tensor{"ffn_down.weight", width, hidden, Role::matrix, Init::branch(c.layers.count)},
                      vector_tensor("ffn_sub_norm.weight", c.sub_norm ? hidden : 0, Init::constant(1.f))};
  }
};

struct FfnConfig {
  int hidden = 0;

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("hidden", s.hidden);
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return SwiGluWeights::table(c);
  }

#define CHIMERA_RULES(c, rule) rule(c.ffn.hidden > 0, "chimera: ffn.hidden must be at least 1")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const FfnConfig&) const = default;
};

}  // namespace chimera
