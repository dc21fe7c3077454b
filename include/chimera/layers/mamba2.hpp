// Mamba-2: in-projection, short convolution, state-space scan, gated norm, out-projection (Dao and Gu, 2405.21060,
// section 7).
#pragma once

#include <chimera/kernels/cached/ssd.hpp>
#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/ssd.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Mamba2 : Mamba2Weights {
  static constexpr std::int64_t width = C.width, inner = C.mamba2.inner(width), heads = C.mamba2.heads(width);
  static constexpr std::int64_t taps = C.mamba2.conv;
  static constexpr SsdShape scan{heads, C.mamba2.head_dim, C.mamba2.state, C.mamba2.groups, C.mamba2.chunk};
  static constexpr std::int64_t channels = scan.row();           // x, B, C: what the convolution sees
  static constexpr std::int64_t row = inner + channels + heads;  // z, x, B, C, dt: rows of the in-projection

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[input]), out = linear_map<C>(params[output]);

  struct Activations {
    float* zxbcdt;    // [B,T,row]
    float* xbc;       // [B,T,channels], after convolution and SiLU
    float* dt;        // [B,T,heads], after softplus
    float* y;         // [B,T,inner], before the gate
    float* states;    // of the chunks' starts
    float* products;  // C B^T of each chunk
    float* a;         // [heads], A = -exp(a_log)
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return {memory.take(n * row),
            memory.take(n * channels),
            memory.take(n * heads),
            memory.take(n * inner),
            memory.take(ssd_states(scan, batch)),
            memory.take(ssd_products(scan, batch)),
            memory.take(heads)};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens();
    return bytes_of({n * inner, n * inner, n * row, n * channels, n * heads, heads}) +
           std::max({norm_backward_bytes(n, inner), ssd_backward_bytes(scan, batch),
                     conv_backward_bytes(convolution, batch), linear_bytes(in, n), linear_bytes(out, n)});
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<Mamba2> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * inner);
    linear(q, in, w.matrix(input), n, 1.f, x, width, 0.f, a.zxbcdt, row, temp);
    causal_conv(q, convolution, batch, a.zxbcdt + inner, w.vector(conv), w.vector(conv_bias), a.xbc, temp);
    ssd_step_size(q, n, heads, a.zxbcdt + inner + channels, row, w.vector(dt_bias), C.mamba2.dt_min, C.mamba2.dt_max,
                  a.dt);
    decay_rate(q, heads, w.vector(a_log), a.a);
    ssd(q, scan, batch, a.xbc, a.dt, a.a, w.vector(d), nullptr, a.y, a.states, a.products, nullptr);
    gated_rms_norm(q, norm_shape(n), a.y, a.zxbcdt, row, w.vector(norm), gated);
    linear(q, out, w.matrix(output), n, scale, gated, inner, 1.f, y, width, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<Mamba2> w, Weights<Mamba2, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * inner);
    float* dgated = temp.take(n * inner);
    float* dzxbcdt = temp.take(n * row);
    float* dxbc = temp.take(n * channels);
    float* ddt = temp.take(n * heads);
    float* da = temp.take(heads);
    gated_rms_norm(q, norm_shape(n), a.y, a.zxbcdt, row, w.vector(norm), gated);
    linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, gated, inner, 0.f, dgated, temp);
    gated_rms_norm_backward(q, norm_shape(n), a.y, a.zxbcdt, row, w.vector(norm), dgated, dgated, dzxbcdt,
                            dw.vector(norm), temp);
    zero(q, heads, da);
    ssd_backward(q, scan, batch, a.xbc, a.dt, a.a, w.vector(d), a.states, a.products, dgated,
                 {.dxbc = dxbc, .ddt = ddt, .dA = da, .dD = dw.vector(d)}, temp);
    decay_rate_backward(q, heads, a.a, da, dw.vector(a_log));
    ssd_step_size_backward(q, n, heads, a.zxbcdt + inner + channels, row, w.vector(dt_bias), C.mamba2.dt_min,
                           C.mamba2.dt_max, ddt, dzxbcdt + inner + channels, dw.vector(dt_bias));
    causal_conv_backward(q, convolution, batch, a.zxbcdt + inner, w.vector(conv), w.vector(conv_bias), dxbc,
                         dzxbcdt + inner, dw.vector(conv), dw.vector(conv_bias), temp);
    linear_backward(q, in, w.matrix(input), dw.matrix(input), n, 1.f, dzxbcdt, row, x, width, 0.f, dx, temp);
  }

  // 4. Decode. A sequence carries the convolution's last inputs and the states (kernels/cached/ssd.hpp).
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = cached.state_bytes()}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({rows * row, rows * inner}) +
           std::max({product_bytes(rows, width), product_bytes(rows, inner), cached_ssd_bytes(cached, rows)});
  }
  static void decode(const Device auto& q, PackedWeights<Mamba2> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* zxbcdt = temp.take(pass.rows * row);
    float* gated = temp.take(pass.rows * inner);
    product(q, w.matrix(input), pass.rows, x, Then::store(zxbcdt, row), temp);
    cached_ssd(q, cached, pass, zxbcdt,
               {.conv = w.vector(conv),
                .conv_bias = w.vector(conv_bias),
                .dt_bias = w.vector(dt_bias),
                .a_log = w.vector(a_log),
                .d = w.vector(d)},
               gated, temp);
    product(q, w.matrix(output), pass.rows, {gated, inner, w.vector(norm), inner / C.mamba2.groups, C.norm_eps},
            Then::add(y, width, scale), temp);
  }

 private:
  static constexpr CachedSsdShape cached{scan, taps, C.mamba2.dt_min, C.mamba2.dt_max};
  static constexpr ConvShape convolution = cached.conv();
  static_assert(std::max(ssd_scratch_bytes(scan), cached_ssd_scratch_bytes(cached)) <= Cpu::scratch_bytes,
                "chimera: too many Mamba-2 heads share a group");

  static constexpr NormShape norm_shape(std::int64_t rows) {
    return {rows, inner, inner / C.mamba2.groups, C.norm_eps};
  }
};

}  // namespace chimera::inline CHIMERA_ABI
