// Mamba-2: in-projection, short convolution, state-space scan, gated norm, out-projection (Dao and Gu, 2405.21060, section 7).
#pragma once

#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/ssd.hpp>
#include <chimera/layers/decode.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cmath>
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
  static constexpr Linear in{row, width}, out{width, inner};

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
    const std::int64_t n = batch.tokens();
    return floats_of({n * inner, n * inner, n * row, n * channels, n * heads, heads,
                      std::max({norm_backward_temp(n, inner), ssd_backward_temp(scan, batch),
                                conv_backward_temp(convolution, batch)})});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<Mamba2> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* gated = temp.take(n * inner);
    linear(q, in, n, 1.f, x, width, w[input], 0.f, a.zxbcdt, row);
    causal_conv(q, convolution, batch, a.zxbcdt + inner, w[conv], w[conv_bias], a.xbc, temp);
    ssd_step_size(q, n, heads, a.zxbcdt + inner + channels, row, w[dt_bias], C.mamba2.dt_min, C.mamba2.dt_max, a.dt);
    for (std::int64_t h = 0; h < heads; ++h) a.a[h] = -std::exp(w[a_log][h]);
    ssd(q, scan, batch, a.xbc, a.dt, a.a, w[d], nullptr, a.y, a.states, a.products, nullptr);
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

  // 4. Decode. A sequence carries the convolution's ring [taps, channels] and the states [heads, head_dim, state].
  static constexpr std::int64_t ring = taps * channels;
  static constexpr std::int64_t state_bytes(KvFormat) {
    return floats_of({ring, heads * scan.matrix()}) * std::int64_t{sizeof(float)};
  }
  static std::int64_t decode_floats(std::int64_t rows) {
    const Batch piece{.sequences = 1, .length = rows};
    return floats_of({rows * row, rows * inner,
                      std::max({product_floats(rows, width), product_floats(rows, inner),
                                floats_of({rows * channels, rows * heads, heads, ssd_products(scan, piece)})})});
  }

  static void decode(const Cpu& q, PackedWeights<Mamba2> w, const Pass& pass, const NormedRows& x, float scale,
                     float* y, Bump temp) {
    float* zxbcdt = temp.take(pass.rows * row);
    float* gated = temp.take(pass.rows * inner);
    project(
        q, w.matrix(input), pass.rows, [&](std::int64_t t, float* buffer) { return x.row(q.isa(), t, buffer); }, zxbcdt,
        temp);
    single_tokens(q, w, pass, zxbcdt, gated);
    for (const Run& run : pass.runs)
      if (run.count > 1) piece(q, w, run, zxbcdt + run.first * row, gated + run.first * inner, temp);
    add_projection(
        q, w.matrix(output), pass.rows,
        [&](std::int64_t t, float* buffer) {
          dispatch<RmsNorm>(q.isa(), norm_shape(1), static_cast<const float*>(gated + t * inner),
                            static_cast<const float*>(nullptr), std::int64_t{0}, w.vector(norm), buffer);
          return buffer;
        },
        scale, y, temp);
  }

 private:
  static constexpr ConvShape convolution{channels, taps, row, channels, true};

  static float* ring_of(const Run& run) { return reinterpret_cast<float*>(run.state); }
  static float* states_of(const Run& run) { return ring_of(run) + floats_of({ring}); }

  /// From the in-projection to y silu(z) for all runs of one token, in tasks of some heads of a group. Each task
  /// convolves B and C for itself.
  static void single_tokens(const Cpu& q, PackedWeights<Mamba2> w, const Pass& pass, const float* zxbcdt,
                            float* gated) {
    const std::int64_t groups = static_cast<std::int64_t>(pass.runs.size()) * scan.groups;
    const std::int64_t wanted = std::clamp<std::int64_t>(ceil_div(2 * q.threads(), groups), 1, scan.per_group());
    const std::int64_t most = ceil_div(scan.per_group(), wanted), blocks = ceil_div(scan.per_group(), most);
    parallel(q, groups * blocks, [&](std::int64_t index, int worker) {
      const std::int64_t block = index % blocks, g = index / blocks % scan.groups;
      const Run& run = pass.runs[static_cast<std::size_t>(index / blocks / scan.groups)];
      if (run.count > 1) return;
      const std::int64_t h0 = g * scan.per_group() + block * most, n = std::min(most, scan.per_group() - block * most);
      const float* z = zxbcdt + run.first * row;
      const float* xbc = z + inner;
      Bump scratch{q.scratch(worker)};
      float* x = scratch.take(n * scan.head_dim);
      float* b = scratch.take(scan.state);
      float* c = scratch.take(scan.state);
      float* dt = scratch.take(n);
      float* a = scratch.take(n);
      const auto convolve = [&](std::int64_t at, std::int64_t count, float* out, bool owner) {
        conv_run<taps>(q.isa(), convolution, count, 1, run.position, xbc + at, ring_of(run) + at, w.vector(conv) + at,
                       w.vector(conv_bias) + at, out);
        if (owner) conv_remember(convolution, count, 1, run.position, xbc + at, ring_of(run) + at);
      };
      convolve(h0 * scan.head_dim, n * scan.head_dim, x, true);
      convolve(scan.b(g), scan.state, b, block == 0);
      convolve(scan.c(g), scan.state, c, block == 0);
      dispatch<StepDecay>(q.isa(), n, xbc + channels + h0, w.vector(dt_bias) + h0, C.mamba2.dt_min, C.mamba2.dt_max,
                          w.vector(a_log) + h0, dt, a);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t h = h0 + i, at = h * scan.head_dim;
        dispatch<ssd_parts::SsdStep>(q.isa(), scan.head_dim, scan.state, a[i], dt[i], x + i * scan.head_dim, b, c,
                                     w.vector(d)[h], z + at, states_of(run) + h * scan.matrix(),
                                     gated + run.first * inner + at);
      }
    });
  }

  /// The same for one run of several tokens, in chunks.
  static void piece(const Cpu& q, PackedWeights<Mamba2> w, const Run& run, const float* zxbcdt, float* gated,
                    Bump temp) {
    const Batch batch{.sequences = 1, .length = run.count};
    float* xbc = temp.take(run.count * channels);
    float* dt = temp.take(run.count * heads);
    float* a = temp.take(heads);
    float* products = temp.take(ssd_products(scan, batch));
    constexpr std::int64_t strip = 128;
    parallel(q, ceil_div(channels, strip), [&](std::int64_t i, int) {
      const std::int64_t at = i * strip, n = std::min(strip, channels - at);
      const float* in = zxbcdt + inner + at;
      conv_run<taps>(q.isa(), convolution, n, run.count, run.position, in, ring_of(run) + at, w.vector(conv) + at,
                     w.vector(conv_bias) + at, xbc + at);
      conv_remember(convolution, n, run.count, run.position, in, ring_of(run) + at);
    });
    ssd_step_size(q, run.count, heads, zxbcdt + inner + channels, row, w.vector(dt_bias), C.mamba2.dt_min,
                  C.mamba2.dt_max, dt);
    for (std::int64_t h = 0; h < heads; ++h) a[h] = -std::exp(w.vector(a_log)[h]);
    ssd(q, scan, batch, xbc, dt, a, w.vector(d), states_of(run), gated, nullptr, products, states_of(run));
    parallel_rows(q, run.count, 8, [&](std::int64_t first, std::int64_t n, int) {
      for (std::int64_t t = first; t < first + n; ++t)
        dispatch<SiluGate>(q.isa(), inner, zxbcdt + t * row, static_cast<const float*>(gated + t * inner),
                           gated + t * inner);
    });
  }

  static constexpr NormShape norm_shape(std::int64_t rows) {
    return {rows, inner, inner / C.mamba2.groups, C.norm_eps};
  }
};

}  // namespace chimera::inline CHIMERA_ABI
