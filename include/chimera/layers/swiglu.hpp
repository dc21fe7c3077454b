// The gated feed-forward layer: W_down (silu(W_gate x) * W_up x)   (Shazeer, 2002.05202, equation 6). With sub_norm
// what W_down multiplies is normalised first (BitNet b1.58 2B4T, 2504.12285).
#pragma once

#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C, std::int64_t hidden = C.ffn.hidden>
struct SwiGlu : SwiGluWeights {
  static constexpr std::int64_t width = C.width;

  // 1. Weights.
  static constexpr auto params = table(C, hidden, "ffn_gate_up.weight", "ffn_down.weight");
  static constexpr auto in = linear_map<C>(params[gate_up]), out = linear_map<C>(params[down]);

  struct Activations {
    float* gate_up;  // [B,T,2 hidden]; backward overwrites it
  };
  static Activations bind(Bump& memory, const Batch& batch) { return {memory.take(batch.tokens() * 2 * hidden)}; }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens(), h = n * hidden;
    return (C.sub_norm ? bytes_of({h, h, h}) : bytes_of({h})) +
           std::max({C.sub_norm ? norm_backward_bytes(n, hidden) : 0, linear_bytes(in, n), linear_bytes(out, n)});
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<SwiGlu> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* h = temp.take(n * hidden);
    linear(q, in, w.matrix(gate_up), n, 1.f, x, width, 0.f, a.gate_up, 2 * hidden, temp);
    swiglu(q, n, hidden, a.gate_up, h);
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * hidden);
      rms_norm(q, norm(n), h, w.vector(sub_norm), normed);
      h = normed;
    }
    linear(q, out, w.matrix(down), n, scale, h, hidden, 1.f, y, width, temp);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<SwiGlu> w, Weights<SwiGlu, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* h = temp.take(n * hidden);
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * hidden);
      float* dnormed = temp.take(n * hidden);
      swiglu(q, n, hidden, a.gate_up, h);
      rms_norm(q, norm(n), h, w.vector(sub_norm), normed);
      linear_backward(q, out, w.matrix(down), dw.matrix(down), n, scale, dy, width, normed, hidden, 0.f, dnormed, temp);
      float* dh = normed;
      zero(q, n * hidden, dh);
      rms_norm_backward(q, norm(n), h, w.vector(sub_norm), dnormed, dh, dw.vector(sub_norm), temp);
      swiglu_backward(q, n, hidden, a.gate_up, dh);
    } else {
      linear_input_gradient(q, out, w.matrix(down), n, scale, dy, width, 0.f, h, hidden, temp);
      swiglu_backward(q, n, hidden, a.gate_up, h);
      linear_weight_gradient(q, out, w.matrix(down), dw.matrix(down), n, scale, dy, width, h, hidden, temp);
    }
    linear_backward(q, in, w.matrix(gate_up), dw.matrix(gate_up), n, 1.f, a.gate_up, 2 * hidden, x, width, 0.f, dx,
                    temp);
  }

  // 4. Decode: nothing is carried.
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({rows * hidden}) + std::max(product_bytes(rows, width), product_bytes(rows, hidden));
  }

  static void decode(const Device auto& q, PackedWeights<SwiGlu> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* h = temp.take(pass.rows * hidden);
    product(q, w.matrix(gate_up), pass.rows, x, Then::gate(h, hidden), temp);
    ProductInput last{h, hidden};
    if constexpr (C.sub_norm) last = {h, hidden, w.vector(sub_norm), hidden, C.norm_eps};
    product(q, w.matrix(down), pass.rows, last, Then::add(y, width, scale), temp);
  }

 private:
  static constexpr NormShape norm(std::int64_t rows) { return {rows, hidden, hidden, C.norm_eps}; }
};

}  // namespace chimera::inline CHIMERA_ABI
