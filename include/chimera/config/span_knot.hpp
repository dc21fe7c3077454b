// The numbers of span knots, a layer of this library's own.
#pragma once

#include <chimera/config/fields.hpp>
#include <chimera/config/kinds.hpp>
#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// In arena order. A knot counts as many tokens as it stands for at first, and is their mean, wherever it lies.
struct SpanKnotWeights {
  // input: the rows of q, k, v and the gate; tie: of a head's channels; distance: of each head, by powers of two
  enum Param : std::size_t { input, tie, gain, distance, q_norm, k_norm, output };

  static constexpr std::int64_t buckets = 16;

  template <class Whole>
  static constexpr auto table(const Whole& c) {
    const auto s = c.span_knot.resolved(c);
    const std::int64_t width = c.width, heads = s.heads, inner = heads * s.head_dim;
    const std::int64_t head_norm = s.norm_weights ? s.head_dim : 0;
    const float tokens = static_cast<float>(constexpr_log(s.span > 0 ? s.span : 1));
    return std::array{
        Tensor{"knot_in.weight", 4 * inner, width, Role::matrix, Init::normal(), {inner, inner, inner, inner}},
        vector_tensor("knot_tie.weight", inner, Init::constant(0.f)),
        vector_tensor("knot_gain.bias", heads, Init::constant(tokens)),
        vector_tensor("knot_distance.bias", heads * buckets, Init::constant(0.f)),
        vector_tensor("knot_q_norm.weight", head_norm, Init::constant(1.f)),
        vector_tensor("knot_k_norm.weight", head_norm, Init::constant(1.f)),
        Tensor{"knot_out.weight", width, inner, Role::matrix, Init::branch(c.layers.count)}};
  }
};

struct SpanKnotConfig {
  static constexpr Kind kind = Kind::span_knot;

  int heads = 0;             // 0: attention.heads
  int head_dim = 0;          // 0: width / heads
  int span = 32;             // tokens that become one knot
  int window = 1;            // whole spans before its own that a token sees token by token
  int max_knots = 0;         // knots that decoding keeps for a token to see: the oldest leave; 0: as the context has
  int top_knots = 0;         // of those, with the largest scores, that a token sees; 0: all
  bool norm_weights = true;  // the norms of each head's query and key have weights

  template <class Self, class F>
  static constexpr void each_field(Self& s, F&& f) {
    f("heads", s.heads), f("head_dim", s.head_dim), f("span", s.span), f("window", s.window);
    f("max_knots", s.max_knots), f("top_knots", s.top_knots), f("norm_weights", s.norm_weights);
  }
  template <class Whole>
  constexpr SpanKnotConfig resolved(const Whole& c) const {
    SpanKnotConfig r = *this;
    if (r.heads == 0) r.heads = c.attention.heads;
    if (r.head_dim == 0) r.head_dim = r.heads > 0 ? c.width / r.heads : 0;
    return r;
  }
  template <class Whole>
  static constexpr auto weights(const Whole& c) {
    return SpanKnotWeights::table(c);
  }

#define CHIMERA_RULES(c, rule)                                                                                        \
  rule(c.span_knot.resolved(c).heads > 0, "chimera: span_knot.heads, or attention.heads for it, must be at least 1"); \
  rule(c.span_knot.resolved(c).head_dim > 0 && c.span_knot.resolved(c).head_dim <= 256 &&                             \
           c.span_knot.resolved(c).head_dim % 2 == 0,                                                                 \
       "chimera: span_knot.head_dim, or width / span_knot.heads for it, must be even, and between 2 and 256");        \
  rule(c.span_knot.span > 0 && c.span_knot.span <= 256, "chimera: span_knot.span must be between 1 and 256");         \
  rule(c.span_knot.window >= 0 && c.span_knot.window <= 64, "chimera: span_knot.window must be between 0 and 64");    \
  rule(c.span_knot.max_knots >= 0, "chimera: span_knot.max_knots must not be negative");                              \
  rule(c.span_knot.top_knots >= 0 && c.span_knot.top_knots <= 256,                                                    \
       "chimera: span_knot.top_knots must be between 0 and 256")
  CHIMERA_CONFIG_RULES;
#undef CHIMERA_RULES

  constexpr bool operator==(const SpanKnotConfig&) const = default;
};

}  // namespace chimera
