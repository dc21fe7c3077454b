// The numbers of the plain feed-forward layer, SwiGLU unless its activation says otherwise.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// What the last matrix multiplies: of products with two matrices, gate and up, or with up alone.
enum class Activation : std::uint8_t {
  swiglu,      // silu(gate) * up
  geglu,       // gelu(gate) * up, in GELU's tanh form
  relu2_gate,  // relu(gate)^2 * up
  relu2,       // relu(up)^2
};
template <>
struct Choices<Activation> {
  static constexpr std::string_view type = "Activation";
  static constexpr std::array<std::string_view, 4> values{"swiglu", "geglu", "relu2_gate", "relu2"};
};

struct SwiGluWeights {
  // gate_up: the rows of gate, if there are any, then the rows of up
  enum Param : std::size_t { gate_up, down, sub_norm, gate_up_bias, down_bias };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    return table(c, c.ffn.hidden, "ffn_gate_up.weight", "ffn_down.weight");
  }
  /// Of a layer with a size and names of its own: the expert that all tokens share.
  template <class Whole>
  static constexpr auto table(const Whole& c, std::int64_t hidden, std::string_view in, std::string_view out) {
    const std::int64_t width = c.width, gate = c.ffn.gated() ? hidden : 0;
    constexpr Init zero = Init::constant(0.f);
    Tensor in_bias = vector_tensor("ffn_gate_up.bias", c.ffn.bias ? gate + hidden : 0, zero);
    in_bias.parts = {gate, hidden};
    return std::array{Tensor{in, gate + hidden, width, Role::matrix, Init::normal(), {gate, hidden}},
                      Tensor{out, width, hidden, Role::matrix, Init::branch(c.layers.count)},
                      vector_tensor("ffn_sub_norm.weight", c.sub_norm ? hidden : 0, Init::constant(1.f)), in_bias,
                      vector_tensor("ffn_down.bias", c.ffn.bias ? width : 0, zero)};
  }
};

struct FfnConfig {
  static constexpr Ffn ffn = Ffn::swiglu;

  int hidden = 0;
  Activation activation = Activation::swiglu;
  bool bias = false;  // of all matrices

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("hidden", s.hidden);
    f("activation", s.activation, Meaning::added), f("bias", s.bias, Meaning::added);
  }
  constexpr bool gated() const { return activation != Activation::relu2; }
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
