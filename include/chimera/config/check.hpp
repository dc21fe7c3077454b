// What makes a config impossible, each said in words a user can act on: to the compiler for a constexpr config, as a
// value for one that is read from a file.
#pragma once

#include <chimera/config/config.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera {

/// Whether a block of that kind is in the pattern; false for a pattern with a mistake.
constexpr bool has_kind(const Config& c, Kind kind) {
  return !c.layers.unknown_word && c.layers.count <= Layers::max && c.layers.count_of(kind) > 0;
}

/// Floats of all weights, upper bound; negative once the sum leaves 63 bits or any dimension is absurd.
constexpr std::int64_t size_bound(const Config& c) {
  constexpr std::int64_t limit = std::int64_t{1} << 50;  // four petabytes of f32
  std::int64_t total = 0;
  const auto add = [&](std::int64_t rows, std::int64_t cols) {
    if (total < 0 || rows < 0 || cols < 0 || (cols > 0 && rows > (limit - total) / cols))
      total = -1;
    else
      total += rows * cols;
  };
  add(c.vocab, c.width);
  if (!c.tied) add(c.vocab, c.width);
  add(std::int64_t{3} * c.ffn.hidden, std::int64_t{c.width} * c.layers.count);
  if (has_kind(c, Kind::attention)) add(2 * (c.attention.heads + c.kv_heads()), c.head_dim() * c.width);
  if (has_kind(c, Kind::mamba2)) {
    add(c.ssm_inner(), std::int64_t{3} * c.width);
    add(std::int64_t{2} * c.mamba2.groups * c.mamba2.state, c.width);
  }
  if (has_kind(c, Kind::rg_lru)) add(4 * c.rnn_inner(), c.rnn_inner() > c.width ? c.rnn_inner() : c.width);
  return total;
}

/// The most numbers of a row that a layer multiplies: a worker's scratch holds one in all forms that weights take.
inline constexpr std::int64_t most_columns = 1 << 17;

constexpr std::int64_t widest_row(const Config& c) {
  std::int64_t widest = std::max<std::int64_t>(c.width, c.ffn.hidden);
  if (has_kind(c, Kind::attention)) widest = std::max(widest, c.attention.heads * c.head_dim());
  if (has_kind(c, Kind::mamba2)) widest = std::max(widest, c.ssm_inner());
  if (has_kind(c, Kind::rg_lru)) widest = std::max(widest, c.rnn_inner());
  return widest;
}

/// Whether the numbers that frequencies are divided by are above 0.
constexpr bool has_positive_factors(const Config& c) {
  const Rope& r = c.attention.rope;
  bool positive = r.base > 0.f && r.factor > 0.f;
  for (std::size_t i = 0; r.scaling == RopeScaling::longrope && i < Rope::max_pairs; ++i)
    if (static_cast<std::int64_t>(2 * i) < c.rope_dims())
      positive = positive && r.short_factor[i] > 0.f && r.long_factor[i] > 0.f;
  return positive;
}

// All rules, in an order in which a later one may rely on those before it. A macro, because a static_assert takes its
// words from nowhere but a literal.
#define CHIMERA_CONFIG_RULES(c, rule)                                                                               \
  rule(c.vocab > 0, "chimera: vocab must be at least 1");                                                           \
  rule(c.width > 0, "chimera: width must be at least 1");                                                           \
  rule(c.context > 0, "chimera: context must be at least 1");                                                       \
  rule(!c.layers.unknown_word,                                                                                      \
       "chimera: the layer pattern has a word that names no layer; words are A M R GD XM TM SK");                   \
  rule(!c.layers.wrong_own_word,                                                                                    \
       "chimera: a word of a layer of your own must be new, of 1 to 7 letters or digits, and there are at most 4"); \
  rule(c.layers.count > 0, "chimera: a model needs at least one layer");                                            \
  rule(c.layers.count <= Layers::max, "chimera: a model has at most 256 layers");                                   \
  rule(c.ffn.hidden > 0, "chimera: ffn.hidden must be at least 1");                                                 \
  rule(c.dropout >= 0.f && c.dropout < 1.f, "chimera: dropout must be in [0, 1)");                                  \
  rule(c.norm_eps > 0.f, "chimera: norm_eps must be positive");                                                     \
  rule(c.logit_scale > 0.f, "chimera: logit_scale must be positive");                                               \
  rule(!has_kind(c, Kind::attention) || c.attention.heads > 0, "chimera: attention.heads must be at least 1");      \
  rule(!has_kind(c, Kind::attention) || c.attention.head_dim > 0 ||                                                 \
           (c.attention.heads > 0 && c.width % c.attention.heads == 0),                                             \
       "chimera: width must be a multiple of attention.heads, or attention.head_dim must be given");                \
  rule(!has_kind(c, Kind::attention) || (c.kv_heads() > 0 && c.attention.heads % c.kv_heads() == 0),                \
       "chimera: attention.kv_heads must divide attention.heads");                                                  \
  rule(!has_kind(c, Kind::attention) || (c.head_dim() > 0 && c.head_dim() <= 256),                                  \
       "chimera: head_dim must be between 1 and 256");                                                              \
  rule(c.attention.window >= 0, "chimera: attention.window must not be negative");                                  \
  rule(!has_kind(c, Kind::attention) || c.attention.position != Position::rope ||                                   \
           (c.rope_dims() % 2 == 0 && c.rope_dims() <= c.head_dim()),                                               \
       "chimera: rope.dims must be even and at most head_dim");                                                     \
  rule(!has_kind(c, Kind::attention) || c.attention.position != Position::rope || has_positive_factors(c),          \
       "chimera: rope.base, rope.factor and LongRoPE's factors must be above 0");                                   \
  rule(!has_kind(c, Kind::mamba2) ||                                                                                \
           (c.mamba2.head_dim > 0 && c.ssm_inner() > 0 && c.ssm_inner() % c.mamba2.head_dim == 0),                  \
       "chimera: mamba2.expand * width must be a multiple of mamba2.head_dim");                                     \
  rule(!has_kind(c, Kind::mamba2) || (c.mamba2.groups > 0 && c.ssm_heads() % c.mamba2.groups == 0),                 \
       "chimera: mamba2.groups must divide the number of Mamba-2 heads");                                           \
  rule(!has_kind(c, Kind::mamba2) || (c.mamba2.state > 0 && c.mamba2.state <= 256 && c.mamba2.head_dim <= 256),     \
       "chimera: mamba2.state and mamba2.head_dim must be between 1 and 256");                                      \
  rule(!has_kind(c, Kind::mamba2) || (c.mamba2.chunk > 0 && c.mamba2.chunk <= 128),                                 \
       "chimera: mamba2.chunk must be between 1 and 128");                                                          \
  rule(!has_kind(c, Kind::mamba2) || (c.mamba2.conv > 0 && c.mamba2.conv <= 8),                                     \
       "chimera: mamba2.conv must be between 1 and 8");                                                             \
  rule(!has_kind(c, Kind::mamba2) || (c.mamba2.dt_min >= 0.f && c.mamba2.dt_min < c.mamba2.dt_max),                 \
       "chimera: mamba2.dt_min must be below mamba2.dt_max");                                                       \
  rule(!has_kind(c, Kind::rg_lru) || (c.rnn_heads() > 0 && c.rnn_inner() % c.rnn_heads() == 0),                     \
       "chimera: rg_lru.heads must divide the width of the recurrence");                                            \
  rule(!has_kind(c, Kind::rg_lru) || (c.rg_lru.conv > 0 && c.rg_lru.conv <= 8),                                     \
       "chimera: rg_lru.conv must be between 1 and 8");                                                             \
  rule(size_bound(c) >= 0, "chimera: the sum of the weights overflows; width, vocab or ffn.hidden is too large");   \
  rule(widest_row(c) <= most_columns, "chimera: width, ffn.hidden and inner widths must be at most 131072")

/// Instantiating this stops compilation with the first rule that C breaks.
template <const Config& C>
struct Check {
  static constexpr bool has(Kind kind) { return has_kind(C, kind); }
  CHIMERA_CONFIG_RULES(C, static_assert);
  static constexpr bool ok = true;
};

/// The first rule that a config breaks, or null.
constexpr const char* broken_rule(const Config& config) {
#define CHIMERA_RULE(holds, words) \
  if (!(holds)) return words
  CHIMERA_CONFIG_RULES(config, CHIMERA_RULE);
#undef CHIMERA_RULE
  return nullptr;
}

#undef CHIMERA_CONFIG_RULES

}  // namespace chimera
