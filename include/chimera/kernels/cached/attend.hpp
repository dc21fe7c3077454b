// Attention over a cache of keys and values: what decoding does.
//
// One token looks at its keys in chunks, whose borders are positions of the sequence: chunks may be shared out to
// threads, and are put together first to last. The tokens of a prompt's piece go in tiles of 64 against tiles of 64
// keys, those of the past from the cache.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/cached/kv_cache.hpp>
#include <chimera/kernels/f32/attention.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace chimera::inline CHIMERA_ABI {

/// The softmax of the scores of some keys, for some heads: the largest score, the sum of e^(score - largest), and the
/// sum of the values so weighted. Of no keys at all: minus infinity, 0, 0.
struct Softmax {
  float* largest;  // [heads]
  float* sum;      // [heads]
  float* mixed;    // [heads, width]

  static constexpr std::int64_t floats(std::int64_t heads, std::int64_t width) { return heads * (width + 2); }
  /// Of head `first` and those behind it, where `memory` holds those of all heads.
  static Softmax at(float* memory, std::int64_t heads, std::int64_t width, std::int64_t first) {
    return {memory + heads * width + first, memory + heads * (width + 1) + first, memory + first * width};
  }
};

namespace attend_parts {

inline constexpr std::int64_t tile = attention_parts::attention_tile;

}  // namespace attend_parts

/// Puts the keys that `part` saw to those that `all` saw.
void add_softmax(Isa isa, std::int64_t heads, std::int64_t width, const Softmax& part, const Softmax& all);

/// Keys of one chunk, at most, where that many are seen: enough to be worth a task, and few chunks.
constexpr std::int64_t chunk_keys(std::int64_t slot_count) {
  return std::clamp<std::int64_t>(round_up(ceil_div(slot_count, 64), attend_parts::tile), 256, 4096);
}

/// Bytes of scratch that attend_chunk takes.
constexpr std::int64_t attend_chunk_bytes(const AttentionShape& s, const KvShape& kv) {
  return bytes_of({s.group() * chunk_keys(kv.slot_count), attend_parts::tile * kv.row()});
}

/// The queries [group, row()] of one key head, of a token at `position`, against the cached keys first .. end - 1.
void attend_chunk(Isa isa, const AttentionShape& s, const KvCache& cache, std::int64_t kv_head, const float* queries,
                  std::int64_t position, std::int64_t first, std::int64_t end, Bump scratch, const Softmax& out);

/// Bytes of scratch that attend_tile takes.
constexpr std::int64_t attend_tile_bytes(const AttentionShape& s, const KvShape& kv) {
  using attend_parts::tile;
  return bytes_of(
      {gemm_scratch_floats, tile * tile, tile * kv.row(), tile * kv.row(), tile * s.group(), tile * s.group()});
}

/// Tokens first .. first + count - 1 (count <= 64) of a piece whose first token is at `position`, the heads of one key
/// head. `piece` holds the tokens' rows of queries, keys and values, turned; the cache holds the past only. Writes the
/// heads' channels of out [token of the piece, heads*head_dim].
void attend_tile(Isa isa, const AttentionShape& s, const KvCache& cache, std::int64_t kv_head, const float* piece,
                 std::int64_t position, std::int64_t first, std::int64_t count, Bump memory, float* out);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace attend_parts {

/// scores [heads, stride]: scale q.k of the queries [heads, width] with n keys [n, width].
struct Scores {
  template <int W, int heads, int keys>
  CHIMERA_INLINE static void some(std::int64_t width, float scale, const float* query, const float* key, float* scores,
                                  std::int64_t stride) {
    Vec<W> s[heads][keys];
    for (std::int64_t d = 0; d < width; d += W) {
      Vec<W> k[keys];
#pragma GCC unroll 4
      for (int j = 0; j < keys; ++j) k[j] = Vec<W>::load(key + j * width + d);
#pragma GCC unroll 2
      for (int h = 0; h < heads; ++h) {
        const Vec<W> x = Vec<W>::load(query + h * width + d);
#pragma GCC unroll 4
        for (int j = 0; j < keys; ++j) s[h][j] = fma<W>(x, k[j], s[h][j]);
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < heads; ++h)
#pragma GCC unroll 4
      for (int j = 0; j < keys; ++j) scores[h * stride + j] = scale * sum<W>(s[h][j]);
  }

  template <int W, int heads>
  CHIMERA_INLINE static void all(std::int64_t n, std::int64_t width, float scale, const float* query, const float* key,
                                 float* scores, std::int64_t stride) {
    std::int64_t j = 0;
    for (; j + 4 <= n; j += 4) some<W, heads, 4>(width, scale, query, key + j * width, scores + j, stride);
    for (; j < n; ++j) some<W, heads, 1>(width, scale, query, key + j * width, scores + j, stride);
  }

  template <int W>
  CHIMERA_INLINE static void run(std::int64_t heads, std::int64_t n, std::int64_t width, float scale,
                                 const float* query, const float* key, float* scores, std::int64_t stride) {
    std::int64_t h = 0;
    for (; h + 2 <= heads; h += 2) all<W, 2>(n, width, scale, query + h * width, key, scores + h * stride, stride);
    if (h < heads) all<W, 1>(n, width, scale, query + h * width, key, scores + h * stride, stride);
  }
};

/// n scores become e^(score - largest). `distance` is how far the first key lies back. Behind the scores there is room
/// up to a multiple of 16.
struct Exponentials {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float slope, float distance, float* scores, float* largest,
                                 float* total) {
    if (slope != 0.f)
      for (std::int64_t j = 0; j < n; ++j) scores[j] -= slope * (distance - static_cast<float>(j));
    const std::int64_t padded = (n + 15) / 16 * 16;
    std::fill(scores + n, scores + padded, -std::numeric_limits<float>::infinity());
    Vec<W> top(-std::numeric_limits<float>::infinity()), s;
    for (std::int64_t j = 0; j < padded; j += W) top = max<W>(Vec<W>::load(scores + j), top);
    *largest = chimera::largest<W>(top);
    for (std::int64_t j = 0; j < padded; j += W) {
      const Vec<W> e = exp<W>(Vec<W>::load(scores + j) - Vec<W>(*largest));
      e.store(scores + j);
      s += e;
    }
    *total = sum<W>(s);
  }
};

/// mixed [heads, width] += weights [heads, stride] values [n, width]
struct Mix {
  template <int W, int heads, int vectors>
  CHIMERA_INLINE static void some(std::int64_t n, std::int64_t width, const float* weights, std::int64_t stride,
                                  const float* values, float* mixed) {
    Vec<W> s[heads][vectors];
#pragma GCC unroll 2
    for (int h = 0; h < heads; ++h)
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) s[h][i] = Vec<W>::load(mixed + h * width + i * W);
    for (std::int64_t j = 0; j < n; ++j) {
      Vec<W> v[vectors];
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) v[i] = Vec<W>::load(values + j * width + i * W);
#pragma GCC unroll 2
      for (int h = 0; h < heads; ++h) {
        const Vec<W> p(weights[h * stride + j]);
#pragma GCC unroll 4
        for (int i = 0; i < vectors; ++i) s[h][i] = fma<W>(p, v[i], s[h][i]);
      }
    }
#pragma GCC unroll 2
    for (int h = 0; h < heads; ++h)
#pragma GCC unroll 4
      for (int i = 0; i < vectors; ++i) s[h][i].store(mixed + h * width + i * W);
  }

  template <int W, int heads>
  CHIMERA_INLINE static void all(std::int64_t n, std::int64_t width, const float* weights, std::int64_t stride,
                                 const float* values, float* mixed) {
    constexpr int vectors = KvShape::block / W < 4 ? KvShape::block / W : 4;
    for (std::int64_t d = 0; d < width; d += vectors * W)
      some<W, heads, vectors>(n, width, weights, stride, values + d, mixed + d);
  }

  template <int W>
  CHIMERA_INLINE static void run(std::int64_t heads, std::int64_t n, std::int64_t width, const float* weights,
                                 std::int64_t stride, const float* values, float* mixed) {
    std::int64_t h = 0;
    for (; h + 2 <= heads; h += 2) all<W, 2>(n, width, weights + h * stride, stride, values, mixed + h * width);
    if (h < heads) all<W, 1>(n, width, weights + h * stride, stride, values, mixed + h * width);
  }
};

struct AddSoftmax {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t heads, std::int64_t width, Softmax part, Softmax all) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const float top = part.largest[h] > all.largest[h] ? part.largest[h] : all.largest[h];
      const Vec<W> old = exp<W>(Vec<W>(all.largest[h] - top)), share = exp<W>(Vec<W>(part.largest[h] - top));
      all.largest[h] = top;
      all.sum[h] = all.sum[h] * old.v[0] + part.sum[h] * share.v[0];
      float* mixed = all.mixed + h * width;
      for (std::int64_t d = 0; d < width; d += W)
        fma<W>(old, Vec<W>::load(mixed + d), share * Vec<W>::load(part.mixed + h * width + d)).store(mixed + d);
    }
  }
};

}  // namespace attend_parts

CHIMERA_FUNCTION void add_softmax(Isa isa, std::int64_t heads, std::int64_t width, const Softmax& part,
                                  const Softmax& all) {
  dispatch<attend_parts::AddSoftmax>(isa, heads, width, part, all);
}

CHIMERA_FUNCTION void attend_chunk(Isa isa, const AttentionShape& s, const KvCache& cache, std::int64_t kv_head,
                                   const float* queries, std::int64_t position, std::int64_t first, std::int64_t end,
                                   Bump scratch, const Softmax& out) {
  using namespace attend_parts;
  const std::int64_t group = s.group(), width = cache.shape.row(), stride = round_up(end - first, 16);
  float* scores = scratch.take(group * stride);
  float* buffer = scratch.take(tile * width);
  const auto tiles = [&](auto f) {
    for (std::int64_t j = first, n = 0; j < end; j += n) f(j, n = cache.together(j, std::min(tile, end - j)));
  };
  tiles([&](std::int64_t j, std::int64_t n) {
    const float* keys = load_rows(isa, cache, cache.key(kv_head, j), n, buffer);
    dispatch<Scores>(isa, group, n, width, s.scale, queries, keys, scores + (j - first), stride);
  });
  for (std::int64_t g = 0; g < group; ++g)
    dispatch<attend_parts::Exponentials>(isa, end - first, s.slope(kv_head * group + g),
                                         static_cast<float>(position - first), scores + g * stride, out.largest + g,
                                         out.sum + g);
  std::fill(out.mixed, out.mixed + group * width, 0.f);
  tiles([&](std::int64_t j, std::int64_t n) {
    const float* values = load_rows(isa, cache, cache.value(kv_head, j), n, buffer);
    dispatch<Mix>(isa, group, n, width, scores + (j - first), stride, values, out.mixed);
  });
}

CHIMERA_FUNCTION void attend_tile(Isa isa, const AttentionShape& s, const KvCache& cache, std::int64_t kv_head,
                                  const float* piece, std::int64_t position, std::int64_t first, std::int64_t count,
                                  Bump memory, float* out) {
  using namespace attend_parts;
  const std::int64_t D = s.head_dim, ldo = s.heads * D, width = cache.shape.row(), group = s.group();
  float* scratch = memory.take(gemm_scratch_floats);
  float* scores = memory.take(tile * tile);
  float* key_rows = memory.take(tile * width);
  float* value_rows = memory.take(tile * width);
  float* m = memory.take(group * tile);
  float* l = memory.take(group * tile);
  std::fill(m, m + group * tile, -std::numeric_limits<float>::infinity());
  std::fill(l, l + group * tile, 0.f);
  const std::int64_t head0 = kv_head * group, begin = position + first, end = begin + count;
  for (std::int64_t r = first; r < first + count; ++r)
    std::fill(out + r * ldo + head0 * D, out + r * ldo + (head0 + group) * D, 0.f);

  for (std::int64_t j = std::max<std::int64_t>(0, begin - s.window + 1), n = 0; j < end; j += n) {
    ConstView keys, values;
    if (j < position) {
      n = cache.together(j, std::min(tile, position - j));
      keys = row_major(load_rows(isa, cache, cache.key(kv_head, j), n, key_rows), width);
      values = row_major(load_rows(isa, cache, cache.value(kv_head, j), n, value_rows), width);
    } else {
      n = std::min(tile, end - j);
      const float* rows = piece + (j - position) * s.row();
      keys = row_major(rows + s.key(kv_head), s.row());
      values = row_major(rows + s.value(kv_head), s.row());
    }
    for (std::int64_t g = 0; g < group; ++g) {
      const std::int64_t h = head0 + g;
      const float slope = s.slope(h);
      float* o = out + first * ldo + h * D;
      gemm_serial(isa, scratch, count, n, D, s.scale, row_major(piece + first * s.row() + h * D, s.row()),
                  keys.transpose(), 0.f, scores, tile);
      for (std::int64_t r = 0; r < count; ++r) {
        const std::int64_t i = begin + r;
        const attention_parts::Visible see{std::clamp<std::int64_t>(i - s.window + 1 - j, 0, n),
                                           std::clamp<std::int64_t>(i + 1 - j, 0, n)};
        float correction = 1.f;
        dispatch<attention_parts::SoftmaxRow>(isa, n, see, slope, static_cast<float>(i - j), scores + r * tile,
                                              m + g * tile + r, l + g * tile + r, &correction);
        if (correction != 1.f) dispatch<Scaled>(isa, D, correction, o + r * ldo, o + r * ldo);
      }
      gemm_serial(isa, scratch, count, D, n, 1.f, row_major(scores, tile), values, 1.f, o, ldo);
    }
  }
  for (std::int64_t g = 0; g < group; ++g)
    for (std::int64_t r = 0; r < count; ++r) {
      float* o = out + (first + r) * ldo + (head0 + g) * D;
      dispatch<Scaled>(isa, D, 1.f / l[g * tile + r], o, o);
    }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
