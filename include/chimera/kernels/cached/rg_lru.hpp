// Griffin's recurrence as decoding does it: from the rows of the two in-projections to gelu(gate) h, on the states of
// sequences. A sequence carries the convolution's ring [taps, channels] (conv.hpp) and h [channels].
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/conv.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/rg_lru.hpp>

#include <cstddef>
#include <cstdint>

namespace chimera {

struct CachedRgLruShape {
  std::int64_t channels, heads, taps;

  constexpr std::int64_t block() const { return channels / heads; }  // of the block-diagonal gates
  constexpr ConvShape conv() const { return {channels, taps, 2 * channels, channels, false}; }
  constexpr std::int64_t ring_bytes() const { return bytes_of({taps * channels}); }
  constexpr std::int64_t state_bytes() const { return ring_bytes() + bytes_of({channels}); }
};

/// [channels], or as said. The biases of the in-projections may be null.
struct CachedRgLruWeights {
  const float* gate_bias;
  const float* input_bias;
  const float* conv;  // [taps, channels]
  const float* conv_bias;
  const float* update;  // [heads, in, out]
  const float* update_bias;
  const float* decay;  // likewise
  const float* decay_bias;
  const float* lambda;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace cached_rg_lru_parts {

/// [rows, channels] each: after the convolution, and the gates before the sigmoid.
struct Inner {
  float* x;
  float* update;
  float* decay;
};

}  // namespace cached_rg_lru_parts

/// Bytes of `temp` for a pass of that many rows.
constexpr std::int64_t cached_rg_lru_bytes(const CachedRgLruShape& s, std::int64_t rows) {
  return bytes_of({rows * s.channels, rows * s.channels, rows * s.channels});
}

/// gate_input [rows, 2 channels], products without their biases, which are added here; mixed [rows, channels].
void cached_rg_lru(const Cpu& q, const CachedRgLruShape& s, const Pass& pass, float* gate_input,
                   const CachedRgLruWeights& w, float* mixed, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_rg_lru_parts {

inline void add_bias_row(Isa isa, std::int64_t n, const float* bias, float* x) {
  if (bias) dispatch<AddBias>(isa, 1, n, 1.f, bias, x);
}

/// The channels of one head for all tokens of a run.
inline void one_head(Isa isa, const CachedRgLruShape& s, const Run& run, std::int64_t head, float* gate_input,
                     const CachedRgLruWeights& w, const Inner& a, float* scratch, float* mixed) {
  const std::int64_t n = s.block(), channels = s.channels, c = head * n, at = run.first * channels + c;
  const ConvShape conv = s.conv();
  float* gate = gate_input + 2 * run.first * channels + c;
  float* u = gate + channels;
  float* ring = reinterpret_cast<float*>(run.state) + c;
  float* h = reinterpret_cast<float*>(run.state + s.ring_bytes()) + c;
  for (std::int64_t t = 0; t < run.count; ++t) {
    add_bias_row(isa, n, w.gate_bias ? w.gate_bias + c : nullptr, gate + 2 * t * channels);
    add_bias_row(isa, n, w.input_bias ? w.input_bias + c : nullptr, u + 2 * t * channels);
  }
  conv_run(isa, conv, n, run.count, run.position, u, ring, w.conv + c, w.conv_bias + c, a.x + at);
  conv_remember(conv, n, run.count, run.position, u, ring);
  const auto gates = [&](const float* matrices, float* out) {
    gemm_serial(isa, scratch, run.count, n, n, 1.f, row_major(a.x + at, channels),
                row_major(matrices + head * n * n, n), 0.f, out + at, channels);
  };
  gates(w.update, a.update);
  gates(w.decay, a.decay);
  for (std::int64_t t = 0; t < run.count; ++t) {
    const std::int64_t i = at + t * channels;
    add_bias_row(isa, n, w.update_bias + c, a.update + i);
    add_bias_row(isa, n, w.decay_bias + c, a.decay + i);
    dispatch<rg_lru_parts::RgLruStep>(isa, n, run.position + t == 0, a.x + i, a.decay + i, a.update + i, w.lambda + c,
                                      h, h);
    dispatch<GeluGate>(isa, n, gate + 2 * t * channels, h, mixed + i);
  }
}

}  // namespace cached_rg_lru_parts

CHIMERA_FUNCTION void cached_rg_lru(const Cpu& q, const CachedRgLruShape& s, const Pass& pass, float* gate_input,
                                    const CachedRgLruWeights& w, float* mixed, Bump temp) {
  const std::int64_t n = pass.rows * s.channels;
  float* x = temp.take(n);
  float* update = temp.take(n);
  float* decay = temp.take(n);
  const std::int64_t gates = pass.rows * s.channels * s.block() * 8;  // bytes
  parallel(q, static_cast<std::int64_t>(pass.runs.size()) * s.heads, gates, [&](std::int64_t index, int worker) {
    const Run& run = pass.runs[static_cast<std::size_t>(index / s.heads)];
    cached_rg_lru_parts::one_head(q.isa(), s, run, index % s.heads, gate_input, w, {x, update, decay},
                                  q.scratch(worker), mixed);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
