// Exact attention in tiles, memory linear in the length (FlashAttention-2: Dao, 2307.08691, algorithms 1 and 2).
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace chimera {

/// ALiBi's slopes (Press, Smith and Lewis, 2108.12409): geometric for a power of two; otherwise those of the power
/// below, then every other slope of the power above.
constexpr float alibi_slope(std::int64_t heads, std::int64_t head) {
  constexpr double ln2 = constexpr_log(2);
  std::int64_t power = 1;
  while (2 * power <= heads) power *= 2;
  const double exponent = head < power ? 8.0 * static_cast<double>(head + 1) / static_cast<double>(power)
                                       : 4.0 * static_cast<double>(2 * (head - power) + 1) / static_cast<double>(power);
  return static_cast<float>(constexpr_exp(-exponent * ln2));
}

/// Query head h reads key head h / (heads / kv_heads). A query at i sees keys i-window+1 .. i of its document.
/// One token's row in `qkv`: heads queries, kv_heads keys, kv_heads values, head_dim each; `rest` floats between rows.
struct AttentionShape {
  std::int64_t heads, kv_heads, head_dim, window;
  float scale;
  bool alibi = false;  // a score loses slope * (i - j)
  std::int64_t rest = 0;

  constexpr std::int64_t group() const { return heads / kv_heads; }
  constexpr std::int64_t row() const { return (heads + 2 * kv_heads) * head_dim + rest; }
  constexpr std::int64_t key(std::int64_t kv) const { return (heads + kv) * head_dim; }
  constexpr std::int64_t value(std::int64_t kv) const { return (heads + kv_heads + kv) * head_dim; }
  constexpr float slope(std::int64_t head) const { return alibi ? alibi_slope(heads, head) : 0.f; }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace attention_parts {

inline constexpr std::int64_t attention_tile = 64;

/// The keys of one tile that a query sees: [begin, end), relative to the tile.
struct Visible {
  std::int64_t begin, end;
};

/// Of a worker's scratch, forward and backward: the same for every shape.
inline constexpr std::int64_t attention_scratch_bytes =
    bytes_of({gemm_scratch_floats, attention_tile* attention_tile, attention_tile* attention_tile, attention_tile});

static_assert(attention_scratch_bytes <= Cpu::scratch_bytes);

}  // namespace attention_parts

/// qkv [B,T,row] -> out [B,T,heads*head_dim], lse [B,heads,T] (log of the sum of exponentials, for backward).
void attention(const Cpu& q, const AttentionShape& s, const Batch& batch, const float* qkv, float* out, float* lse);

/// Bytes of `temp`.
std::int64_t attention_backward_bytes(const AttentionShape& s, const Batch& batch);

/// dqkv [B,T,row] is written. out and lse are those of the forward pass.
void attention_backward(const Cpu& q, const AttentionShape& s, const Batch& batch, const float* qkv, const float* out,
                        const float* lse, const float* dout, float* dqkv, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace attention_parts {

/// The first key that query i of row b sees; never falls as i grows.
inline std::int64_t first_key(const AttentionShape& s, const Batch& batch, std::int64_t b, std::int64_t i) {
  const std::int64_t start = batch.document_start ? batch.document_start[b * batch.length + i] : 0;
  return std::max(start, i - s.window + 1);
}

inline Visible visible(const AttentionShape& s, const Batch& batch, std::int64_t b, std::int64_t i, std::int64_t key0,
                       std::int64_t keys) {
  return {std::clamp<std::int64_t>(first_key(s, batch, b, i) - key0, 0, keys),
          std::clamp<std::int64_t>(i + 1 - key0, 0, keys)};
}

/// One row of scores becomes exp(score - new maximum) where visible and 0 elsewhere; m and l are the running maximum
/// and sum; returns in *correction what older terms must be multiplied by. `distance` is i - j at column 0.
struct SoftmaxRow {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, Visible see, float slope, float distance, float* row, float* m,
                                 float* l, float* correction) {
    if (slope != 0.f)
      for (std::int64_t j = see.begin; j < see.end; ++j) row[j] -= slope * (distance - static_cast<float>(j));
    std::fill(row, row + see.begin, -std::numeric_limits<float>::infinity());
    std::fill(row + std::max(see.begin, see.end), row + n, -std::numeric_limits<float>::infinity());
    Vec<W> tops(*m);
    std::int64_t whole = 0;
    for (; whole + W <= n; whole += W) tops = max<W>(Vec<W>::load(row + whole), tops);
    float top = largest<W>(tops);
    for (std::int64_t j = whole; j < n; ++j) top = row[j] > top ? row[j] : top;
    if (is_minus_infinity(top)) {  // nothing seen so far
      std::fill(row, row + n, 0.f);
      *correction = 1.f;
      return;
    }
    *correction = exp<1>(Vec<1>(*m - top)).v[0];
    *m = top;
    Vec<W> total;
    lanes<W>(n, [&](std::int64_t j, auto io) CHIMERA_LAMBDA {
      io.store(row + j, exp<W>(io.load(row + j) - Vec<W>(top)));
      total += io.load(row + j);
    });
    *l = *l * *correction + sum<W>(total);
  }
};

/// Scores [rows, keys] become probabilities exp(score - lse), 0 where not visible.
struct ProbabilityRow {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, Visible see, float slope, float distance, float lse, float* row) {
    if (slope != 0.f)
      for (std::int64_t j = see.begin; j < see.end; ++j) row[j] -= slope * (distance - static_cast<float>(j));
    lanes<W>(
        n, [&](std::int64_t j, auto io) CHIMERA_LAMBDA { io.store(row + j, exp<W>(io.load(row + j) - Vec<W>(lse))); });
    std::fill(row, row + see.begin, 0.f);
    std::fill(row + std::max(see.begin, see.end), row + n, 0.f);
  }
};

/// dS = P (dP - delta) scale, into dP.
struct ScoreGradientRow {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float delta, float scale, const float* p, float* dp) {
    lanes<W>(n, [=](std::int64_t j, auto io) CHIMERA_LAMBDA {
      io.store(dp + j, io.load(p + j) * (io.load(dp + j) - Vec<W>(delta)) * Vec<W>(scale));
    });
  }
};

}  // namespace attention_parts

CHIMERA_FUNCTION void attention(const Cpu& q, const AttentionShape& s, const Batch& batch, const float* qkv, float* out,
                                float* lse) {
  using namespace attention_parts;
  constexpr std::int64_t tile = attention_tile;
  const std::int64_t T = batch.length, D = s.head_dim, tiles = (T + tile - 1) / tile, ldo = s.heads * D;
  parallel(q, batch.sequences * s.heads * tiles, [&](std::int64_t index, int worker) {
    const std::int64_t i0 = (tiles - 1 - index % tiles) * tile, h = index / tiles % s.heads,
                       b = index / tiles / s.heads;
    const std::int64_t rows = std::min(tile, T - i0), kv = h / s.group();
    const float slope = s.slope(h);
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* scores = memory.take(tile * tile);
    float* m = memory.take(tile);
    float* l = memory.take(tile);
    std::fill(m, m + rows, -std::numeric_limits<float>::infinity());
    std::fill(l, l + rows, 0.f);
    const float* base = qkv + b * T * s.row();
    float* o = out + (b * T + i0) * ldo + h * D;
    for (std::int64_t r = 0; r < rows; ++r) std::fill(o + r * ldo, o + r * ldo + D, 0.f);

    for (std::int64_t j0 = first_key(s, batch, b, i0) / tile * tile; j0 < i0 + rows; j0 += tile) {
      const std::int64_t keys = std::min(tile, T - j0);
      gemm_serial(q.isa(), scratch, rows, keys, D, s.scale, row_major(base + i0 * s.row() + h * D, s.row()),
                  transposed(base + j0 * s.row() + s.key(kv), s.row()), 0.f, scores, tile);
      for (std::int64_t r = 0; r < rows; ++r) {
        float correction = 1.f;
        dispatch<SoftmaxRow>(q.isa(), keys, visible(s, batch, b, i0 + r, j0, keys), slope,
                             static_cast<float>(i0 + r - j0), scores + r * tile, m + r, l + r, &correction);
        if (correction != 1.f) dispatch<Scaled>(q.isa(), D, correction, o + r * ldo, o + r * ldo);
      }
      gemm_serial(q.isa(), scratch, rows, D, keys, 1.f, row_major(scores, tile),
                  row_major(base + j0 * s.row() + s.value(kv), s.row()), 1.f, o, ldo);
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      dispatch<Scaled>(q.isa(), D, l[r] > 0.f ? 1.f / l[r] : 0.f, o + r * ldo, o + r * ldo);
      lse[(b * s.heads + h) * T + i0 + r] = m[r] + std::log(l[r]);
    }
  });
}

CHIMERA_FUNCTION std::int64_t attention_backward_bytes(const AttentionShape& s, const Batch& batch) {
  return bytes_of({batch.tokens() * s.heads});
}

CHIMERA_FUNCTION void attention_backward(const Cpu& q, const AttentionShape& s, const Batch& batch, const float* qkv,
                                         const float* out, const float* lse, const float* dout, float* dqkv,
                                         Bump temp) {
  using namespace attention_parts;
  constexpr std::int64_t tile = attention_tile;
  const std::int64_t T = batch.length, D = s.head_dim, ldo = s.heads * D, row = s.row();
  float* delta = temp.take(batch.tokens() * s.heads);  // [B,heads,T]: rowsum(dO O)
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t)
      for (std::int64_t h = 0; h < s.heads; ++h)
        delta[(t / T * s.heads + h) * T + t % T] = dot(q.isa(), D, out + t * ldo + h * D, dout + t * ldo + h * D);
  });
  parallel(q, batch.sequences * s.kv_heads, [&](std::int64_t index, int worker) {
    const std::int64_t kv = index % s.kv_heads, b = index / s.kv_heads;
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* p = memory.take(tile * tile);
    float* dp = memory.take(tile * tile);
    const float* base = qkv + b * T * row;
    float* dbase = dqkv + b * T * row;
    const float* dob = dout + b * T * ldo;
    for (std::int64_t t = 0; t < T; ++t) {
      float* d = dbase + t * row;
      std::fill(d + kv * s.group() * D, d + (kv + 1) * s.group() * D, 0.f);
      std::fill(d + s.key(kv), d + s.key(kv) + D, 0.f);
      std::fill(d + s.value(kv), d + s.value(kv) + D, 0.f);
    }
    for (std::int64_t j0 = 0; j0 < T; j0 += tile) {
      const std::int64_t keys = std::min(tile, T - j0);
      const ConstView k = row_major(base + j0 * row + s.key(kv), row);
      const ConstView v = row_major(base + j0 * row + s.value(kv), row);
      for (std::int64_t h = kv * s.group(); h < (kv + 1) * s.group(); ++h) {
        const float slope = s.slope(h);
        const float* lse_h = lse + (b * s.heads + h) * T;
        const float* delta_h = delta + (b * s.heads + h) * T;
        for (std::int64_t i0 = j0; i0 < T && first_key(s, batch, b, i0) < j0 + keys; i0 += tile) {
          const std::int64_t rows = std::min(tile, T - i0);
          const ConstView qh = row_major(base + i0 * row + h * D, row), doh = row_major(dob + i0 * ldo + h * D, ldo);
          gemm_serial(q.isa(), scratch, rows, keys, D, s.scale, qh, k.transpose(), 0.f, p, tile);
          gemm_serial(q.isa(), scratch, rows, keys, D, 1.f, doh, v.transpose(), 0.f, dp, tile);
          for (std::int64_t r = 0; r < rows; ++r) {
            dispatch<ProbabilityRow>(q.isa(), keys, visible(s, batch, b, i0 + r, j0, keys), slope,
                                     static_cast<float>(i0 + r - j0), lse_h[i0 + r], p + r * tile);
            dispatch<ScoreGradientRow>(q.isa(), keys, delta_h[i0 + r], s.scale, p + r * tile, dp + r * tile);
          }
          gemm_serial(q.isa(), scratch, keys, D, rows, 1.f, transposed(p, tile), doh, 1.f,
                      dbase + j0 * row + s.value(kv), row);
          gemm_serial(q.isa(), scratch, keys, D, rows, 1.f, transposed(dp, tile), qh, 1.f, dbase + j0 * row + s.key(kv),
                      row);
          gemm_serial(q.isa(), scratch, rows, D, keys, 1.f, row_major(dp, tile), k, 1.f, dbase + i0 * row + h * D, row);
        }
      }
    }
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
