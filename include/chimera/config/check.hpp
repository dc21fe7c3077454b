// What makes a config impossible, each said in words a user can act on.
#pragma once

#include <chimera/config/config.hpp>

namespace chimera {

/// Instantiating this stops compilation with the first rule that C breaks.
template <const Config& C>
struct Check {
  static constexpr bool has(Kind kind) {
    if (C.layers.unknown_word || C.layers.count > Layers::max) return false;
    return C.layers.count_of(kind) > 0;
  }
  static constexpr bool attends = has(Kind::attention);

  static_assert(C.vocab > 0, "chimera: vocab must be at least 1");
  static_assert(C.width > 0, "chimera: width must be at least 1");
  static_assert(C.context > 0, "chimera: context must be at least 1");
  static_assert(!C.layers.unknown_word,
                "chimera: the layer pattern has a word that names no layer; words are A M R GD XM TM SK");
  static_assert(C.layers.count > 0, "chimera: a model needs at least one layer");
  static_assert(C.layers.count <= Layers::max, "chimera: a model has at most 256 layers");
  static_assert(C.ffn.hidden > 0, "chimera: ffn.hidden must be at least 1");
  static_assert(C.dropout >= 0.f && C.dropout < 1.f, "chimera: dropout must be in [0, 1)");
  static_assert(C.norm_eps > 0.f, "chimera: norm_eps must be positive");
  static_assert(C.logit_scale > 0.f, "chimera: logit_scale must be positive");

  static_assert(!attends || C.attention.heads > 0, "chimera: attention.heads must be at least 1");
  static_assert(!attends || C.attention.head_dim > 0 || (C.attention.heads > 0 && C.width % C.attention.heads == 0),
                "chimera: width must be a multiple of attention.heads, or attention.head_dim must be given");
  static_assert(!attends || (C.kv_heads() > 0 && C.attention.heads % C.kv_heads() == 0),
                "chimera: attention.kv_heads must divide attention.heads");
  static_assert(!attends || (C.head_dim() > 0 && C.head_dim() <= 256), "chimera: head_dim must be between 1 and 256");
  static_assert(C.attention.window >= 0, "chimera: attention.window must not be negative");
  static_assert(!attends || C.attention.position != Position::rope ||
                    (C.rope_dims() % 2 == 0 && C.rope_dims() <= C.head_dim()),
                "chimera: rope.dims must be even and at most head_dim");

  static_assert(!has(Kind::mamba2) ||
                    (C.mamba2.head_dim > 0 && C.ssm_inner() > 0 && C.ssm_inner() % C.mamba2.head_dim == 0),
                "chimera: mamba2.expand * width must be a multiple of mamba2.head_dim");
  static_assert(!has(Kind::mamba2) || (C.mamba2.groups > 0 && C.ssm_heads() % C.mamba2.groups == 0),
                "chimera: mamba2.groups must divide the number of Mamba-2 heads");
  static_assert(!has(Kind::mamba2) || (C.mamba2.state > 0 && C.mamba2.state <= 256 && C.mamba2.head_dim <= 256),
                "chimera: mamba2.state and mamba2.head_dim must be between 1 and 256");
  static_assert(!has(Kind::mamba2) || (C.mamba2.chunk > 0 && C.mamba2.chunk <= 128),
                "chimera: mamba2.chunk must be between 1 and 128");
  static_assert(!has(Kind::mamba2) || (C.mamba2.conv > 0 && C.mamba2.conv <= 8),
                "chimera: mamba2.conv must be between 1 and 8");
  static_assert(!has(Kind::mamba2) || (C.mamba2.dt_min >= 0.f && C.mamba2.dt_min < C.mamba2.dt_max),
                "chimera: mamba2.dt_min must be below mamba2.dt_max");

  static_assert(!has(Kind::rg_lru) || (C.rnn_heads() > 0 && C.rnn_inner() % C.rnn_heads() == 0),
                "chimera: rg_lru.heads must divide the width of the recurrence");
  static_assert(!has(Kind::rg_lru) || (C.rg_lru.conv > 0 && C.rg_lru.conv <= 8),
                "chimera: rg_lru.conv must be between 1 and 8");

  /// Floats of all weights, upper bound; negative once the sum leaves 63 bits or any dimension is absurd.
  static constexpr std::int64_t size_bound() {
    constexpr std::int64_t limit = std::int64_t{1} << 50;  // four petabytes of f32
    std::int64_t total = 0;
    const auto add = [&](std::int64_t rows, std::int64_t cols) {
      if (total < 0 || rows < 0 || cols < 0 || (cols > 0 && rows > (limit - total) / cols))
        total = -1;
      else
        total += rows * cols;
    };
    add(C.vocab, C.width);
    if (!C.tied) add(C.vocab, C.width);
    add(std::int64_t{3} * C.ffn.hidden, std::int64_t{C.width} * C.layers.count);
    if (attends) add(2 * (C.attention.heads + C.kv_heads()), C.head_dim() * C.width);
    if (has(Kind::mamba2)) {
      add(C.ssm_inner(), std::int64_t{3} * C.width);
      add(std::int64_t{2} * C.mamba2.groups * C.mamba2.state, C.width);
    }
    if (has(Kind::rg_lru)) add(4 * C.rnn_inner(), C.rnn_inner() > C.width ? C.rnn_inner() : C.width);
    return total;
  }
  static_assert(size_bound() >= 0,
                "chimera: the sum of the weights overflows; width, vocab or ffn.hidden is too large");

  static constexpr bool ok = true;
};

}  // namespace chimera
