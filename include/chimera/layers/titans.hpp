// Titans with its memory as context: in each segment of the text the memory recalls what its tokens remind it of;
// attention sees persistent vectors, what was recalled, and the segment; the memory learns from what attention gives, and
// what it then reads opens the gate (Behrouz, Zhong and Mirrokni, 2501.00663, section 4.1).
//
//   h = M(q(x)),  y = W_o attention(x; persistent, h, x),  r_t = M_t(q(y_t)) after the memory learned v(y_t) for k(y_t),
//   out = norm(y) sigmoid(norm(r));   q and k: unit(silu(W y)) of each of the memory's blocks, v: silu(W y)
//
// A token sees h and x of its segment up to its own, and reads M_t, so that nothing sees what comes later.
#pragma once

#include <chimera/kernels/cached/titans.hpp>
#include <chimera/kernels/f32/titans.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Titans : TitansWeights {
  static constexpr TitansConfig sizes = C.titans.resolved(C);
  static constexpr std::int64_t width = C.width, persistents = sizes.persistent;
  static constexpr TitansShape shape{width,         sizes.heads,        sizes.head_dim,      persistents,
                                     sizes.segment, sizes.memory_heads, sizes.memory_hidden, sizes.tbptt};
  static constexpr std::int64_t attended = shape.attended(), row = shape.attention_row();
  static constexpr std::int64_t of_x =
      shape.key_value();  // where keys and values of x stand in a row, behind those of h

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto q_map = linear_map<C>(params[query]), kv_map = linear_map<C>(params[key_value]),
                        out_map = linear_map<C>(params[output]), memory_q_map = linear_map<C>(params[memory_query]),
                        memory_kv_map = linear_map<C>(params[memory_key_value]);

  struct Activations {
    TitansSegments segments;
    TitansTokens tokens;
    float* states;      // that segments start from
    float* persistent;  // [persistents, keys and values]
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    return {bind_titans_segments(memory, batch.tokens(), shape.steps(batch.length)),
            bind_titans_tokens(memory, shape, batch.tokens(), true), memory.take(titans_states(shape, batch)),
            memory.take(persistents * shape.key_value())};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens(), scores = n * sizes.heads * persistents;
    Bump scratch;
    bind_titans_scratch(scratch, shape, n);
    return bytes_of({n * width, n * width, n * width, n * width, n * width, n * width, n * width, n * width, n * width,
                     n * 2 * width, n * 3, n * attended, n * attended, n * row, scores, scores,
                     persistents * shape.key_value()}) +
           static_cast<std::int64_t>(scratch.used) +
           std::max({norm_backward_bytes(n, 2 * width), linear_bytes(q_map, n), linear_bytes(kv_map, n),
                     linear_bytes(kv_map, persistents), linear_bytes(out_map, n), linear_bytes(memory_q_map, n),
                     linear_bytes(memory_kv_map, n)});
  }

  /// Of attention; of keys and values of h, and the query of x; and of the memory, six products with its weights.
  static constexpr double flops(std::int64_t context) {
    const auto seen = static_cast<double>(std::min(shape.segment, context));
    return 4 * static_cast<double>(attended) * (static_cast<double>(persistents) + seen) +
           2 * static_cast<double>(width) * static_cast<double>(shape.key_value() + width) +
           2 * static_cast<double>(width) * seen + 12 * static_cast<double>(shape.weights());
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<Titans> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    const TitansTokens& t = a.tokens;
    const TitansMemory start{{w.vector(memory), w.vector(memory_out)}};
    float* ordered = temp.take(n * width);
    linear(q, kv_map, w.matrix(key_value), persistents, 1.f, w.vector(persistent), width, 0.f, a.persistent, of_x,
           temp);
    titans_segments(q, shape, batch, t, a.persistent, a.states, nullptr, a.segments);
    titans_gather(q, n, width, a.segments.token, x, ordered);
    linear(q, q_map, w.matrix(query), n, 1.f, ordered, width, 0.f, t.q, attended, temp);
    linear(q, kv_map, w.matrix(key_value), n, 1.f, ordered, width, 0.f, t.attention + of_x, row, temp);
    linear(q, memory_q_map, w.matrix(memory_query), n, 1.f, ordered, width, 0.f, t.raw, width, temp);
    titans_queries(q, shape, n, t);
    titans_steps(
        q, a.segments, shape.training_columns, TitansOrder::forwards, [&](const auto& on, const TitansStep& step) {
          const std::int64_t rows = step.rows, at = step.first * width;
          titans_recall(on, shape, step, start, t);
          linear(on, kv_map, w.matrix(key_value), rows, 1.f, t.h + at, width, 0.f, t.attention + step.first * row, row,
                 temp);
          if constexpr (turned) titans_turn(on, shape, turns, step, 1.f, t.q, t.attention);
          titans_attention(on, shape, step, t);
          linear(on, out_map, w.matrix(output), rows, 1.f, t.mixed + step.first * attended, attended, 0.f, t.y + at,
                 width, temp);
          linear(on, memory_q_map, w.matrix(memory_query), rows, 1.f, t.y + at, width, 0.f, t.raw_q + at, width, temp);
          linear(on, memory_kv_map, w.matrix(memory_key_value), rows, 1.f, t.y + at, width, 0.f, t.raw_kv + 2 * at,
                 2 * width, temp);
          gemm(on, rows, 3, width, 1.f, row_major(t.y + at, width), transposed(w.vector(gates), width), 0.f,
               t.gates + step.first * 3, 3);
          titans_inputs(on, shape, step, gates_of(w), t);
          titans_update(on, shape, step, start, t);
        });
    titans_output(q, shape, n, C.norm_eps, scale, a.segments.token, t, w.vector(norm), w.vector(memory_norm), y);
  }

  // 3. Backward: the states of a.states become their gradients.
  static void backward(const Device auto& q, Weights<Titans> w, Weights<Titans, float> dw, const Batch& batch,
                       const float* x, const float* dout, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens(), scores = n * sizes.heads * persistents;
    const TitansTokens& t = a.tokens;
    const TitansMemory start{{w.vector(memory), w.vector(memory_out)}};
    const TitansMemoryGradient dstart{{dw.vector(memory), dw.vector(memory_out)}};
    float* ordered = temp.take(n * width);
    float* dordered = temp.take(n * width);
    float* dy = temp.take(n * width);
    const TitansGradients d{.read = dordered,
                            .query = temp.take(n * width),
                            .key = temp.take(n * width),
                            .value = temp.take(n * width),
                            .gates = temp.take(n * 3),
                            .h = temp.take(n * width),
                            .query_x = temp.take(n * width)};
    float* dq_raw = temp.take(n * width);
    float* dkv_raw = temp.take(n * 2 * width);
    float* dmixed = temp.take(n * attended);
    float* dqueries = temp.take(n * attended);
    float* dattention = temp.take(n * row);
    float* p = temp.take(scores);
    float* dp = temp.take(scores);
    float* dpersistent = temp.take(persistents * of_x);
    const TitansScratch scratch = bind_titans_scratch(temp, shape, n);
    titans_output_backward(q, shape, n, C.norm_eps, scale, a.segments.token, t, w.vector(norm), w.vector(memory_norm),
                           dout, dy, d, dw.vector(norm), dw.vector(memory_norm), temp);
    titans_steps(q, a.segments, shape.training_columns, TitansOrder::backwards,
                 [&](const auto& on, const TitansStep& step) {
                   const std::int64_t rows = step.rows, at = step.first * width;
                   titans_update_backward(on, shape, step, start, t, d, scratch);
                   titans_inputs_backward(on, shape, step, t, sizes.step_max, d, dq_raw, dkv_raw);
                   linear_input_gradient(on, memory_q_map, w.matrix(memory_query), rows, 1.f, dq_raw + at, width, 1.f,
                                         dy + at, width, temp);
                   linear_input_gradient(on, memory_kv_map, w.matrix(memory_key_value), rows, 1.f, dkv_raw + 2 * at,
                                         2 * width, 1.f, dy + at, width, temp);
                   gemm(on, rows, width, 3, 1.f, row_major(d.gates + step.first * 3, 3),
                        row_major(w.vector(gates), width), 1.f, dy + at, width);
                   linear_input_gradient(on, out_map, w.matrix(output), rows, 1.f, dy + at, width, 0.f,
                                         dmixed + step.first * attended, attended, temp);
                   titans_attention_backward(on, shape, step, t, dmixed, dqueries, dattention, p, dp);
                   if constexpr (turned) titans_turn(on, shape, turns, step, -1.f, dqueries, dattention);
                   linear_input_gradient(on, kv_map, w.matrix(key_value), rows, 1.f, dattention + step.first * row, row,
                                         0.f, d.h + at, width, temp);
                   titans_recall_backward(on, shape, step, start, t, d, scratch);
                   titans_states_backward(on, shape, step, t, d, scratch, dstart);
                 });
    titans_queries_backward(q, shape, n, t, d);
    titans_persistent_backward(q, shape, n, t, dmixed, p, dp, dpersistent);

    // Of y and h.
    linear_weight_gradient(q, out_map, w.matrix(output), dw.matrix(output), n, 1.f, dy, width, t.mixed, attended, temp);
    linear_weight_gradient(q, memory_q_map, w.matrix(memory_query), dw.matrix(memory_query), n, 1.f, dq_raw, width, t.y,
                           width, temp);
    linear_weight_gradient(q, memory_kv_map, w.matrix(memory_key_value), dw.matrix(memory_key_value), n, 1.f, dkv_raw,
                           2 * width, t.y, width, temp);
    gemm(q, 3, width, n, 1.f, transposed(d.gates, 3), row_major(t.y, width), 1.f, dw.vector(gates), width);
    sum_rows(q, n, 3, 1, d.gates, dw.vector(forget_bias));
    sum_rows(q, n, 3, 1, d.gates + 1, dw.vector(momentum_bias));
    sum_rows(q, n, 3, 1, d.gates + 2, dw.vector(step_bias));
    linear_weight_gradient(q, kv_map, w.matrix(key_value), dw.matrix(key_value), n, 1.f, dattention, row, t.h, width,
                           temp);
    // Of the persistent vectors, and of x.
    linear_backward(q, kv_map, w.matrix(key_value), dw.matrix(key_value), persistents, 1.f, dpersistent, of_x,
                    w.vector(persistent), width, 1.f, dw.vector(persistent), temp);
    titans_gather(q, n, width, a.segments.token, x, ordered);
    linear_backward(q, q_map, w.matrix(query), dw.matrix(query), n, 1.f, dqueries, attended, ordered, width, 0.f,
                    dordered, temp);
    linear_backward(q, kv_map, w.matrix(key_value), dw.matrix(key_value), n, 1.f, dattention + of_x, row, ordered,
                    width, 1.f, dordered, temp);
    linear_backward(q, memory_q_map, w.matrix(memory_query), dw.matrix(memory_query), n, 1.f, d.query_x, width, ordered,
                    width, 1.f, dordered, temp);
    titans_scatter(q, n, width, a.segments.token, dordered, dx);
  }

  // 4. Decode: the state that the segment started from, and the segment.
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = CachedTitans::bytes(shape)}; }
  static std::int64_t decode_bytes(std::int64_t n) {
    Bump count;
    bind_titans_segments(count, n, n + 1);
    bind_titans_tokens(count, shape, n, false);
    return static_cast<std::int64_t>(count.used) + bytes_of({n * width, persistents * of_x}) +
           std::max({product_bytes(n, width), product_bytes(n, attended), product_bytes(persistents, width)});
  }
  static void decode(const Device auto& q, PackedWeights<Titans> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    const std::int64_t n = pass.rows;
    const TitansMemory start{{w.vector(memory), w.vector(memory_out)}};
    const TitansSegments segments = bind_titans_segments(temp, n, cached_titans_steps(shape, pass));
    const TitansTokens t = bind_titans_tokens(temp, shape, n, false);
    float* ordered = temp.take(n * width);
    float* keys_values = temp.take(persistents * of_x);
    if (cached_titans_starts(pass)) {
      if constexpr (persistents > 0)
        product(q, w.matrix(key_value), persistents, {w.vector(persistent), width}, Then::store(keys_values, of_x),
                temp);
      cached_titans_start(q, shape, pass, start, keys_values);
    }
    cached_titans_segments(q, shape, pass, segments);
    titans_gather(q, n, width, segments.token, x.x, ordered);
    ProductInput in = x;
    in.x = ordered, in.stride = width;
    product(q, w.matrix(query), n, in, Then::store(t.q, attended), temp);
    product(q, w.matrix(key_value), n, in, Then::store(t.attention + of_x, row), temp);
    product(q, w.matrix(memory_query), n, in, Then::store(t.raw, width), temp);
    titans_queries(q, shape, n, t);
    titans_steps(q, segments, shape.decoding_columns, TitansOrder::forwards,
                 [&](const auto& on, const TitansStep& step) {
                   const std::int64_t rows = step.rows, at = step.first * width;
                   const ProductInput of_y{t.y + at, width};
                   titans_recall(on, shape, step, start, t);
                   product(on, w.matrix(key_value), rows, {t.h + at, width},
                           Then::store(t.attention + step.first * row, row), temp);
                   if constexpr (turned) titans_turn(on, shape, turns, step, 1.f, t.q, t.attention);
                   cached_titans_keep(on, shape, step, t);
                   titans_attention(on, shape, step, t);
                   product(on, w.matrix(output), rows, {t.mixed + step.first * attended, attended},
                           Then::store(t.y + at, width), temp);
                   product(on, w.matrix(memory_query), rows, of_y, Then::store(t.raw_q + at, width), temp);
                   product(on, w.matrix(memory_key_value), rows, of_y, Then::store(t.raw_kv + 2 * at, 2 * width), temp);
                   gate_product(on, w.vector(gates), 3, width, rows, of_y, t.gates + step.first * 3);
                   titans_inputs(on, shape, step, gates_of(w), t);
                   titans_update(on, shape, step, start, t);
                 });
    titans_output(q, shape, n, C.norm_eps, scale, segments.token, t, w.vector(norm), w.vector(memory_norm), y);
  }

 private:
  static_assert(titans_scratch_bytes(shape) <= Cpu::scratch_bytes);

  static constexpr bool turned = sizes.rope_base > 0.f;
  static constexpr RopeTurns turns = [] {
    RopeTurns t;
    t.factor = rope_frequencies({.base = sizes.rope_base}, sizes.head_dim, C.context, C.context, t.inverse.data());
    return t;
  }();

  static TitansGates gates_of(const auto& w) {
    return {w.vector(forget_bias), w.vector(momentum_bias), w.vector(step_bias), sizes.step_max};
  }
};

}  // namespace chimera::inline CHIMERA_ABI
