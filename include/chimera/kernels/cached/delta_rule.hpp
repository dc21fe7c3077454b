// The gated delta rule as decoding does it: from the rows of the in-projection to norm(y) silu(z), on the states of
// sequences.
//
// A row is q, k, v, z. A sequence carries the convolution's ring [taps, channels] (conv.hpp) and the states
// [value_heads, key_dim, value_dim].
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/conv.hpp>
#include <chimera/kernels/f32/delta_rule.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/packed/product.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace chimera {

struct CachedDeltaRuleShape {
  DeltaRuleShape rule;
  std::int64_t width;  // of the layer's input, which gates read
  std::int64_t taps;
  float most_beta, eps;

  constexpr std::int64_t channels() const { return rule.row(); }  // q, k, v: what the convolution sees
  constexpr std::int64_t row() const { return channels() + rule.values(); }
  constexpr ConvShape conv() const { return {channels(), taps, row(), channels(), true}; }
  constexpr std::int64_t ring_bytes() const { return bytes_of({taps * channels()}); }
  constexpr std::int64_t state_bytes() const { return ring_bytes() + bytes_of({rule.value_heads * rule.matrix()}); }
};

struct CachedDeltaRuleWeights {
  const float* conv;     // [taps, channels]
  const float* gates;    // [2 value_heads, width], of a and then of b
  const float* dt_bias;  // [value_heads]
  const float* a_log;    // [value_heads]
  const float* norm;     // [value_dim]
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// Bytes of `temp` for a pass of that many rows.
constexpr std::int64_t cached_delta_rule_bytes(const CachedDeltaRuleShape& s, std::int64_t rows) {
  const std::int64_t heads = s.rule.value_heads;
  return bytes_of({rows * s.channels(), 2 * rows * heads, rows * heads, rows * heads});
}

/// Bytes of a worker's scratch.
constexpr std::int64_t cached_delta_rule_scratch_bytes(const CachedDeltaRuleShape& s) {
  return std::max(bytes_of({s.width, s.rule.key_dim, s.rule.key_dim, s.rule.value_dim}),
                  delta_rule_scratch_bytes(s.rule));
}

/// x: the layer's input [rows, width]; qkvz [rows, row], what the in-projection made of it -> mixed [rows, values].
void cached_delta_rule(const Cpu& q, const CachedDeltaRuleShape& s, const Pass& pass, const ProductInput& x,
                       const float* qkvz, const CachedDeltaRuleWeights& w, float* mixed, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_delta_rule_parts {

inline float* ring_of(const Run& run) { return reinterpret_cast<float*>(run.state); }

inline float* states_of(const CachedDeltaRuleShape& s, const Run& run) {
  return reinterpret_cast<float*>(run.state + s.ring_bytes());
}

/// Value heads first .. first + n - 1 for one token. Head h owns key head h, if there is one: it remembers its inputs.
inline void some_heads(Isa isa, const CachedDeltaRuleShape& s, const Run& run, std::int64_t first, std::int64_t n,
                       const ProductInput& x, const float* qkvz, const CachedDeltaRuleWeights& w, Bump scratch,
                       float* mixed) {
  const DeltaRuleShape& rule = s.rule;
  const ConvShape conv = s.conv();
  const std::int64_t value = rule.value_dim;
  const float* in = qkvz + run.first * s.row();
  float* buffer = scratch.take(s.width);
  float* query = scratch.take(rule.key_dim);
  float* key = scratch.take(rule.key_dim);
  float* v = scratch.take(value);
  const float* token = product_parts::input_row(isa, x, s.width, run.first, buffer);
  const auto convolve = [&](std::int64_t at, std::int64_t count, float* out, bool remember) {
    float* ring = ring_of(run) + at;
    conv_run(isa, conv, count, 1, run.position, in + at, ring, w.conv + at, nullptr, out);
    if (remember) conv_remember(conv, count, 1, run.position, in + at, ring);
  };
  for (std::int64_t h = first; h < first + n; ++h) {
    const bool owner = h < rule.key_heads;
    convolve(rule.q(h), rule.key_dim, query, owner);
    convolve(rule.k(h), rule.key_dim, key, owner);
    convolve(rule.v(h), value, v, true);
    const float a = dot(isa, s.width, w.gates + h * s.width, token),
                b = dot(isa, s.width, w.gates + (rule.value_heads + h) * s.width, token);
    float g, beta;
    dispatch<DeltaGates>(isa, 1, &a, &b, w.dt_bias + h, w.a_log + h, s.most_beta, &g, &beta);
    float* y = mixed + run.first * rule.values() + h * value;
    delta_rule_parts::step_head(isa, rule, query, key, v, g, beta, states_of(s, run) + h * rule.matrix(), y);
    dispatch<RmsNormThenGate>(isa, NormShape{1, value, value, s.eps}, y, in + s.channels() + h * value, 0, w.norm, y);
  }
}

/// All runs of one token, in tasks of some heads.
inline void single_tokens(const Cpu& q, const CachedDeltaRuleShape& s, const Pass& pass, const ProductInput& x,
                          const float* qkvz, const CachedDeltaRuleWeights& w, float* mixed) {
  const std::int64_t heads = s.rule.value_heads, runs = static_cast<std::int64_t>(pass.runs.size());
  const std::int64_t wanted = std::clamp<std::int64_t>(ceil_div(2 * q.at_once(), runs), 1, heads);
  const std::int64_t most = ceil_div(heads, wanted), blocks = ceil_div(heads, most);
  parallel(q, runs * blocks, runs * heads * s.rule.matrix() * 8, [&](std::int64_t index, int worker) {
    const Run& run = pass.runs[static_cast<std::size_t>(index / blocks)];
    if (run.count > 1) return;
    const std::int64_t first = index % blocks * most;
    some_heads(q.isa(), s, run, first, std::min(most, heads - first), x, qkvz, w, Bump{q.scratch(worker)}, mixed);
  });
}

/// A run of several tokens, in chunks; the pointers are at its first row, apart from x.
inline void piece(const Cpu& q, const CachedDeltaRuleShape& s, const Run& run, const ProductInput& x, const float* qkvz,
                  const CachedDeltaRuleWeights& w, float* mixed, Bump temp) {
  const DeltaRuleShape& rule = s.rule;
  const ConvShape conv = s.conv();
  const Batch batch{.sequences = 1, .length = run.count};
  const std::int64_t channels = s.channels(), heads = rule.value_heads;
  float* qkv = temp.take(run.count * channels);
  float* raw = temp.take(2 * run.count * heads);
  float* g = temp.take(run.count * heads);
  float* beta = temp.take(run.count * heads);
  constexpr std::int64_t strip = 128;
  parallel(q, ceil_div(channels, strip), [&](std::int64_t i, int) {
    const std::int64_t at = i * strip, n = std::min(strip, channels - at);
    float* ring = ring_of(run) + at;
    conv_run(q.isa(), conv, n, run.count, run.position, qkvz + at, ring, w.conv + at, nullptr, qkv + at);
    conv_remember(conv, n, run.count, run.position, qkvz + at, ring);
  });
  parallel_rows(q, run.count, 8, [&](std::int64_t first, std::int64_t n, int worker) {
    for (std::int64_t t = first; t < first + n; ++t) {
      const float* token = product_parts::input_row(q.isa(), x, s.width, run.first + t, q.scratch(worker));
      dispatch<gemm_parts::MatrixVector>(q.isa(), 2 * heads, s.width, 1.f, row_major(w.gates, s.width), token, 0.f,
                                         raw + 2 * t * heads, 1);
    }
  });
  delta_gates(q, run.count, heads, raw, w.dt_bias, w.a_log, s.most_beta, g, beta);
  delta_rule(q, rule, batch, qkv, g, beta, states_of(s, run), mixed, nullptr, states_of(s, run));
  rms_norm_then_gate(q, {run.count, rule.values(), rule.value_dim, s.eps}, mixed, qkvz + channels, s.row(), w.norm,
                     mixed);
}

}  // namespace cached_delta_rule_parts

CHIMERA_FUNCTION void cached_delta_rule(const Cpu& q, const CachedDeltaRuleShape& s, const Pass& pass,
                                        const ProductInput& x, const float* qkvz, const CachedDeltaRuleWeights& w,
                                        float* mixed, Bump temp) {
  using namespace cached_delta_rule_parts;
  single_tokens(q, s, pass, x, qkvz, w, mixed);
  for (const Run& run : pass.runs)
    if (run.count > 1) piece(q, s, run, x, qkvz + run.first * s.row(), w, mixed + run.first * s.rule.values(), temp);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
