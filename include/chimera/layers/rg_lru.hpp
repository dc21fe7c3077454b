// Griffin's recurrent block: W_out (gelu(W_gate x) * RG-LRU(conv(W_in x)))   (De et al., 2402.19427, section 2.3)
#pragma once

#include <chimera/kernels/conv.hpp>
#include <chimera/kernels/rg_lru.hpp>
#include <chimera/layers/layer.hpp>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct RgLru {
  static constexpr std::int64_t width = C.width, inner = C.rnn_inner(), heads = C.rnn_heads(), taps = C.rg_lru.conv;
  static constexpr std::int64_t block = inner / heads;  // of the block-diagonal gates
  static constexpr std::int64_t in_bias = C.rg_lru.bias ? inner : 0, out_bias = C.rg_lru.bias ? width : 0;

  // 1. Weights, in arena order. Gate matrices are [heads, in, out]: y = x W.
  enum Param : std::size_t {
    gate,
    gate_bias,
    input,
    input_bias,
    conv,
    conv_bias,
    update,
    update_bias,
    decay,
    decay_bias,
    lambda,
    output,
    output_bias
  };
  static constexpr std::array params{Tensor{"rg_lru.gate.weight", inner, width},
                                     Tensor{"rg_lru.gate.bias", 1, in_bias, Init::zero, false},
                                     Tensor{"rg_lru.in.weight", inner, width},
                                     Tensor{"rg_lru.in.bias", 1, in_bias, Init::zero, false},
                                     Tensor{"rg_lru.conv1d.weight", inner, taps, Init::conv},
                                     Tensor{"rg_lru.conv1d.bias", 1, inner, Init::zero, false},
                                     Tensor{"rg_lru.update.weight", heads* block, block, Init::fan_in},
                                     Tensor{"rg_lru.update.bias", 1, inner, Init::zero, false},
                                     Tensor{"rg_lru.decay.weight", heads* block, block, Init::fan_in},
                                     Tensor{"rg_lru.decay.bias", 1, inner, Init::zero, false},
                                     Tensor{"rg_lru.lambda", 1, inner, Init::rg_lambda, false},
                                     Tensor{"rg_lru.out.weight", width, inner, Init::branch_output},
                                     Tensor{"rg_lru.out.bias", 1, out_bias, Init::zero, false}};
  static constexpr Linear in{inner, width}, out{width, inner};
  // Decoding carries the convolution's last inputs [taps-1, inner] and h [inner].
  static constexpr TwoPartState parts{(taps - 1) * inner, inner};
  static constexpr std::int64_t state_floats = parts.floats();

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
  static std::int64_t temp_floats(const Batch& batch) {
    const std::int64_t n = batch.tokens() * inner, s = batch.sequences;
    return floats_of({n, n, n, n, n, n, batch.tokens() * width, s * parts.first, s * parts.second,
                      std::max(rg_lru_backward_temp(inner, batch), conv_backward_temp(convolution, batch))});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<RgLru> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, float* state, Bump temp) {
    const std::int64_t n = batch.tokens(), sequences = state ? batch.sequences : 0;
    float* mixed = temp.take(n * inner);
    float* past = state ? temp.take(sequences * parts.first) : nullptr;
    float* carried = state ? temp.take(sequences * parts.second) : nullptr;
    parts.gather(sequences, state, past, carried);
    linear(q, in, n, 1.f, x, width, w[gate], 0.f, a.gate, inner);
    linear(q, in, n, 1.f, x, width, w[input], 0.f, a.u, inner);
    if constexpr (C.rg_lru.bias) {
      add_bias(q, n, inner, w[gate_bias], a.gate);
      add_bias(q, n, inner, w[input_bias], a.u);
    }
    causal_conv(q, convolution, batch, a.u, past, w[conv], w[conv_bias], a.x, temp);
    for (std::int64_t h = 0; h < heads; ++h) {
      gates(q, n, a.x, w[update], h, a.update);
      gates(q, n, a.x, w[decay], h, a.decay);
    }
    add_bias(q, n, inner, w[update_bias], a.update);
    add_bias(q, n, inner, w[decay_bias], a.decay);
    rg_lru(q, inner, batch, a.x, a.decay, a.update, w[lambda], carried, a.h, carried);
    if (state) conv_remember(convolution, batch, a.u, past);
    parts.scatter(sequences, past, carried, state);
    gelu_gate(q, n * inner, a.gate, a.h, mixed);
    linear(q, out, n, scale, mixed, inner, w[output], 1.f, y, width);
    if constexpr (C.rg_lru.bias)
      for (std::int64_t t = 0; t < n; ++t) add_scaled(q, width, scale, w[output_bias], y + t * width);
  }

  // 3. Backward.
  static void backward(const Cpu& q, Weights<RgLru> w, Weights<RgLru, float> dw, const Batch& batch, const float* x,
                       const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    float* dh = temp.take(n * inner);
    float* dgate = temp.take(n * inner);
    float* dconv = temp.take(n * inner);
    float* ddecay = temp.take(n * inner);
    float* dupdate = temp.take(n * inner);
    gelu_gate(q, n * inner, a.gate, a.h, mixed);
    linear_weight_gradient(q, out, n, scale, dy, width, mixed, inner, dw[output]);
    linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dh, inner);
    gelu_gate_backward(q, n * inner, a.gate, a.h, dh, dgate);
    rg_lru_backward(q, inner, batch, a.x, a.decay, a.update, w[lambda], nullptr, a.h, dh,
                    {.dx = dconv, .dr = ddecay, .di = dupdate, .dlambda = dw[lambda]}, temp);
    for (std::int64_t h = 0; h < heads; ++h) {
      gates_backward(q, n, a.x, w[update], h, dupdate, dconv, dw[update]);
      gates_backward(q, n, a.x, w[decay], h, ddecay, dconv, dw[decay]);
    }
    sum_rows(q, n, inner, inner, dupdate, dw[update_bias]);
    sum_rows(q, n, inner, inner, ddecay, dw[decay_bias]);
    float* du = dh;
    causal_conv_backward(q, convolution, batch, a.u, w[conv], w[conv_bias], dconv, du, dw[conv], dw[conv_bias], temp);
    linear_weight_gradient(q, in, n, 1.f, dgate, inner, x, width, dw[gate]);
    linear_weight_gradient(q, in, n, 1.f, du, inner, x, width, dw[input]);
    linear_input_gradient(q, in, n, 1.f, dgate, inner, w[gate], 0.f, dx, width);
    linear_input_gradient(q, in, n, 1.f, du, inner, w[input], 1.f, dx, width);
    if constexpr (C.rg_lru.bias) {
      sum_rows(q, n, inner, inner, dgate, dw[gate_bias]);
      sum_rows(q, n, inner, inner, du, dw[input_bias]);
      float* scaled = temp.take(n * width);
      std::fill(scaled, scaled + n * width, 0.f);
      add_scaled(q, n * width, scale, dy, scaled);
      sum_rows(q, n, width, width, scaled, dw[output_bias]);
    }
  }

  // 4. Decode step.
  static void step(const Cpu& q, Weights<RgLru> w, std::int64_t position, const float* x, float scale, float* y,
                   float* state, Bump temp) {
    const Batch one{.sequences = 1, .length = 1, .position = position};
    Activations a = bind(temp, one);
    forward(q, w, one, x, scale, y, a, state, temp);
  }

 private:
  static constexpr ConvShape convolution{inner, taps, inner, inner, false};

  static void gates(const Cpu& q, std::int64_t n, const float* x, const float* w, std::int64_t h, float* y) {
    gemm(q, n, block, block, 1.f, row_major(x + h * block, inner), row_major(w + h * block * block, block), 0.f,
         y + h * block, inner);
  }
  static void gates_backward(const Cpu& q, std::int64_t n, const float* x, const float* w, std::int64_t h,
                             const float* dy, float* dx, float* dw) {
    gemm(q, block, block, n, 1.f, transposed(x + h * block, inner), row_major(dy + h * block, inner), 1.f,
         dw + h * block * block, block);
    gemm(q, n, block, block, 1.f, row_major(dy + h * block, inner), transposed(w + h * block * block, block), 1.f,
         dx + h * block, inner);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
