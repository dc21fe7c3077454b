// Mamba-2's scan as decoding does it: from the rows of the in-projection to y silu(z), on the states of sequences.
//
// A row is z, x, B, C, dt. A sequence carries the convolution's ring [taps, channels] (conv.hpp) and the states [heads,
// head_dim, state].
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/conv.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/ssd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// dt is limited to low ... high.
struct CachedSsdShape {
  SsdShape scan;
  std::int64_t taps;
  float low, high;

  constexpr std::int64_t channels() const { return scan.row(); }  // x, B, C: what the convolution sees
  constexpr std::int64_t row() const { return scan.inner() + channels() + scan.heads; }
  constexpr ConvShape conv() const { return {channels(), taps, row(), channels(), true}; }
  constexpr std::int64_t ring_bytes() const { return bytes_of({taps * channels()}); }
  constexpr std::int64_t state_bytes() const { return ring_bytes() + bytes_of({scan.heads * scan.matrix()}); }
};

struct CachedSsdWeights {
  const float* conv;       // [taps, channels]
  const float* conv_bias;  // [channels]
  const float* dt_bias;    // [heads], and the others
  const float* a_log;
  const float* d;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace cached_ssd_parts {

/// Of a worker's scratch: n heads of one token.
constexpr std::int64_t heads_bytes(const SsdShape& s, std::int64_t n) {
  return bytes_of({n * s.head_dim, s.state, s.state, n, n});
}

}  // namespace cached_ssd_parts

/// Bytes of `temp` for a pass of that many rows.
constexpr std::int64_t cached_ssd_bytes(const CachedSsdShape& s, std::int64_t rows) {
  return bytes_of({rows * s.channels(), rows * s.scan.heads, s.scan.heads,
                   ssd_products(s.scan, Batch{.sequences = 1, .length = rows})});
}

/// Bytes of a worker's scratch.
constexpr std::int64_t cached_ssd_scratch_bytes(const CachedSsdShape& s) {
  return std::max(cached_ssd_parts::heads_bytes(s.scan, s.scan.per_group()), ssd_scratch_bytes(s.scan));
}

/// zxbcdt [rows, row] -> gated [rows, inner].
void cached_ssd(const Cpu& q, const CachedSsdShape& s, const Pass& pass, const float* zxbcdt, const CachedSsdWeights& w,
                float* gated, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_ssd_parts {

inline float* ring_of(const Run& run) { return reinterpret_cast<float*>(run.state); }

inline float* states_of(const CachedSsdShape& s, const Run& run) {
  return reinterpret_cast<float*>(run.state + s.ring_bytes());
}

/// Heads h0 .. h0 + n - 1 of group g for one token. The task that owns the group's B and C remembers them.
inline void some_heads(Isa isa, const CachedSsdShape& s, const Run& run, std::int64_t g, std::int64_t h0,
                       std::int64_t n, bool owner, const float* zxbcdt, const CachedSsdWeights& w, Bump scratch,
                       float* gated) {
  const SsdShape& scan = s.scan;
  const ConvShape conv = s.conv();
  const float* z = zxbcdt + run.first * s.row();
  const float* xbc = z + scan.inner();
  float* x = scratch.take(n * scan.head_dim);
  float* b = scratch.take(scan.state);
  float* c = scratch.take(scan.state);
  float* dt = scratch.take(n);
  float* a = scratch.take(n);
  const auto convolve = [&](std::int64_t at, std::int64_t count, float* out, bool remember) {
    float* ring = ring_of(run) + at;
    conv_run(isa, conv, count, 1, run.position, xbc + at, ring, w.conv + at, w.conv_bias + at, out);
    if (remember) conv_remember(conv, count, 1, run.position, xbc + at, ring);
  };
  convolve(h0 * scan.head_dim, n * scan.head_dim, x, true);
  convolve(scan.b(g), scan.state, b, owner);
  convolve(scan.c(g), scan.state, c, owner);
  dispatch<StepDecay>(isa, n, xbc + s.channels() + h0, w.dt_bias + h0, s.low, s.high, w.a_log + h0, dt, a);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t h = h0 + i, at = h * scan.head_dim;
    dispatch<ssd_parts::SsdStep>(isa, scan.head_dim, scan.state, a[i], dt[i], x + i * scan.head_dim, b, c, w.d[h],
                                 z + at, states_of(s, run) + h * scan.matrix(), gated + run.first * scan.inner() + at);
  }
}

/// All runs of one token, in tasks of some heads of a group. Each task convolves B and C for itself.
inline void single_tokens(const Cpu& q, const CachedSsdShape& s, const Pass& pass, const float* zxbcdt,
                          const CachedSsdWeights& w, float* gated) {
  const std::int64_t per_group = s.scan.per_group(),
                     groups = static_cast<std::int64_t>(pass.runs.size()) * s.scan.groups;
  const std::int64_t wanted = std::clamp<std::int64_t>(ceil_div(2 * q.at_once(), groups), 1, per_group);
  const std::int64_t most = ceil_div(per_group, wanted), blocks = ceil_div(per_group, most);
  const std::int64_t bytes = static_cast<std::int64_t>(pass.runs.size()) * s.scan.heads * s.scan.matrix() * 8;
  parallel(q, groups * blocks, bytes, [&](std::int64_t index, int worker) {
    const std::int64_t block = index % blocks, g = index / blocks % s.scan.groups;
    const Run& run = pass.runs[static_cast<std::size_t>(index / blocks / s.scan.groups)];
    if (run.count > 1) return;
    some_heads(q.isa(), s, run, g, g * per_group + block * most, std::min(most, per_group - block * most), block == 0,
               zxbcdt, w, Bump{q.scratch(worker)}, gated);
  });
}

/// A run of several tokens, in chunks; both pointers are at its first row.
inline void piece(const Cpu& q, const CachedSsdShape& s, const Run& run, const float* zxbcdt, const CachedSsdWeights& w,
                  float* gated, Bump temp) {
  const SsdShape& scan = s.scan;
  const ConvShape conv = s.conv();
  const Batch batch{.sequences = 1, .length = run.count};
  const std::int64_t channels = s.channels(), inner = scan.inner();
  float* xbc = temp.take(run.count * channels);
  float* dt = temp.take(run.count * scan.heads);
  float* a = temp.take(scan.heads);
  float* products = temp.take(ssd_products(scan, batch));
  constexpr std::int64_t strip = 128;
  parallel(q, ceil_div(channels, strip), [&](std::int64_t i, int) {
    const std::int64_t at = i * strip, n = std::min(strip, channels - at);
    const float* in = zxbcdt + inner + at;
    float* ring = ring_of(run) + at;
    conv_run(q.isa(), conv, n, run.count, run.position, in, ring, w.conv + at, w.conv_bias + at, xbc + at);
    conv_remember(conv, n, run.count, run.position, in, ring);
  });
  ssd_step_size(q, run.count, scan.heads, zxbcdt + inner + channels, s.row(), w.dt_bias, s.low, s.high, dt);
  decay_rate(q, scan.heads, w.a_log, a);
  ssd(q, scan, batch, xbc, dt, a, w.d, states_of(s, run), gated, nullptr, products, states_of(s, run));
  parallel_rows(q, run.count, 8, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t)
      dispatch<SiluGate>(q.isa(), inner, zxbcdt + t * s.row(), gated + t * inner, gated + t * inner);
  });
}

}  // namespace cached_ssd_parts

CHIMERA_FUNCTION void cached_ssd(const Cpu& q, const CachedSsdShape& s, const Pass& pass, const float* zxbcdt,
                                 const CachedSsdWeights& w, float* gated, Bump temp) {
  using namespace cached_ssd_parts;
  single_tokens(q, s, pass, zxbcdt, w, gated);
  for (const Run& run : pass.runs)
    if (run.count > 1) piece(q, s, run, zxbcdt + run.first * s.row(), w, gated + run.first * s.scan.inner(), temp);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
