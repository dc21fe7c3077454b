// Griffin's recurrent block: W_out (gelu(W_gate x) * RG-LRU(conv(W_in x)))   (De et al., 2402.19427, section 2.3)
#pragma once

#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/f32/rg_lru.hpp>
#include <chimera/layers/decode.hpp>
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
  static constexpr Linear in{inner, width}, out{width, inner};

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
    const std::int64_t n = batch.tokens() * inner;
    return floats_of({n, n, n, n, n, n, batch.tokens() * width,
                      std::max(rg_lru_backward_temp(inner, batch), conv_backward_temp(convolution, batch))});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<RgLru> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* mixed = temp.take(n * inner);
    linear(q, in, n, 1.f, x, width, w[gate], 0.f, a.gate, inner);
    linear(q, in, n, 1.f, x, width, w[input], 0.f, a.u, inner);
    if constexpr (C.rg_lru.bias) {
      add_bias(q, n, inner, w[gate_bias], a.gate);
      add_bias(q, n, inner, w[input_bias], a.u);
    }
    causal_conv(q, convolution, batch, a.u, w[conv], w[conv_bias], a.x, temp);
    for (std::int64_t h = 0; h < heads; ++h) {
      gates(q, n, a.x, w[update], h, a.update);
      gates(q, n, a.x, w[decay], h, a.decay);
    }
    add_bias(q, n, inner, w[update_bias], a.update);
    add_bias(q, n, inner, w[decay_bias], a.decay);
    rg_lru(q, inner, batch, a.x, a.decay, a.update, w[lambda], nullptr, a.h, nullptr);
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

  // 4. Decode. A sequence carries the convolution's ring [taps, inner] and h [inner].
  static constexpr std::int64_t ring = taps * inner;
  static constexpr std::int64_t state_bytes(KvFormat) { return floats_of({ring, inner}) * std::int64_t{sizeof(float)}; }
  static std::int64_t decode_floats(std::int64_t rows) {
    const std::int64_t n = rows * inner;
    return floats_of({n, n, n, n, n, n, std::max(product_floats(rows, width), product_floats(rows, inner))});
  }

  static void decode(const Cpu& q, PackedWeights<RgLru> w, const Pass& pass, const NormedRows& x, float scale, float* y,
                     Bump temp) {
    const std::int64_t n = pass.rows * inner;
    Activations a{.gate = temp.take(n),
                  .u = temp.take(n),
                  .x = temp.take(n),
                  .update = temp.take(n),
                  .decay = temp.take(n),
                  .h = temp.take(n)};
    paired_product(
        q, w.matrix(gate), w.matrix(input), pass.rows,
        [&](std::int64_t t, float* buffer) { return x.row(q.isa(), t, buffer); },
        [&](std::int64_t t, std::int64_t first, std::int64_t count, const float* gates, const float* inputs) {
          const std::int64_t at = t * inner + first;
          std::copy_n(gates, count, a.gate + at);
          std::copy_n(inputs, count, a.u + at);
          if constexpr (C.rg_lru.bias) {
            add_bias_row(q, count, w.vector(gate_bias) + first, a.gate + at);
            add_bias_row(q, count, w.vector(input_bias) + first, a.u + at);
          }
        },
        temp);
    parallel(q, static_cast<std::int64_t>(pass.runs.size()) * heads, [&](std::int64_t index, int worker) {
      recur(q, w, pass.runs[static_cast<std::size_t>(index / heads)], index % heads, a, worker);
    });
    product(
        q, w.matrix(output), pass.rows, [&](std::int64_t t, float*) { return a.h + t * inner; },
        [&](std::int64_t t, std::int64_t first, std::int64_t count, const float* values) {
          float* out = y + t * width + first;
          dispatch<AddScaled>(q.isa(), count, scale, values, out);
          if constexpr (C.rg_lru.bias) dispatch<AddScaled>(q.isa(), count, scale, w.vector(output_bias) + first, out);
        },
        temp);
  }

 private:
  static void add_bias_row(const Cpu& q, std::int64_t n, const float* bias, float* x) {
    dispatch<AddBias>(q.isa(), std::int64_t{1}, n, bias, x);
  }

  /// The channels of one head for all tokens of a run: from u to gelu(gate) h, which takes the place of h.
  static void recur(const Cpu& q, PackedWeights<RgLru> w, const Run& run, std::int64_t head, const Activations& a,
                    int worker) {
    const std::int64_t c = head * block, at = run.first * inner + c;
    float* past = reinterpret_cast<float*>(run.state) + c;
    float* h = reinterpret_cast<float*>(run.state) + floats_of({ring}) + c;
    conv_run<taps>(q.isa(), convolution, block, run.count, run.position, a.u + at, past, w.vector(conv) + c,
                   w.vector(conv_bias) + c, a.x + at);
    conv_remember(convolution, block, run.count, run.position, a.u + at, past);
    const auto gates_of = [&](const float* matrices, float* out) {
      gemm_serial(q.isa(), q.scratch(worker), run.count, block, block, 1.f, row_major(a.x + at, inner),
                  row_major(matrices + head * block * block, block), 0.f, out + at, inner);
    };
    gates_of(w.vector(update), a.update);
    gates_of(w.vector(decay), a.decay);
    for (std::int64_t t = 0; t < run.count; ++t) {
      const std::int64_t i = at + t * inner;
      add_bias_row(q, block, w.vector(update_bias) + c, a.update + i);
      add_bias_row(q, block, w.vector(decay_bias) + c, a.decay + i);
      dispatch<rg_lru_parts::RgLruStep>(q.isa(), block, run.position + t == 0, static_cast<const float*>(a.x + i),
                                        static_cast<const float*>(a.decay + i), static_cast<const float*>(a.update + i),
                                        w.vector(lambda) + c, static_cast<const float*>(h), h);
      dispatch<GeluGate>(q.isa(), block, static_cast<const float*>(a.gate + i), static_cast<const float*>(h), a.h + i);
    }
  }

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
