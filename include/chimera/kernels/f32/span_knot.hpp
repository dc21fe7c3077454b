// Attention over spans, of this library's own: the newest spans are seen token by token, those before them as one knot
// each, into which the span's keys and values are tied. A token's cost grows with T / S instead of T.
//
//   span j of a document: its tokens jS .. jS + S - 1;   a_t = softmax over the span of p . k_t / sqrt(D)
//   knot j, once its span is whole:   kappa_j = sum_t a_t k_t,   nu_j = sum_t a_t v_t
//   token t of span c, with l = max(0, (c - w) S), has one softmax over
//     q'_t . k'_i / sqrt(D)                                    for l <= i <= t; q' and k' are q and k turned (RoPE)
//     q_t . kappa_j / sqrt(D) + gain + distance[bucket(c - j)]  for j < c - w;   bucket(n) = min(15, floor(log2 n))
//   and gives the sum of v_i and nu_j so weighted: every token of its past counts once, by itself or in its knot.
//   With `top` a knot counts only if its score is not below the top-th largest.
//
// Knots of a row lie in slots: that whose last token is e in slot e / S. No two meet there, for they end S or more
// tokens apart, and a document's lie side by side; slots without a knot are 0.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/attention.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/rope.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

namespace chimera {

/// One token's row of the projection: q, k, v and the gate, [heads, head_dim] each; of `heads`: q and k as norms leave
/// them, then both turned.
struct SpanKnotShape {
  static constexpr std::int64_t buckets = 16;

  std::int64_t heads, head_dim, span, window;
  float scale;
  std::int64_t top = 0;  // 0: all knots count

  constexpr std::int64_t inner() const { return heads * head_dim; }
  constexpr std::int64_t row() const { return 4 * inner(); }
  constexpr std::int64_t values() const { return 2 * inner(); }
  constexpr std::int64_t turned() const { return 2 * inner(); }
  /// Of knots in a row, and the floats of one: kappa, nu.
  constexpr std::int64_t slot_count(std::int64_t length) const { return (length + span - 1) / span; }
  constexpr std::int64_t knot() const { return 2 * head_dim; }
  /// Queries and keys of all heads, where they lie turned.
  constexpr RopeShape turning() const { return {2 * heads, head_dim, head_dim, row(), RopeLayout::adjacent}; }
};

/// What a pass reads.
struct SpanKnotInput {
  const float* heads;     // [B,T,row]: q and k, and turned
  const float* rows;      // [B,T,row]: v
  const float* tie;       // [heads, head_dim]: p
  const float* gain;      // [heads]
  const float* distance;  // [heads, buckets]
};

/// Gradients: those of q and k in dheads =, likewise turned; that of v in drows =; those of weights +=.
struct SpanKnotGradients {
  float* dheads;
  float* drows;
  float* dtie;
  float* dgain;
  float* ddistance;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace span_knot_parts {

inline constexpr std::int64_t tile = attention_parts::attention_tile;

/// Of a worker's scratch, for the softmax of some queries.
constexpr std::int64_t pull_bytes(const SpanKnotShape& s) {
  return bytes_of({gemm_scratch_floats, tile * tile, tile, tile, tile * s.top});
}

/// Calls f(bucket, begin, end) for stretches of the columns begin .. end - 1, where column x holds the knot that is
/// `distance` - x spans away.
template <class F>
CHIMERA_INLINE void over_buckets(std::int64_t distance, std::int64_t begin, std::int64_t end, F f) {
  while (end > begin) {
    const auto nearest = static_cast<std::uint64_t>(distance - (end - 1));
    const std::int64_t bucket =
        std::min<std::int64_t>(static_cast<std::int64_t>(std::bit_width(nearest)), SpanKnotShape::buckets) - 1;
    const bool last = bucket == SpanKnotShape::buckets - 1;
    const std::int64_t from = last ? begin : std::max(begin, distance + 1 - (std::int64_t{2} << bucket));
    f(bucket, from, end);
    end = from;
  }
}

}  // namespace span_knot_parts

/// Writes q and k of `heads` turned, behind those that are not; `angles` [T, rope_row]: the table of positions.
void turn_heads(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const float* angles, float* heads);

/// drows: the gradients of q and k in dheads, and those of the turned ones, turned back, =. dheads is lost.
void turn_heads_backward(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const float* angles, float* dheads,
                         float* drows);

/// -> knots [B,heads,slots,knot], out [B,T,heads*head_dim], lse [B,heads,T] (log of the sum of exponentials), and where
/// not all knots count least [B,heads,T]: the smallest score that does.
void span_knot(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const SpanKnotInput& in, float* knots,
               float* out, float* lse, float* least);

/// Bytes of `temp`.
std::int64_t span_knot_backward_bytes(const SpanKnotShape& s, const Batch& batch);

/// knots, out, lse and least are those of the forward pass.
void span_knot_backward(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const SpanKnotInput& in,
                        const float* knots, const float* out, const float* lse, const float* least, const float* dout,
                        const SpanKnotGradients& d, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace span_knot_parts {

using attention_parts::Visible;

/// What a token sees: tokens from `local` on, and knots of slots first .. end - 1.
struct Sight {
  std::int64_t local, first, end;
  std::int64_t span;  // of the token, in its document

  /// Nothing of it falls as i grows.
  Sight(const SpanKnotShape& s, const Batch& batch, std::int64_t b, std::int64_t i) {
    const std::int64_t start = batch.document_start ? batch.document_start[b * batch.length + i] : 0;
    span = (i - start) / s.span;
    const std::int64_t tied = std::max<std::int64_t>(0, span - s.window);
    local = start + tied * s.span;
    first = ceil_div(start, s.span), end = first + tied;
  }
};

/// Columns of scores: n tokens from `first` on, or n knots.
struct Columns {
  bool knots;
  std::int64_t first, n;

  Visible seen(const Sight& sight, std::int64_t i) const {
    const auto column = [&](std::int64_t x) { return std::clamp<std::int64_t>(x - first, 0, n); };
    return knots ? Visible{column(sight.first), column(sight.end)} : Visible{column(sight.local), column(i + 1)};
  }
  /// Of knots: how many spans the first is away from that token.
  std::int64_t distance(const Sight& sight) const { return sight.span - (first - sight.first); }
};

/// Calls f(columns) for all that tokens i0 .. i0 + rows - 1 see.
template <class F>
void over_columns(const SpanKnotShape& s, const Batch& batch, std::int64_t b, std::int64_t i0, std::int64_t rows, F f) {
  const Sight oldest(s, batch, b, i0), newest(s, batch, b, i0 + rows - 1);
  for (std::int64_t j = oldest.local; j < i0 + rows; j += tile) f(Columns{false, j, std::min(tile, i0 + rows - j)});
  for (std::int64_t j = oldest.first; j < newest.end; j += tile) f(Columns{true, j, std::min(tile, newest.end - j)});
}

/// Of one head of a row, tokens or knots: queries lie row() apart, keys and values `stride`.
template <class T>
struct Side {
  T *q, *k, *v;
  std::int64_t stride;
};
template <class T>
struct Sides {
  Side<T> tokens, knots;

  /// All three of that row and head: the row's heads [T,row], rows [T,row], the head's knots [slots,knot].
  Sides(const SpanKnotShape& s, std::int64_t h, T* heads, T* rows, T* of_knots) {
    T *query = heads + h * s.head_dim, *key = query + s.inner();
    tokens = {query + s.turned(), key + s.turned(), rows + s.values() + h * s.head_dim, s.row()};
    knots = {query, of_knots, of_knots + s.head_dim, s.knot()};
  }
  const Side<T>& of(const Columns& c) const { return c.knots ? knots : tokens; }
};

/// Adds what knots' scores have beside their products; column 0 lies `distance` spans away.
inline void add_distances(const float* distances, float gain, std::int64_t distance, Visible see, float* scores) {
  over_buckets(distance, see.begin, see.end, [=](std::int64_t bucket, std::int64_t begin, std::int64_t end) {
    for (std::int64_t x = begin; x < end; ++x) scores[x] += gain + distances[bucket];
  });
}

/// Scores below `least` count for nothing.
inline void drop_below(float least, Visible see, float* scores) {
  for (std::int64_t x = see.begin; x < see.end; ++x)
    if (scores[x] < least) scores[x] = -std::numeric_limits<float>::infinity();
}

/// The running softmax of some queries [rows, head_dim]: m and l the largest scores and sums, o [rows, head_dim] what
/// is mixed.
struct Pull {
  Isa isa;
  std::int64_t rows, head_dim;
  float scale;
  float* scratch;
  float* scores;  // [rows, tile]
  float* m;
  float* l;
  std::int64_t top;
  float* largest;  // [rows, top]: of the scores that were ranked; heaps, the smallest first
  float* o;
  std::int64_t ldo;

  Pull(Isa level, const SpanKnotShape& s, std::int64_t queries, Bump& memory, float* out)
      : isa(level),
        rows(queries),
        head_dim(s.head_dim),
        scale(s.scale),
        scratch(memory.take(gemm_scratch_floats)),
        scores(memory.take(tile * tile)),
        m(memory.take(tile)),
        l(memory.take(tile)),
        top(s.top),
        largest(memory.take(tile * s.top)),
        o(out),
        ldo(s.inner()) {
    std::fill(m, m + rows, -std::numeric_limits<float>::infinity());
    std::fill(l, l + rows, 0.f);
    std::fill(largest, largest + rows * top, -std::numeric_limits<float>::infinity());
    for (std::int64_t r = 0; r < rows; ++r) std::fill(o + r * ldo, o + r * ldo + head_dim, 0.f);
  }

  /// Keys whose scores are ranked and no more; n and `seen` as below.
  template <class Seen>
  void rank(std::int64_t n, ConstView q, ConstView k, Seen seen) const {
    gemm_serial(isa, scratch, rows, n, head_dim, scale, q, k.transpose(), 0.f, scores, tile);
    for (std::int64_t r = 0; r < rows; ++r) {
      float *row = scores + r * tile, *heap = largest + r * top;
      const Visible see = seen(r, row);
      for (std::int64_t x = see.begin; x < see.end; ++x) {
        if (row[x] <= heap[0]) continue;
        std::pop_heap(heap, heap + top, std::greater<>{});
        heap[top - 1] = row[x];
        std::push_heap(heap, heap + top, std::greater<>{});
      }
    }
  }
  /// The top-th largest score of those; minus infinity if there are fewer.
  float least(std::int64_t r) const { return largest[r * top]; }

  /// n keys more, n <= tile. seen(r, scores of query r) gives which of them it sees, and adds what there is to add.
  template <class Seen>
  void see(std::int64_t n, ConstView q, ConstView k, ConstView v, Seen seen) const {
    gemm_serial(isa, scratch, rows, n, head_dim, scale, q, k.transpose(), 0.f, scores, tile);
    for (std::int64_t r = 0; r < rows; ++r) {
      float correction = 1.f;
      dispatch<attention_parts::SoftmaxRow>(isa, n, seen(r, scores + r * tile), 0.f, 0.f, scores + r * tile, m + r,
                                            l + r, &correction);
      if (correction != 1.f) dispatch<Scaled>(isa, head_dim, correction, o + r * ldo, o + r * ldo);
    }
    gemm_serial(isa, scratch, rows, head_dim, n, 1.f, row_major(scores, tile), v, 1.f, o, ldo);
  }
  /// o becomes the mean of what was seen.
  void finish() const {
    for (std::int64_t r = 0; r < rows; ++r) dispatch<Scaled>(isa, head_dim, 1.f / l[r], o + r * ldo, o + r * ldo);
  }
};

/// a_t of one head's span of n tokens, whose keys lie `stride` apart.
template <int W>
CHIMERA_INLINE void tie_weights(std::int64_t n, std::int64_t head_dim, std::int64_t stride, float scale, const float* p,
                                const float* k, float* a) {
  float top = -std::numeric_limits<float>::infinity();
  for (std::int64_t t = 0; t < n; ++t) {
    Vec<W> dots;
    lanes<W>(head_dim, [&](std::int64_t c, auto io)
                           CHIMERA_LAMBDA { dots = fma<W>(io.load(p + c), io.load(k + t * stride + c), dots); });
    a[t] = scale * sum<W>(dots);
    top = a[t] > top ? a[t] : top;
  }
  Vec<W> total;
  lanes<W>(n, [&](std::int64_t t, auto io) CHIMERA_LAMBDA {
    io.store(a + t, exp<W>(io.load(a + t) - Vec<W>(top)));
    total += io.load(a + t);  // lanes behind the span's end are 0
  });
  const Vec<W> inverse(1.f / sum<W>(total));
  lanes<W>(n, [=](std::int64_t t, auto io) CHIMERA_LAMBDA { io.store(a + t, io.load(a + t) * inverse); });
}

/// One head's span becomes a knot; a [n] is lost.
struct Tie {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, std::int64_t head_dim, std::int64_t stride, float scale,
                                 const float* p, const float* k, const float* v, float* a, float* knot) {
    tie_weights<W>(n, head_dim, stride, scale, p, k, a);
    lanes<W>(head_dim, [=](std::int64_t c, auto io) CHIMERA_LAMBDA {
      Vec<W> key, value;
      for (std::int64_t t = 0; t < n; ++t) {
        key = fma<W>(Vec<W>(a[t]), io.load(k + t * stride + c), key);
        value = fma<W>(Vec<W>(a[t]), io.load(v + t * stride + c), value);
      }
      io.store(knot + c, key);
      io.store(knot + head_dim + c, value);
    });
  }
};

/// With r_t = a_t (dkappa . (k_t - kappa) + dnu . (v_t - nu)) / sqrt(D):
///   dk_t += a_t dkappa + r_t p,   dv_t += a_t dnu,   dp += r_t k_t
struct TieBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, std::int64_t head_dim, std::int64_t stride, float scale,
                                 const float* p, const float* k, const float* v, const float* knot, const float* dknot,
                                 float* a, float* dk, float* dv, float* dp) {
    tie_weights<W>(n, head_dim, stride, scale, p, k, a);
    const float *dkey = dknot, *dvalue = dknot + head_dim;
    for (std::int64_t t = 0; t < n; ++t, k += stride, v += stride, dk += stride, dv += stride) {
      Vec<W> dots;
      lanes<W>(head_dim, [&](std::int64_t c, auto io) CHIMERA_LAMBDA {
        dots = fma<W>(io.load(dkey + c), io.load(k + c) - io.load(knot + c), dots);
        dots = fma<W>(io.load(dvalue + c), io.load(v + c) - io.load(knot + head_dim + c), dots);
      });
      const Vec<W> share(a[t]), r(a[t] * scale * sum<W>(dots));
      lanes<W>(head_dim, [=](std::int64_t c, auto io) CHIMERA_LAMBDA {
        io.store(dk + c, fma<W>(share, io.load(dkey + c), fma<W>(r, io.load(p + c), io.load(dk + c))));
        io.store(dv + c, fma<W>(share, io.load(dvalue + c), io.load(dv + c)));
        io.store(dp + c, fma<W>(r, io.load(k + c), io.load(dp + c)));
      });
    }
  }
};

/// The first token of the span whose knot lies in a slot, or -1.
inline std::int64_t span_of(const SpanKnotShape& s, const Batch& batch, std::int64_t b, std::int64_t slot) {
  const std::int64_t end = std::min((slot + 1) * s.span, batch.length);
  for (std::int64_t t = slot * s.span; t < end; ++t) {
    const std::int64_t start = batch.document_start ? batch.document_start[b * batch.length + t] : 0;
    if ((t + 1 - start) % s.span == 0) return t + 1 - s.span;
  }
  return -1;
}

}  // namespace span_knot_parts

CHIMERA_FUNCTION void turn_heads(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const float* angles,
                                 float* heads) {
  parallel_rows(q, batch.tokens(), 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t)
      std::copy_n(heads + t * s.row(), 2 * s.inner(), heads + t * s.row() + s.turned());
  });
  rope(q, s.turning(), batch, 1.f, angles, heads + s.turned());
}

CHIMERA_FUNCTION void turn_heads_backward(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const float* angles,
                                          float* dheads, float* drows) {
  rope(q, s.turning(), batch, -1.f, angles, dheads + s.turned());
  parallel_rows(q, batch.tokens(), 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t) {
      std::copy_n(dheads + t * s.row(), 2 * s.inner(), drows + t * s.row());
      dispatch<AddScaled>(q.isa(), 2 * s.inner(), 1.f, dheads + t * s.row() + s.turned(), drows + t * s.row());
    }
  });
}

CHIMERA_FUNCTION void span_knot(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const SpanKnotInput& in,
                                float* knots, float* out, float* lse, float* least) {
  using namespace span_knot_parts;
  const std::int64_t T = batch.length, D = s.head_dim, slot_count = s.slot_count(T), tiles = ceil_div(T, tile);
  parallel(q, batch.sequences * s.heads * slot_count, [&](std::int64_t index, int worker) {
    const std::int64_t slot = index % slot_count, h = index / slot_count % s.heads, b = index / slot_count / s.heads;
    const std::int64_t first = span_of(s, batch, b, slot), at = (b * T + first) * s.row() + h * D;
    float* knot = knots + index * s.knot();
    if (first < 0)
      std::fill(knot, knot + s.knot(), 0.f);
    else
      dispatch<Tie>(q.isa(), s.span, D, s.row(), s.scale, in.tie + h * D, in.heads + at + s.inner(),
                    in.rows + at + s.values(), q.scratch(worker), knot);
  });
  parallel(q, batch.sequences * s.heads * tiles, [&](std::int64_t index, int worker) {
    const std::int64_t i0 = (tiles - 1 - index % tiles) * tile, h = index / tiles % s.heads,
                       b = index / tiles / s.heads, rows = std::min(tile, T - i0);
    const Sides<const float> sides(s, h, in.heads + b * T * s.row(), in.rows + b * T * s.row(),
                                   knots + (b * s.heads + h) * slot_count * s.knot());
    Bump memory{q.scratch(worker)};
    const Pull pull(q.isa(), s, rows, memory, out + (b * T + i0) * s.inner() + h * D);
    const auto seen = [&](const Columns& c, std::int64_t r, float* scores) {
      const Sight sight(s, batch, b, i0 + r);
      const Visible see = c.seen(sight, i0 + r);
      if (c.knots) add_distances(in.distance + h * SpanKnotShape::buckets, in.gain[h], c.distance(sight), see, scores);
      return see;
    };
    const auto queries = [&](const Columns& c) { return row_major(sides.of(c).q + i0 * s.row(), s.row()); };
    const auto of = [&](const Columns& c, const float* keys_or_values) {
      return row_major(keys_or_values + c.first * sides.of(c).stride, sides.of(c).stride);
    };
    if (s.top > 0)
      over_columns(s, batch, b, i0, rows, [&](const Columns& c) {
        if (c.knots)
          pull.rank(c.n, queries(c), of(c, sides.knots.k),
                    [&](std::int64_t r, float* scores) { return seen(c, r, scores); });
      });
    over_columns(s, batch, b, i0, rows, [&](const Columns& c) {
      pull.see(c.n, queries(c), of(c, sides.of(c).k), of(c, sides.of(c).v), [&](std::int64_t r, float* scores) {
        const Visible see = seen(c, r, scores);
        if (c.knots && s.top > 0) drop_below(pull.least(r), see, scores);
        return see;
      });
    });
    pull.finish();
    for (std::int64_t r = 0, at = (b * s.heads + h) * T + i0; r < rows; ++r) {
      lse[at + r] = pull.m[r] + std::log(pull.l[r]);
      if (s.top > 0) least[at + r] = pull.least(r);
    }
  });
}

CHIMERA_FUNCTION std::int64_t span_knot_backward_bytes(const SpanKnotShape& s, const Batch& batch) {
  const std::int64_t B = batch.sequences;
  return bytes_of({batch.tokens() * s.heads, B * s.heads * s.slot_count(batch.length) * s.knot(), B * s.inner(),
                   B * s.heads, B * s.heads * SpanKnotShape::buckets});
}

CHIMERA_FUNCTION void span_knot_backward(const Cpu& q, const SpanKnotShape& s, const Batch& batch,
                                         const SpanKnotInput& in, const float* knots, const float* out,
                                         const float* lse, const float* least, const float* dout,
                                         const SpanKnotGradients& d, Bump temp) {
  using namespace span_knot_parts;
  constexpr std::int64_t buckets = SpanKnotShape::buckets;
  const std::int64_t B = batch.sequences, T = batch.length, D = s.head_dim, row = s.row(), ldo = s.inner();
  const std::int64_t slot_count = s.slot_count(T);
  float* delta = temp.take(batch.tokens() * s.heads);  // [B,heads,T]: rowsum(dO O)
  float* dknots = temp.take(B * s.heads * slot_count * s.knot());
  float* dtie = temp.take(B * s.inner());  // of each sequence alone, as the two below
  float* dgain = temp.take(B * s.heads);
  float* ddistance = temp.take(B * s.heads * buckets);
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t)
      for (std::int64_t h = 0; h < s.heads; ++h)
        delta[(t / T * s.heads + h) * T + t % T] = dot(q.isa(), D, out + t * ldo + h * D, dout + t * ldo + h * D);
  });
  parallel(q, B * s.heads, [&](std::int64_t index, int worker) {
    const std::int64_t h = index % s.heads, b = index / s.heads, from = b * T * row;
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* p = memory.take(tile * tile);
    float* dp = memory.take(tile * tile);
    const Sides<const float> sides(s, h, in.heads + from, in.rows + from, knots + index * slot_count * s.knot());
    const Sides<float> dsides(s, h, d.dheads + from, d.drows + from, dknots + index * slot_count * s.knot());
    for (std::int64_t t = 0; t < T; ++t) {
      for (float* x : {dsides.tokens.q, dsides.tokens.k, dsides.tokens.v, dsides.knots.q})
        std::fill(x + t * row, x + t * row + D, 0.f);
      float* dkey = dsides.knots.q + s.inner() + t * row;
      std::fill(dkey, dkey + D, 0.f);
    }
    std::fill(dsides.knots.k, dsides.knots.k + slot_count * s.knot(), 0.f);
    float* of_tie = dtie + index * D;
    float* of_distance = ddistance + index * buckets;
    std::fill(of_tie, of_tie + D, 0.f);
    std::fill(of_distance, of_distance + buckets, 0.f);

    for (std::int64_t i0 = 0; i0 < T; i0 += tile) {
      const std::int64_t rows = std::min(tile, T - i0);
      const ConstView doh = row_major(dout + (b * T + i0) * ldo + h * D, ldo);
      over_columns(s, batch, b, i0, rows, [&](const Columns& c) {
        const Side<const float>& side = sides.of(c);
        const Side<float>& grow = dsides.of(c);
        const std::int64_t at = c.first * side.stride;
        const ConstView queries = row_major(side.q + i0 * row, row), keys = row_major(side.k + at, side.stride);
        gemm_serial(q.isa(), scratch, rows, c.n, D, s.scale, queries, keys.transpose(), 0.f, p, tile);
        gemm_serial(q.isa(), scratch, rows, c.n, D, 1.f, doh, transposed(side.v + at, side.stride), 0.f, dp, tile);
        for (std::int64_t r = 0; r < rows; ++r) {
          const Sight sight(s, batch, b, i0 + r);
          const Visible see = c.seen(sight, i0 + r);
          float *pr = p + r * tile, *dpr = dp + r * tile;
          if (c.knots) add_distances(in.distance + h * buckets, in.gain[h], c.distance(sight), see, pr);
          if (c.knots && s.top > 0) drop_below(least[index * T + i0 + r], see, pr);
          dispatch<attention_parts::ProbabilityRow>(q.isa(), c.n, see, 0.f, 0.f, lse[index * T + i0 + r], pr);
          dispatch<attention_parts::ScoreGradientRow>(q.isa(), c.n, delta[index * T + i0 + r], 1.f, pr, dpr);
          if (c.knots)
            over_buckets(c.distance(sight), see.begin, see.end,
                         [=](std::int64_t bucket, std::int64_t begin, std::int64_t end) {
                           for (std::int64_t x = begin; x < end; ++x) of_distance[bucket] += dpr[x];
                         });
        }
        gemm_serial(q.isa(), scratch, c.n, D, rows, 1.f, transposed(p, tile), doh, 1.f, grow.v + at, side.stride);
        gemm_serial(q.isa(), scratch, c.n, D, rows, s.scale, transposed(dp, tile), queries, 1.f, grow.k + at,
                    side.stride);
        gemm_serial(q.isa(), scratch, rows, D, c.n, s.scale, row_major(dp, tile), keys, 1.f, grow.q + i0 * row, row);
      });
    }
    for (std::int64_t slot = 0; slot < slot_count; ++slot) {
      const std::int64_t first = span_of(s, batch, b, slot), at = first * row;
      if (first >= 0)
        dispatch<TieBackward>(q.isa(), s.span, D, row, s.scale, in.tie + h * D, sides.knots.q + s.inner() + at,
                              sides.tokens.v + at, sides.knots.k + slot * s.knot(), dsides.knots.k + slot * s.knot(), p,
                              dsides.knots.q + s.inner() + at, dsides.tokens.v + at, of_tie);
    }
    dgain[index] = 0;
    for (std::int64_t bucket = 0; bucket < buckets; ++bucket) dgain[index] += of_distance[bucket];
  });
  sum_rows(q, B, s.inner(), s.inner(), dtie, d.dtie);
  sum_rows(q, B, s.heads, s.heads, dgain, d.dgain);
  sum_rows(q, B, s.heads * buckets, s.heads * buckets, ddistance, d.ddistance);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
