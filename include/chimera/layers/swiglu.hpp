// The plain feed-forward layer: W_down h with h = silu(W_gate x) * W_up x   (Shazeer, 2002.05202, equation 6), or as
// ffn.activation says. With sub_norm what W_down multiplies is normalised first (BitNet b1.58 2B4T, 2504.12285).
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
  static constexpr std::int64_t inner = C.ffn.gated() ? 2 * hidden : hidden;
  static constexpr bool bias = C.ffn.bias;

  // 1. Weights.
  static constexpr auto params = table(C, hidden, "ffn_gate_up.weight", "ffn_down.weight");
  static constexpr auto in = linear_map<C>(params[gate_up]), out = linear_map<C>(params[down]);

  struct Activations {
    float* gate_up;  // [B,T,inner]; backward overwrites it
  };
  static Activations bind(Bump& memory, const Batch& batch) { return {memory.take(batch.tokens() * inner)}; }
  static std::int64_t temp_bytes(const Batch& batch) {
    const std::int64_t n = batch.tokens(), h = n * hidden;
    return (C.sub_norm ? bytes_of({h, h, h}) : bytes_of({h})) +
           std::max({C.sub_norm ? norm_backward_bytes(n, hidden) : 0, linear_bytes(in, n), linear_bytes(out, n),
                     bytes_of({bias ? n * width : 0})});
  }

  // 2. Forward.
  static void forward(const Device auto& q, Weights<SwiGlu> w, const Batch& batch, const float* x, float scale,
                      float* y, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* h = temp.take(n * hidden);
    linear(q, in, w.matrix(gate_up), n, 1.f, x, width, 0.f, a.gate_up, inner, temp);
    if constexpr (bias) add_bias(q, n, inner, 1.f, w.vector(gate_up_bias), a.gate_up);
    activate(q, n, a.gate_up, h);
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * hidden);
      rms_norm(q, norm(n), h, w.vector(sub_norm), normed);
      h = normed;
    }
    linear(q, out, w.matrix(down), n, scale, h, hidden, 1.f, y, width, temp);
    if constexpr (bias) add_bias(q, n, width, scale, w.vector(down_bias), y);
  }

  // 3. Backward.
  static void backward(const Device auto& q, Weights<SwiGlu> w, Weights<SwiGlu, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* h = temp.take(n * hidden);
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * hidden);
      float* dnormed = temp.take(n * hidden);
      activate(q, n, a.gate_up, h);
      rms_norm(q, norm(n), h, w.vector(sub_norm), normed);
      linear_backward(q, out, w.matrix(down), dw.matrix(down), n, scale, dy, width, normed, hidden, 0.f, dnormed, temp);
      float* dh = normed;
      zero(q, n * hidden, dh);
      rms_norm_backward(q, norm(n), h, w.vector(sub_norm), dnormed, dh, dw.vector(sub_norm), temp);
      activate_backward(q, n, a.gate_up, dh);
    } else {
      linear_input_gradient(q, out, w.matrix(down), n, scale, dy, width, 0.f, h, hidden, temp);
      activate_backward(q, n, a.gate_up, h);
      linear_weight_gradient(q, out, w.matrix(down), dw.matrix(down), n, scale, dy, width, h, hidden, temp);
    }
    if constexpr (bias) {
      sum_rows(q, n, inner, inner, a.gate_up, dw.vector(gate_up_bias));
      float* scaled = temp.take(n * width);
      zero(q, n * width, scaled);
      add_scaled(q, n * width, scale, dy, scaled);
      sum_rows(q, n, width, width, scaled, dw.vector(down_bias));
    }
    linear_backward(q, in, w.matrix(gate_up), dw.matrix(gate_up), n, 1.f, a.gate_up, inner, x, width, 0.f, dx, temp);
  }

  // 4. Decode: nothing is carried.
  static constexpr StateBytes state(KvFormat, std::int64_t) { return {}; }
  static std::int64_t decode_bytes(std::int64_t rows) {
    return bytes_of({rows * hidden, gates_in_product ? 0 : rows * inner}) +
           std::max(product_bytes(rows, width), product_bytes(rows, hidden));
  }

  static void decode(const Device auto& q, PackedWeights<SwiGlu> w, const Pass& pass, const ProductInput& x,
                     float scale, float* y, Bump temp) {
    float* h = temp.take(pass.rows * hidden);
    if constexpr (gates_in_product) {
      product(q, w.matrix(gate_up), pass.rows, x, Then::gate(h, hidden), temp);
    } else {
      float* gates = temp.take(pass.rows * inner);
      product(q, w.matrix(gate_up), pass.rows, x, Then::store(gates, inner, bias ? w.vector(gate_up_bias) : nullptr),
              temp);
      activate(q, pass.rows, gates, h);
    }
    ProductInput last{h, hidden};
    if constexpr (C.sub_norm) last = {h, hidden, w.vector(sub_norm), hidden, C.norm_eps};
    product(q, w.matrix(down), pass.rows, last, Then::add(y, width, scale, bias ? w.vector(down_bias) : nullptr), temp);
  }

 private:
  static constexpr Activation activation = C.ffn.activation;
  static constexpr bool gates_in_product = activation == Activation::swiglu && !bias;
  static constexpr NormShape norm(std::int64_t rows) { return {rows, hidden, hidden, C.norm_eps}; }

  static void activate(const Device auto& q, std::int64_t n, const float* gate_up, float* h) {
    if constexpr (activation == Activation::swiglu) swiglu(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::geglu) geglu(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::relu2_gate) relu2_gate(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::relu2) relu2(q, n, hidden, gate_up, h);
  }
  /// gate_up becomes its gradient; h holds dL/dh and becomes h.
  static void activate_backward(const Device auto& q, std::int64_t n, float* gate_up, float* h) {
    if constexpr (activation == Activation::swiglu) swiglu_backward(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::geglu) geglu_backward(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::relu2_gate) relu2_gate_backward(q, n, hidden, gate_up, h);
    if constexpr (activation == Activation::relu2) relu2_backward(q, n, hidden, gate_up, h);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
