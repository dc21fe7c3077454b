// The numbers of xLSTM's matrix memory, mLSTM (Beck et al., 2405.04517), with the soft caps of 2503.13427.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order. Gates start closed to their input: at first their biases alone say what they let in, next to
/// nothing, and what they forget, from 5 % a token in the first head to 0.25 % in the last.
struct MlstmWeights {
  enum Param : std::size_t { input, gates, input_gate_bias, forget_gate_bias, norm, output };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto m = c.mlstm.resolved(c);
    const std::int64_t width = c.width, qk = m.qk, v = m.v, heads = m.heads;
    return std::array{
        Tensor{"mlstm_in.weight", 2 * qk + 2 * v, width, Role::matrix, Init::normal(), {qk, qk, v, v}},   // q, k, v, o
        Tensor{"mlstm_gates.weight", 2 * heads, width, Role::gate, Init::constant(0.f), {heads, heads}},  // i, f
        vector_tensor("mlstm_input_gate.bias", heads, Init::constant(-10.f)),
        vector_tensor("mlstm_forget_gate.bias", heads, Init::even(3.f, 6.f)),
        vector_tensor("mlstm_norm.weight", v, Init::constant(1.f)),
        Tensor{"mlstm_out.weight", width, v, Role::matrix, Init::branch(c.layers.count)}};
  }
};

struct MlstmConfig {
  static constexpr Kind kind = Kind::mlstm;

  int heads = 4;
  int qk = 0;              // width of the queries, and of the keys, of all heads; 0: width / 2
  int v = 0;               // width of the values, and of the output gate; 0: width
  int chunk = 64;          // tokens that forward treats as one matrix
  float gate_cap = 15.f;   // gates are cap tanh(x / cap) before they become exponents
  float norm_eps = 1e-6f;  // of the norm of each head

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("heads", s.heads), f("qk", s.qk), f("v", s.v), f("chunk", s.chunk, Meaning::none);
    f("gate_cap", s.gate_cap), f("norm_eps", s.norm_eps);
  }
  template <class Whole>
  constexpr MlstmConfig resolved(const Whole& c) const {
    return {heads, qk ? qk : c.width / 2, v ? v : c.width, chunk, gate_cap, norm_eps};
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return MlstmWeights::table(c);
  }

  static constexpr int most_head = 512;  // channels

#define CHIMERA_RULES(c, rule)                                                                                         \
  rule(c.mlstm.heads > 0 && c.mlstm.qk >= 0 && c.mlstm.resolved(c).qk % c.mlstm.heads == 0,                            \
       "chimera: mlstm.heads must divide mlstm.qk, which is width / 2 where it is 0");                                 \
  rule(c.mlstm.v >= 0 && c.mlstm.resolved(c).v % c.mlstm.heads == 0,                                                   \
       "chimera: mlstm.heads must divide mlstm.v, which is width where it is 0");                                      \
  rule(c.mlstm.resolved(c).qk > 0 && c.mlstm.resolved(c).qk / c.mlstm.heads <= MlstmConfig::most_head &&               \
           c.mlstm.resolved(c).v / c.mlstm.heads <= MlstmConfig::most_head,                                            \
       "chimera: an mLSTM head must have between 1 and 512 channels of keys, and of values");                          \
  rule(c.mlstm.chunk > 0 && c.mlstm.chunk <= 128, "chimera: mlstm.chunk must be between 1 and 128");                   \
  rule(c.mlstm.gate_cap > 0.f && c.mlstm.gate_cap <= 50.f, "chimera: mlstm.gate_cap must be above 0, and at most 50"); \
  rule(c.mlstm.norm_eps > 0.f, "chimera: mlstm.norm_eps must be positive")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const MlstmConfig&) const = default;
};

}  // namespace chimera
