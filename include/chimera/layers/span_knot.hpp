// Span knots, a layer of this library's own: attention that sees its newest spans token by token and those before them
// as one knot each (kernels/f32/span_knot.hpp). Each head's query and key are normalised, and turned for what is seen
// token by token; what is given is multiplied by sigmoid(W x).
#pragma once

#include <chimera/core/constexpr_math.hpp>
#include <chimera/kernels/cached/span_knot.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/kernels/f32/span_knot.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct SpanKnot : SpanKnotWeights {
  static constexpr SpanKnotConfig sizes = C.span_knot.resolved(C);
  static constexpr std::int64_t width = C.width, heads = sizes.heads, head_dim = sizes.head_dim;
  static constexpr SpanKnotShape cell{
      heads, head_dim, sizes.span, sizes.window, static_cast<float>(constexpr_pow(head_dim, -0.5)), sizes.top_knots};
  static constexpr std::int64_t inner = cell.inner(), row = cell.row();

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[input]), out = linear_map<C>(params[output]);

  struct Activations {
    float* rows;    // [B,T,row]: q, k, v and the gate, as projected
    float* knots;   // [B,heads,slots,knot]
    float* mixed;   // [B,T,inner], before the gate
    float* lse;     // [B,heads,T]
    float* least;   // [B,heads,T], with top_knots
    float* angles;  // [T,rope_row]
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return {memory.take(n * row),
            memory.take(batch.sequences * heads * cell.slot_count(batch.length) * cell.knot()),
            memory.take(n * inner),
            memory.take(n * heads),
            memory.take(sizes.top_knots > 0 ? n * heads : 0),
            memory.take(batch.length * rope_row(head_dim, cell.turning().layout))};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return bytes_of({n * row, n * inner, n * row, n * row}) +
           std::max({span_knot_backward_bytes(cell, batch), head_norm_backward_bytes(norms(n)), linear_bytes(in, n),
                     linear_bytes(out, n)});
  }
  /// Four for each channel and each token or knot that a token sees on average, and what ties it.
  static constexpr double flops(std::int64_t context) {
    const std::int64_t tokens = std::min<std::int64_t>(context, (cell.window + 1) * cell.span);
    const double spans = static_cast<double>(context) / static_cast<double>(cell.span);
    const double older = std::max(0., spans - static_cast<double>(cell.window));
    const double newest = tokens < context ? static_cast<double>(2 * tokens - cell.span) : static_cast<double>(context);
    return static_cast<double>(inner) * (2 * newest + 2 * older * older / spans + 6);
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<SpanKnot> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* turned = temp.take(n * row);
    float* gated = temp.take(n * inner);
    linear(q, in, w.matrix(input), n, 1.f, x, width, 0.f, a.rows, row, temp);
    rope_table(q, turns, head_dim, cell.turning().layout, 0, batch.length, a.angles);
    turn(q, w, batch, a, turned);
    span_knot(q, cell, batch, seen(w, a, turned), a.knots, a.mixed, a.lse, a.least);
    sigmoid_gate(q, n, inner, a.rows + gate, row, a.mixed, gated);
    linear(q, out, w.matrix(output), n, scale, gated, inner, 1.f, y, width, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<SpanKnot> w, Weights<SpanKnot, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* turned = temp.take(n * row);
    float* dmixed = temp.take(n * inner);
    float* dturned = temp.take(n * row);
    float* drows = temp.take(n * row);
    turn(q, w, batch, a, turned);
    sigmoid_gate(q, n, inner, a.rows + gate, row, a.mixed, dmixed);
    linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, dmixed, inner, 0.f, dmixed, temp);
    sigmoid_gate_backward(q, n, inner, a.rows + gate, row, a.mixed, dmixed, drows + gate);
    span_knot_backward(q, cell, batch, seen(w, a, turned), a.knots, a.mixed, a.lse, a.least, dmixed,
                       {.dheads = dturned,
                        .drows = drows,
                        .dtie = dw.vector(tie),
                        .dgain = dw.vector(gain),
                        .ddistance = dw.vector(distance)},
                       temp);
    turn_heads_backward(q, cell, batch, a.angles, dturned, drows);
    head_norm_backward(q, norms(n), a.rows, norm_of(w, q_norm), norm_of(w, k_norm), drows, norm_of(dw, q_norm),
                       norm_of(dw, k_norm), temp);
    linear_backward(q, in, w.matrix(input), dw.matrix(input), n, 1.f, drows, row, x, width, 0.f, dx, temp);
  }

  // 4. Decode. A sequence carries sums of its newest span, and rings of keys and values and of knots.
  static constexpr StateBytes state(KvFormat kv, std::int64_t context) { return cached.bytes(kv, context); }
  static void copy_ring(KvFormat kv, std::int64_t context, std::int64_t tokens, const std::byte* from, std::byte* to) {
    copy_span_knots(cached, kv, context, tokens, from, to);
  }
  static std::int64_t decode_bytes(std::int64_t n) {
    return bytes_of({n * row, n * row, n * inner}) + std::max(product_bytes(n, width), product_bytes(n, inner));
  }
  static void decode(const Device auto& q, PackedWeights<SpanKnot> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* rows = temp.take(pass.rows * row);
    float* turned = temp.take(pass.rows * row);
    float* mixed = temp.take(pass.rows * inner);
    product(q, w.matrix(input), pass.rows, x, Then::store(rows, row), temp);
    head_norm(q, norms(pass.rows), rows, norm_of(w, q_norm), norm_of(w, k_norm), turned);
    cached_span_knot(q, cached, pass, turned, rows, w.vector(tie), w.vector(gain), w.vector(distance), mixed);
    sigmoid_gate(q, pass.rows, inner, rows + gate, row, mixed, mixed);
    product(q, w.matrix(output), pass.rows, {mixed, inner}, Then::add(y, width, scale), temp);
  }

 private:
  static constexpr std::int64_t gate = 3 * inner;  // in a row, behind q, k and v
  static constexpr RopeTurns turns = [] {
    RopeTurns t;
    t.factor = rope_frequencies({}, static_cast<int>(head_dim), C.context, C.context, t.inverse.data());
    return t;
  }();
  static constexpr CachedSpanKnotShape cached{cell, sizes.max_knots > 0 ? sizes.max_knots : C.context / sizes.span + 1,
                                              turns};
  static_assert(buckets == SpanKnotShape::buckets);
  static_assert(cached_span_knot_scratch_bytes(cached) <= Cpu::scratch_bytes);

  /// Null: all are 1.
  static auto norm_of(const auto& w, std::size_t param) { return sizes.norm_weights ? w.vector(param) : nullptr; }
  static constexpr HeadNormShape norms(std::int64_t n) { return {n, heads, heads, head_dim, row, C.norm_eps}; }
  static void turn(const Device auto& q, Weights<SpanKnot> w, const Batch& batch, const Activations& a, float* turned) {
    head_norm(q, norms(batch.tokens()), a.rows, norm_of(w, q_norm), norm_of(w, k_norm), turned);
    turn_heads(q, cell, batch, a.angles, turned);
  }
  static SpanKnotInput seen(Weights<SpanKnot> w, const Activations& a, const float* turned) {
    return {turned, a.rows, w.vector(tie), w.vector(gain), w.vector(distance)};
  }
};

}  // namespace chimera::inline CHIMERA_ABI
