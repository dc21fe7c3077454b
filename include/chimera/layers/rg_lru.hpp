// Griffin's recurrent block: W_out (gelu(W_gate x) * RG-LRU(conv(W_in x)))   (De et al., 2402.19427, section 2.3)
#pragma once

#include <chimera/kernels/cached/rg_lru.hpp>
#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/f32/rg_lru.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct RgLru : RgLruWeights {
  static constexpr RgLruConfig sizes = C.rg_lru.resolved(C);
  static constexpr std::int64_t width = C.width, inner = sizes.inner, heads = sizes.heads, taps = sizes.conv;
  static constexpr std::int64_t block = inner / heads;  // of the block-diagonal gates

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr auto in = linear_map<C>(params[input]), out = linear_map<C>(params[output]);

  struct Activations {  // [B,T,inner] each
    float* gate;        // before GELU
    float* u;           // before the convolution
    float* x;           // after it
    float* update;      // gates, before the sigmoid
    float* decay;
    float* h;
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    const std::int64_t n = batch.tokens() * inner;
    return {memory.take(n), memory.take(n), memory.take(n), memory.take(n), memory.take(n), memory.take(n)};
  }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens() * inner;
    return bytes_of({n, n, n, n, n, n, batch.tokens() * width}) +
           std::max({rg_lru_backward_bytes(inner, batch), conv_backward_bytes(convolution, batch),
                     linear_bytes(in, batch.tokens()), linear_bytes(out, batch.tokens())});
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<RgLru> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    linear(q, in, w.matrix(gate), n, 1.f, x, width, 0.f, a.gate, inner, temp);
    linear(q, in, w.matrix(input), n, 1.f, x, width, 0.f, a.u, inner, temp);
    if constexpr (C.rg_lru.bias) {
      add_bias(q, n, inner, 1.f, w.vector(gate_bias), a.gate);
      add_bias(q, n, inner, 1.f, w.vector(input_bias), a.u);
    }
    causal_conv(q, convolution, batch, a.u, w.vector(conv), w.vector(conv_bias), a.x, temp);
    gates(q, n, a.x, w.vector(update), w.vector(update_bias), a.update);
    gates(q, n, a.x, w.vector(decay), w.vector(decay_bias), a.decay);
    rg_lru(q, inner, batch, a.x, a.decay, a.update, w.vector(lambda), nullptr, a.h, nullptr);
    gelu_gate(q, n * inner, a.gate, a.h, mixed);
    linear(q, out, w.matrix(output), n, scale, mixed, inner, 1.f, y, width, temp);
    if constexpr (C.rg_lru.bias) add_bias(q, n, width, scale, w.vector(output_bias), y);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<RgLru> w, Weights<RgLru, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    float* dh = temp.take(n * inner);
    float* dgate = temp.take(n * inner);
    float* dconv = temp.take(n * inner);
    float* ddecay = temp.take(n * inner);
    float* dupdate = temp.take(n * inner);
    gelu_gate(q, n * inner, a.gate, a.h, mixed);
    linear_backward(q, out, w.matrix(output), dw.matrix(output), n, scale, dy, width, mixed, inner, 0.f, dh, temp);
    gelu_gate_backward(q, n * inner, a.gate, a.h, dh, dgate);
    rg_lru_backward(q, inner, batch, a.x, a.decay, a.update, w.vector(lambda), nullptr, a.h, dh,
                    {.dx = dconv, .dr = ddecay, .di = dupdate, .dlambda = dw.vector(lambda)}, temp);
    gates_backward(q, n, a.x, w.vector(update), dupdate, dconv, dw.vector(update), dw.vector(update_bias));
    gates_backward(q, n, a.x, w.vector(decay), ddecay, dconv, dw.vector(decay), dw.vector(decay_bias));
    float* du = dh;
    causal_conv_backward(q, convolution, batch, a.u, w.vector(conv), w.vector(conv_bias), dconv, du, dw.vector(conv),
                         dw.vector(conv_bias), temp);
    linear_backward(q, in, w.matrix(gate), dw.matrix(gate), n, 1.f, dgate, inner, x, width, 0.f, dx, temp);
    linear_backward(q, in, w.matrix(input), dw.matrix(input), n, 1.f, du, inner, x, width, 1.f, dx, temp);
    if constexpr (C.rg_lru.bias) {
      sum_rows(q, n, inner, inner, dgate, dw.vector(gate_bias));
      sum_rows(q, n, inner, inner, du, dw.vector(input_bias));
      float* scaled = temp.take(n * width);
      zero(q, n * width, scaled);
      add_scaled(q, n * width, scale, dy, scaled);
      sum_rows(q, n, width, width, scaled, dw.vector(output_bias));
    }
  }

  // 4. Decode. A sequence carries the convolution's last inputs and h (kernels/cached/rg_lru.hpp).
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {.whole = cached.state_bytes()}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({2 * rows * inner, rows * inner}) +
           std::max({product_bytes(rows, width), product_bytes(rows, inner), cached_rg_lru_bytes(cached, rows)});
  }
  static void decode(const Device auto& q, PackedWeights<RgLru> w, const Pass& pass, const ProductInput& x, float scale,
                     float* y, Bump temp) {
    float* gate_input = temp.take(2 * pass.rows * inner);
    float* mixed = temp.take(pass.rows * inner);
    const auto bias = [&](std::size_t param) { return C.rg_lru.bias ? w.vector(param) : nullptr; };
    product(q, PackedMatrix::joined(w.matrix(gate), w.matrix(input)), pass.rows, x, Then::store(gate_input, 2 * inner),
            temp);
    cached_rg_lru(q, cached, pass, gate_input,
                  {.gate_bias = bias(gate_bias),
                   .input_bias = bias(input_bias),
                   .conv = w.vector(conv),
                   .conv_bias = w.vector(conv_bias),
                   .update = w.vector(update),
                   .update_bias = w.vector(update_bias),
                   .decay = w.vector(decay),
                   .decay_bias = w.vector(decay_bias),
                   .lambda = w.vector(lambda)},
                  mixed, temp);
    product(q, w.matrix(output), pass.rows, {mixed, inner}, Then::add(y, width, scale, bias(output_bias)), temp);
  }

 private:
  static constexpr ConvShape convolution{inner, taps, inner, inner, false};
  static constexpr CachedRgLruShape cached{inner, heads, taps};

  /// Of each head a product of its own: y [n,inner].
  static void gates(const Device auto& q, std::int64_t n, const float* x, const float* w, const float* bias, float* y) {
    gemm_batched(q, heads, n, block, block, 1.f, row_major(x, inner), block, row_major(w, block), block * block, 0.f, y,
                 inner, block);
    add_bias(q, n, inner, 1.f, bias, y);
  }
  /// dx +=
  static void gates_backward(const Device auto& q, std::int64_t n, const float* x, const float* w, const float* dy,
                             float* dx, float* dw, float* dbias) {
    gemm_batched(q, heads, block, block, n, 1.f, transposed(x, inner), block, row_major(dy, inner), block, 1.f, dw,
                 block, block * block);
    gemm_batched(q, heads, n, block, block, 1.f, row_major(dy, inner), block, transposed(w, block), block * block, 1.f,
                 dx, inner, block);
    sum_rows(q, n, inner, inner, dy, dbias);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
