// The numbers of grouped-query attention, and of the rotation of its queries and keys.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/tensor.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// Which channels of a head turn together: neighbours (2i, 2i+1), as GGUF stores them, or (i, i + dims/2).
enum class RopeLayout : std::uint8_t { adjacent, halves };
template <>
struct Choices<RopeLayout> {
  static constexpr std::string_view type = "RopeLayout";
  static constexpr std::array<std::string_view, 2> values{"adjacent", "halves"};
};

/// How rotary frequencies are stretched beyond the trained context.
enum class RopeScaling : std::uint8_t { none, linear, ntk, dynamic_ntk, yarn, llama3, longrope };
template <>
struct Choices<RopeScaling> {
  static constexpr std::string_view type = "RopeScaling";
  static constexpr std::array<std::string_view, 7> values{"none", "linear", "ntk",     "dynamic_ntk",
                                                          "yarn", "llama3", "longrope"};
};

enum class Position : std::uint8_t { none, rope, alibi };
template <>
struct Choices<Position> {
  static constexpr std::string_view type = "Position";
  static constexpr std::array<std::string_view, 3> values{"none", "rope", "alibi"};
};

/// Rotary position embedding, and its extensions to longer contexts.
struct Rope {
  static constexpr int most_pairs = 128;

  float base = 10'000.f;
  int dims = 0;  // channels of a head that turn; 0: all
  RopeLayout layout = RopeLayout::adjacent;
  RopeScaling scaling = RopeScaling::none;
  float factor = 1.f;                                   // how many times longer than the trained context
  int original_context = 0;                             // the trained context; 0: Config::context
  float attention_factor = 0.f;                         // multiplies cos and sin; 0: as the scaling's paper derives it
  float beta_fast = 32.f, beta_slow = 1.f;              // YaRN's ramp, in turns over the trained context
  float mscale = 0.f, mscale_all_dim = 0.f;             // YaRN's two temperatures; 0: one temperature
  float low_freq_factor = 1.f, high_freq_factor = 4.f;  // Llama 3
  std::array<float, most_pairs> short_factor{}, long_factor{};  // LongRoPE, one for each pair
  int kept = 0;                                                 // LongRoPE: first positions that turn unscaled

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    const Meaning scaled = meaning_if(s.scaling != RopeScaling::none);
    f("base", s.base), f("dims", s.dims), f("layout", s.layout), f("scaling", s.scaling);
    f("factor", s.factor, scaled), f("original_context", s.original_context, scaled);
    f("attention_factor", s.attention_factor, scaled);
    f("beta_fast", s.beta_fast, scaled), f("beta_slow", s.beta_slow, scaled);
    f("mscale", s.mscale, scaled), f("mscale_all_dim", s.mscale_all_dim, scaled);
    f("low_freq_factor", s.low_freq_factor, scaled), f("high_freq_factor", s.high_freq_factor, scaled);
    f("short_factor", s.short_factor, scaled), f("long_factor", s.long_factor, scaled);
    f("kept", s.kept, Meaning::added);
  }

  constexpr bool operator==(const Rope&) const = default;
};

/// In arena order.
struct AttentionWeights {
  // qkv: the rows of the output gate, if there is one, and of q; of k; of v. q_norm and k_norm: of a head's channels
  enum Param : std::size_t { qkv, output, sub_norm, qkv_bias, output_bias, q_norm, k_norm };

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const std::int64_t width = c.width, q = c.attention.heads * c.head_dim(), k = c.kv_heads() * c.head_dim();
    const std::int64_t gate_and_q = c.attention.output_gate ? 2 * q : q, row = gate_and_q + 2 * k;
    const std::int64_t head_norm = c.attention.qk_norm ? c.head_dim() : 0;
    Tensor qkv_bias = vector_tensor("attn_qkv.bias", c.attention.qkv_bias ? row : 0, Init::constant(0.f));
    qkv_bias.parts = {gate_and_q, k, k};
    return std::array{Tensor{"attn_qkv.weight", row, width, Role::matrix, Init::normal(), {gate_and_q, k, k}},
                      Tensor{"attn_output.weight", width, q, Role::matrix, Init::branch(c.layers.count)},
                      vector_tensor("attn_sub_norm.weight", c.sub_norm ? q : 0, Init::constant(1.f)),
                      qkv_bias,
                      vector_tensor("attn_output.bias", c.attention.output_bias ? width : 0, Init::constant(0.f)),
                      vector_tensor("attn_q_norm.weight", head_norm, Init::constant(1.f)),
                      vector_tensor("attn_k_norm.weight", head_norm, Init::constant(1.f))};
  }
};

struct AttentionConfig {
  static constexpr Kind kind = Kind::attention;

  int heads = 0;
  int kv_heads = 0;   // 0: heads
  int head_dim = 0;   // 0: width / heads
  int window = 0;     // keys a query sees, itself included; 0: all
  float scale = 0.f;  // multiplies q.k; 0: 1 / sqrt(head_dim)
  Position position = Position::rope;
  Rope rope{};
  bool qkv_bias = false, output_bias = false;  // of the matrix of queries, keys and values; of the output matrix
  bool qk_norm = false;                        // a norm of each head's query and key, before they turn (Qwen3)
  bool output_gate = false;                    // what attention gives is multiplied by sigmoid(W x) (Qwen3-Next)

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("heads", s.heads), f("kv_heads", s.kv_heads), f("head_dim", s.head_dim), f("window", s.window);
    f("scale", s.scale), f("position", s.position), f("rope", s.rope, meaning_if(s.position == Position::rope));
    f("qkv_bias", s.qkv_bias, Meaning::added), f("output_bias", s.output_bias, Meaning::added);
    f("qk_norm", s.qk_norm, Meaning::added), f("output_gate", s.output_gate, Meaning::added);
  }
  /// The window and the scale stay 0: what they stand for may change with the context, or is rounded.
  template <class Whole>
  constexpr AttentionConfig resolved(const Whole& c) const {
    AttentionConfig a = *this;
    a.kv_heads = static_cast<int>(c.kv_heads()), a.head_dim = static_cast<int>(c.head_dim());
    a.rope.dims = static_cast<int>(c.rope_dims());
    if (a.rope.original_context == 0) a.rope.original_context = c.context;
    return a;
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return AttentionWeights::table(c);
  }

  /// Whether the numbers that frequencies are divided by are above 0.
  template <class Whole>
  constexpr bool has_positive_factors(const Whole& c) const {
    bool positive = rope.base > 0.f && rope.factor > 0.f;
    for (std::size_t i = 0; rope.scaling == RopeScaling::longrope && i < Rope::most_pairs; ++i)
      if (static_cast<std::int64_t>(2 * i) < c.rope_dims())
        positive = positive && rope.short_factor[i] > 0.f && rope.long_factor[i] > 0.f;
    return positive;
  }
  /// Bytes of a worker's scratch that decoding takes for the query heads of one key head: of one token, its queries
  /// and key, the scores of a chunk of the past, a tile of keys, and what is summed of all heads; of a piece, what a
  /// matrix product takes, the scores of a tile, its queries and keys.
  template <class Whole>
  constexpr std::int64_t decode_scratch(const Whole& c) const {
    constexpr std::int64_t tile = 64, product = 200'000;
    const std::int64_t group = heads / c.kv_heads(), row = (c.head_dim() + 31) / 32 * 32;
    const std::int64_t chunk = std::clamp<std::int64_t>((c.window() + 64 * tile - 1) / (64 * tile) * tile, 256, 4096);
    return std::max(bytes_of({(group + 1) * row, group * chunk + tile * row, heads * (row + 2)}),
                    bytes_of({product, tile * tile, 2 * tile * row, 2 * tile * group}));
  }

#define CHIMERA_RULES(c, rule)                                                                              \
  rule(c.attention.heads > 0, "chimera: attention.heads must be at least 1");                               \
  rule(c.attention.head_dim > 0 || (c.attention.heads > 0 && c.width % c.attention.heads == 0),             \
       "chimera: width must be a multiple of attention.heads, or attention.head_dim must be given");        \
  rule(c.kv_heads() > 0 && c.attention.heads % c.kv_heads() == 0,                                           \
       "chimera: attention.kv_heads must divide attention.heads");                                          \
  rule(c.head_dim() > 0 && c.head_dim() <= 256, "chimera: head_dim must be between 1 and 256");             \
  rule(c.attention.window >= 0, "chimera: attention.window must not be negative");                          \
  rule(c.attention.position != Position::rope || (c.rope_dims() % 2 == 0 && c.rope_dims() <= c.head_dim()), \
       "chimera: rope.dims must be even and at most head_dim");                                             \
  rule(c.attention.position != Position::rope || c.attention.has_positive_factors(c),                       \
       "chimera: rope.base, rope.factor and LongRoPE's factors must be above 0");                           \
  rule(c.attention.rope.kept >= 0, "chimera: attention.rope.kept must not be negative");                    \
  rule(c.kv_heads() <= 0 || c.attention.decode_scratch(c) <= std::int64_t{2} << 20,                         \
       "chimera: too many query heads share a key head")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const AttentionConfig&) const = default;
};

}  // namespace chimera
