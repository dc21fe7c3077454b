// Gated DeltaNet: in-projection, short convolution, gated delta rule, norm of each head and gate, out-projection (Yang,
// Kautz and Hatamizadeh, 2412.06464).
#pragma once

#include <chimera/kernels/cached/delta_rule.hpp>
#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/f32/delta_rule.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct GatedDeltaNet : GatedDeltaNetWeights {
  static constexpr GatedDeltaNetConfig sizes = C.gated_deltanet.resolved(C);
  static constexpr DeltaRuleShape rule{sizes.key_heads, sizes.value_heads, sizes.key_dim, sizes.value_dim, sizes.chunk};
  static constexpr std::int64_t width = C.width, heads = rule.value_heads, values = rule.values();
  static constexpr std::int64_t channels = rule.row();    // q, k, v: what the convolution sees
  static constexpr std::int64_t row = channels + values;  // q, k, v, z: rows of the in-projection

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[input]), out = linear_map<C>(params[output]);

  struct Activations {
    float* qkvz;    // [B,T,row]
    float* qkv;     // [B,T,channels], after convolution and SiLU
    float* raw;     // [B,T,2 heads], a and b
    float* g;       // [B,T,heads], the logarithm of what a state keeps
    float* beta;    // [B,T,heads], the share of its error that a token writes
    float* y;       // [B,T,values], before the norm
    float* states;  // of the chunks' starts
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return {memory.take(n * row),
            memory.take(n * channels),
            memory.take(2 * n * heads),
            memory.take(n * heads),
            memory.take(n * heads),
            memory.take(n * values),
            memory.take(delta_rule_states(rule, batch))};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return bytes_of({n * values, n * values, n * row, n * channels, n * heads, n * heads, 2 * n * heads}) +
           std::max({norm_backward_bytes(n, values), conv_backward_bytes(convolution, batch), linear_bytes(in, n),
                     linear_bytes(out, n)});
  }
  /// Two for each product of matrices, where a chunk's triangles count by half.
  static constexpr double flops(std::int64_t) {
    return static_cast<double>(heads * (6 * rule.matrix() + 2 * rule.chunk * (rule.key_dim + rule.value_dim)));
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<GatedDeltaNet> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * values);
    linear(q, in, w.matrix(input), n, 1.f, x, width, 0.f, a.qkvz, row, temp);
    gemm(q, n, 2 * heads, width, 1.f, row_major(x, width), transposed(w.vector(gates), width), 0.f, a.raw, 2 * heads);
    causal_conv(q, convolution, batch, a.qkvz, w.vector(conv), nullptr, a.qkv, temp);
    delta_gates(q, n, heads, a.raw, w.vector(dt_bias), w.vector(a_log), most_beta, a.g, a.beta);
    delta_rule(q, rule, batch, a.qkv, a.g, a.beta, nullptr, a.y, a.states, nullptr);
    rms_norm_then_gate(q, norm_shape(n), a.y, a.qkvz + channels, row, w.vector(norm), gated);
    linear(q, out, w.matrix(output), n, scale, gated, values, 1.f, y, width, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<GatedDeltaNet> w, Weights<GatedDeltaNet, float> dw,
                       const Batch& batch, const float* x, const float* dy, float scale, float* dx, Activations& a,
                       Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * values);
    float* dgated = temp.take(n * values);
    float* dqkvz = temp.take(n * row);
    float* dqkv = temp.take(n * channels);
    float* dg = temp.take(n * heads);
    float* dbeta = temp.take(n * heads);
    float* draw = temp.take(2 * n * heads);
    rms_norm_then_gate(q, norm_shape(n), a.y, a.qkvz + channels, row, w.vector(norm), gated);
    linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, gated, values, 0.f, dgated, temp);
    rms_norm_then_gate_backward(q, norm_shape(n), a.y, a.qkvz + channels, row, w.vector(norm), dgated, dgated,
                                dqkvz + channels, dw.vector(norm), temp);
    delta_rule_backward(q, rule, batch, a.qkv, a.g, a.beta, a.states, dgated, {.dqkv = dqkv, .dg = dg, .dbeta = dbeta});
    delta_gates_backward(q, n, heads, a.raw, w.vector(dt_bias), w.vector(a_log), most_beta, a.g, a.beta, dg, dbeta,
                         draw, dw.vector(dt_bias), dw.vector(a_log));
    causal_conv_backward(q, convolution, batch, a.qkvz, w.vector(conv), nullptr, dqkv, dqkvz, dw.vector(conv), nullptr,
                         temp);
    linear_backward(q, in, w.matrix(input), dw.matrix(input), n, 1.f, dqkvz, row, x, width, 0.f, dx, temp);
    gemm(q, 2 * heads, width, n, 1.f, transposed(draw, 2 * heads), row_major(x, width), 1.f, dw.vector(gates), width);
    gemm(q, n, width, 2 * heads, 1.f, row_major(draw, 2 * heads), row_major(w.vector(gates), width), 1.f, dx, width);
  }

  // 4. Decode. A sequence carries the convolution's last inputs and the states (kernels/cached/delta_rule.hpp).
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = cached.state_bytes()}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({rows * row, rows * values}) +
           std::max({product_bytes(rows, width), product_bytes(rows, values), cached_delta_rule_bytes(cached, rows)});
  }
  static void decode(const Device auto& q, PackedWeights<GatedDeltaNet> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* qkvz = temp.take(pass.rows * row);
    float* mixed = temp.take(pass.rows * values);
    product(q, w.matrix(input), pass.rows, x, Then::store(qkvz, row), temp);
    cached_delta_rule(q, cached, pass, x, qkvz,
                      {.conv = w.vector(conv),
                       .gates = w.vector(gates),
                       .dt_bias = w.vector(dt_bias),
                       .a_log = w.vector(a_log),
                       .norm = w.vector(norm)},
                      mixed, temp);
    product(q, w.matrix(output), pass.rows, {mixed, values}, Then::add(y, width, scale), temp);
  }

 private:
  static constexpr float most_beta = sizes.negative_eigenvalues ? 2.f : 1.f;
  static constexpr CachedDeltaRuleShape cached{rule, width, sizes.conv, most_beta, sizes.eps};
  static constexpr ConvShape convolution = cached.conv();
  static_assert(cached_delta_rule_scratch_bytes(cached) <= Cpu::scratch_bytes);

  static constexpr NormShape norm_shape(std::int64_t rows) { return {rows, values, rule.value_dim, sizes.eps}; }
};

}  // namespace chimera::inline CHIMERA_ABI
