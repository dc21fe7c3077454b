// Mamba-2: in-projection, short convolution, state-space scan, gated norm, out-projection (Dao and Gu, 2405.21060, section 7).
#pragma once

#include <chimera/kernels/conv.hpp>
#include <chimera/kernels/norm.hpp>
#include <chimera/kernels/ssd.hpp>
#include <chimera/layers/layer.hpp>

#include <cmath>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Mamba2 {
  static constexpr std::int64_t width = C.width, inner = C.ssm_inner(), heads = C.ssm_heads(), taps = C.mamba2.conv;
  static constexpr SsdShape scan{heads, C.mamba2.head_dim, C.mamba2.state, C.mamba2.groups, C.mamba2.chunk};
  static constexpr std::int64_t channels = scan.row();           // x, B, C: what the convolution sees
  static constexpr std::int64_t row = inner + channels + heads;  // z, x, B, C, dt: rows of the in-projection

  // 1. Weights, in arena order.
  enum Param : std::size_t { input, conv, conv_bias, dt_bias, a_log, d, norm, output };
  static constexpr std::array params{Tensor{"ssm_in.weight", row, width},
                                     Tensor{"ssm_conv1d.weight", channels, taps, Init::conv},
                                     Tensor{"ssm_conv1d.bias", 1, channels, Init::zero, false},
                                     Tensor{"ssm_dt.bias", 1, heads, Init::dt_bias, false},
                                     Tensor{"ssm_a_log", 1, heads, Init::a_log, false},
                                     Tensor{"ssm_d", 1, heads, Init::one, false},
                                     Tensor{"ssm_norm.weight", 1, inner, Init::one, false},
                                     Tensor{"ssm_out.weight", width, inner, Init::branch_output}};
  static constexpr Linear in{row, width}, out{width, inner};
  // Decoding carries the convolution's last inputs [taps-1, channels] and the states [heads, head_dim, state].
  static constexpr TwoPartState parts{(taps - 1) * channels, scan.matrix() * heads};
  static constexpr std::int64_t state_floats = parts.floats();

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
  static std::int64_t temp_floats(const Batch& batch) {
    const std::int64_t n = batch.tokens(), s = batch.sequences;
    return floats_of({n * inner, n * inner, n * row, n * channels, n * heads, heads, s * parts.first, s * parts.second,
                      std::max({norm_backward_temp(n, inner), ssd_backward_temp(scan, batch),
                                conv_backward_temp(convolution, batch)})});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<Mamba2> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, float* state, Bump temp) {
    const std::int64_t n = batch.tokens(), sequences = state ? batch.sequences : 0;
    float* gated = temp.take(n * inner);
    float* past = state ? temp.take(sequences * parts.first) : nullptr;
    float* carried = state ? temp.take(sequences * parts.second) : nullptr;
    parts.gather(sequences, state, past, carried);
    linear(q, in, n, 1.f, x, width, w[input], 0.f, a.zxbcdt, row);
    causal_conv(q, convolution, batch, a.zxbcdt + inner, past, w[conv], w[conv_bias], a.xbc, temp);
    step_size(q, w, n, a);
    ssd(q, scan, batch, a.xbc, a.dt, a.a, w[d], carried, a.y, a.states, a.products, carried);
    if (state) conv_remember(convolution, batch, a.zxbcdt + inner, past);
    parts.scatter(sequences, past, carried, state);
    gated_rms_norm(q, norm_shape(n), a.y, a.zxbcdt, row, w[norm], gated);
    linear(q, out, n, scale, gated, inner, w[output], 1.f, y, width);
  }

  // 3. Backward.
  static void backward(const Cpu& q, Weights<Mamba2> w, Weights<Mamba2, float> dw, const Batch& batch, const float* x,
                       const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * inner);
    float* dgated = temp.take(n * inner);
    float* dzxbcdt = temp.take(n * row);
    float* dxbc = temp.take(n * channels);
    float* ddt = temp.take(n * heads);
    float* da = temp.take(heads);
    gated_rms_norm(q, norm_shape(n), a.y, a.zxbcdt, row, w[norm], gated);
    linear_weight_gradient(q, out, n, scale, dy, width, gated, inner, dw[output]);
    linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dgated, inner);
    gated_rms_norm_backward(q, norm_shape(n), a.y, a.zxbcdt, row, w[norm], dgated, dgated, dzxbcdt, dw[norm], temp);
    std::fill(da, da + heads, 0.f);
    ssd_backward(q, scan, batch, a.xbc, a.dt, a.a, w[d], a.states, a.products, dgated,
                 {.dxbc = dxbc, .ddt = ddt, .dA = da, .dD = dw[d]}, temp);
    for (std::int64_t h = 0; h < heads; ++h) dw[a_log][h] += a.a[h] * da[h];
    ssd_step_size_backward(q, n, heads, a.zxbcdt + inner + channels, row, w[dt_bias], C.mamba2.dt_min, C.mamba2.dt_max,
                           ddt, dzxbcdt + inner + channels, dw[dt_bias]);
    causal_conv_backward(q, convolution, batch, a.zxbcdt + inner, w[conv], w[conv_bias], dxbc, dzxbcdt + inner,
                         dw[conv], dw[conv_bias], temp);
    linear_weight_gradient(q, in, n, 1.f, dzxbcdt, row, x, width, dw[input]);
    linear_input_gradient(q, in, n, 1.f, dzxbcdt, row, w[input], 0.f, dx, width);
  }

  // 4. Decode step.
  static void step(const Cpu& q, Weights<Mamba2> w, std::int64_t, const float* x, float scale, float* y, float* state,
                   Bump temp) {
    const Batch one{.sequences = 1, .length = 1};
    Activations a = bind(temp, one);
    float* gated = temp.take(inner);
    linear(q, in, 1, 1.f, x, width, w[input], 0.f, a.zxbcdt, row);
    causal_conv(q, convolution, one, a.zxbcdt + inner, state, w[conv], w[conv_bias], a.xbc, temp);
    conv_remember(convolution, one, a.zxbcdt + inner, state);
    step_size(q, w, 1, a);
    ssd_step(q, scan, a.xbc, a.dt, a.a, w[d], state + parts.second_at(), a.y);
    gated_rms_norm(q, norm_shape(1), a.y, a.zxbcdt, row, w[norm], gated);
    linear(q, out, 1, scale, gated, inner, w[output], 1.f, y, width);
  }

 private:
  static constexpr ConvShape convolution{channels, taps, row, channels, true};
  static constexpr NormShape norm_shape(std::int64_t rows) {
    return {rows, inner, inner / C.mamba2.groups, C.norm_eps};
  }

  static void step_size(const Cpu& q, Weights<Mamba2> w, std::int64_t rows, Activations& a) {
    ssd_step_size(q, rows, heads, a.zxbcdt + inner + channels, row, w[dt_bias], C.mamba2.dt_min, C.mamba2.dt_max, a.dt);
    for (std::int64_t h = 0; h < heads; ++h) a.a[h] = -std::exp(w[a_log][h]);
  }
};

}  // namespace chimera::inline CHIMERA_ABI
