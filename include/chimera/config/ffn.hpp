// The numbers of the plain feed-forward layer, SwiGLU.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

struct SwiGluWeights {
  enum Param : std::size_t { gate_up, down, sub_norm };  // gate_up: the rows of gate, then the rows of up

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    return table(c, c.ffn.hidden, "ffn_gate_up.weight", "ffn_down.weight");
  }
  /// Of a layer with a size and names of its own: the expert that all tokens share.
  template <class Whole>
  static constexpr auto table(const Whole& c, std::int64_t hidden, std::string_view in, std::string_view out) {
    const std::int64_t width = c.width;
    return std::array{Tensor{in, 2 * hidden, width, Role::matrix, Init::normal(), {hidden, hidden}},
                      Tensor{out, width, hidden, Role::matrix, Init::branch(c.layers.count)},
                      vector_tensor("ffn_sub_norm.weight", c.sub_norm ? hidden : 0, Init::constant(1.f))};
  }
};

struct FfnConfig {
  static constexpr Ffn ffn = Ffn::swiglu;

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
