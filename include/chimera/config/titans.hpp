// The numbers of Titans' neural memory, in its form "memory as context" (Behrouz, Zhong and Mirrokni, 2501.00663).
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order. The memory starts small, forgets 5 % a token, and half the largest step is taken.
struct TitansWeights {
  enum Param : std::size_t {
    query,
    key_value,
    output,
    memory_query,
    memory_key_value,
    gates,
    forget_bias,
    momentum_bias,
    step_bias,
    memory,
    memory_out,
    persistent,
    norm,
    memory_norm
  };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto t = c.titans.resolved(c);
    const std::int64_t width = c.width, rows = std::int64_t{t.heads} * t.head_dim, blocks = t.memory_heads,
                       block = blocks > 0 ? width / blocks : 0, hidden = t.memory_hidden;
    return std::array{
        Tensor{"titans_q.weight", rows, width},
        Tensor{"titans_kv.weight", 2 * rows, width, Role::matrix, Init::normal(), {rows, rows}},
        Tensor{"titans_out.weight", width, rows}, Tensor{"titans_memory_q.weight", width, width},
        Tensor{"titans_memory_kv.weight", 2 * width, width, Role::matrix, Init::normal(), {width, width}},
        Tensor{"titans_gates.weight", 3, width, Role::gate, Init::normal(), {1, 1, 1}},  // forget, momentum, step
        vector_tensor("titans_forget_gate.bias", 1, Init::constant(-3.f)),
        vector_tensor("titans_momentum_gate.bias", 1, Init::constant(1.f)),
        vector_tensor("titans_step_gate.bias", 1, Init::constant(0.f)),
        // What the memory is before a text: of each of its blocks one matrix, or those of two layers.
        Tensor{"titans_memory.weight", blocks * (hidden > 0 ? hidden : block), block, Role::gate, start(block)},
        Tensor{"titans_memory_out.weight", hidden > 0 ? blocks * block : 0, hidden, Role::gate, start(hidden)},
        Tensor{"titans_persistent.weight", t.persistent, width, Role::gate},
        vector_tensor("titans_norm.weight", width, Init::constant(1.f)),
        vector_tensor("titans_memory_norm.weight", width, Init::constant(1.f))};
  }

 private:
  static constexpr Init start(std::int64_t cols) {
    return Init::normal(0.5f / constexpr_sqrt(static_cast<float>(cols > 0 ? cols : 1)));
  }
};

struct TitansConfig {
  static constexpr Kind kind = Kind::titans;

  int heads = 4;          // of attention
  int head_dim = 0;       // 0: width / heads
  int persistent = 16;    // vectors that every segment sees, whatever the text
  int segment = 64;       // tokens that see each other, and the memory as it was before them
  int memory_heads = 1;   // blocks of the width, each with a memory of its own
  int memory_depth = 1;   // 1: a matrix; 2: two layers with SiLU between them
  int memory_hidden = 0;  // of a block's two layers; 0: width / memory_heads
  float step_max = 0.1f;  // of a step of the memory along its gradient
  int tbptt = 0;          // segments that gradients go back through; 0: all
  float rope_base = 0.f;  // of rotary positions inside a segment; 0: attention knows no positions

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("heads", s.heads), f("head_dim", s.head_dim), f("persistent", s.persistent), f("segment", s.segment);
    f("memory_heads", s.memory_heads), f("memory_depth", s.memory_depth), f("memory_hidden", s.memory_hidden);
    f("step_max", s.step_max), f("tbptt", s.tbptt, Meaning::none);
    f("rope_base", s.rope_base, Meaning::added);
  }
  /// memory_hidden 0: the memory is one matrix.
  template <class Whole>
  constexpr TitansConfig resolved(const Whole& c) const {
    TitansConfig r = *this;
    if (head_dim == 0 && heads > 0) r.head_dim = c.width / heads;
    if (memory_hidden == 0 && memory_heads > 0) r.memory_hidden = c.width / memory_heads;
    if (memory_depth == 1) r.memory_hidden = 0;
    return r;
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return TitansWeights::table(c);
  }

  static constexpr int most_head = 512, most_segment = 128, most_persistent = 128, most_hidden = 16'384;

#define CHIMERA_RULES(c, rule)                                                                                        \
  rule(c.titans.heads > 0 && c.titans.head_dim >= 0 && (c.titans.head_dim > 0 || c.width % c.titans.heads == 0),      \
       "chimera: titans.heads must divide width where titans.head_dim is 0");                                         \
  rule(c.titans.resolved(c).head_dim > 0 && c.titans.resolved(c).head_dim <= TitansConfig::most_head,                 \
       "chimera: a head of titans must have between 1 and 512 channels");                                             \
  rule(c.titans.persistent >= 0 && c.titans.persistent <= TitansConfig::most_persistent,                              \
       "chimera: titans.persistent must be between 0 and 128");                                                       \
  rule(c.titans.segment > 0 && c.titans.segment <= TitansConfig::most_segment,                                        \
       "chimera: titans.segment must be between 1 and 128");                                                          \
  rule(c.titans.memory_heads > 0 && c.width % c.titans.memory_heads == 0,                                             \
       "chimera: titans.memory_heads must divide width");                                                             \
  rule(c.titans.memory_depth == 1 || c.titans.memory_depth == 2, "chimera: titans.memory_depth must be 1 or 2");      \
  rule(c.titans.memory_hidden >= 0 && c.titans.memory_hidden <= TitansConfig::most_hidden &&                          \
           (c.titans.memory_depth == 2 || c.titans.memory_hidden == 0),                                               \
       "chimera: titans.memory_hidden must be between 0 and 16384, and 0 where titans.memory_depth is 1");            \
  rule(c.titans.step_max > 0.f && c.titans.step_max <= 1.f,                                                           \
       "chimera: titans.step_max must be above 0, and at most 1");                                                    \
  rule(c.titans.tbptt >= 0, "chimera: titans.tbptt must not be negative");                                            \
  rule(c.titans.rope_base == 0.f || c.titans.rope_base >= 1.f, "chimera: titans.rope_base must be 0 or at least 1");  \
  rule(c.titans.rope_base == 0.f || (c.titans.resolved(c).head_dim % 2 == 0 && c.titans.resolved(c).head_dim <= 256), \
       "chimera: heads that titans.rope_base turns must have an even number of channels, at most 256")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const TitansConfig&) const = default;
};

}  // namespace chimera
