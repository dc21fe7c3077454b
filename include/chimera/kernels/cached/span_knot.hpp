// Span knots as decoding keeps them: the keys and values of the newest spans in a ring, one knot for each span before,
// in another, and the sums of the span that is not whole yet. A span's tokens are seen together, as many as a pass has.
//
// A sequence carries the sums of the heads [heads, sums]: of the span's tokens so far, e_t = e^(p . k_t / sqrt(D) - m),
//   sum e_t k_t,   sum e_t v_t,   m, the largest exponent,   sum e_t
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/kv_cache.hpp>
#include <chimera/kernels/f32/span_knot.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace chimera {

/// A token sees at most `knots` knots.
struct CachedSpanKnotShape {
  SpanKnotShape cell;
  std::int64_t knots;
  RopeTurns turns;

  constexpr std::int64_t sums() const {
    return static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(cell.knot() + 2)));
  }
  constexpr KvShape tokens() const { return {cell.heads, cell.head_dim, (cell.window + 1) * cell.span}; }
  /// Where span j's knot has position j; the newest are not seen yet. Those that leave are written over: the sequence
  /// has lost position / span - slot_count of them, if that is above 0.
  constexpr KvShape tied(std::int64_t context) const {
    return {cell.heads, cell.head_dim, std::min(knots + cell.window, context / cell.span + 1)};
  }
  constexpr StateBytes bytes(KvFormat kv, std::int64_t context) const {
    return {.whole = bytes_of({cell.heads * sums()}), .ring = tokens().bytes(kv) + tied(context).bytes(kv)};
  }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// Bytes of a worker's scratch.
constexpr std::int64_t cached_span_knot_scratch_bytes(const CachedSpanKnotShape& s) {
  const std::int64_t rows = span_knot_parts::tile * s.tokens().row();
  return span_knot_parts::pull_bytes(s.cell) + bytes_of({rows, rows});
}

/// heads [rows, row]: q and k, which are written turned, too; values: v of rows [rows, row] -> out [rows,
/// heads*head_dim].
void cached_span_knot(const Cpu& q, const CachedSpanKnotShape& s, const Pass& pass, float* heads, const float* rows,
                      const float* tie, const float* gain, const float* distance, float* out);

/// Copies what a sequence of that many tokens keeps in rings.
void copy_span_knots(const CachedSpanKnotShape& s, KvFormat kv, std::int64_t context, std::int64_t tokens,
                     const std::byte* from, std::byte* to);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_span_knot_parts {

using namespace span_knot_parts;

/// One token more: its key and its value, [n] each; sums as above.
struct AddToSpan {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float scale, const float* p, const float* k, const float* v,
                                 float* sums) {
    float *m = sums + 2 * n, *total = m + 1;
    Vec<W> dots;
    lanes<W>(n, [&](std::int64_t c, auto io) CHIMERA_LAMBDA { dots = fma<W>(io.load(p + c), io.load(k + c), dots); });
    const float score = scale * sum<W>(dots), top = score > *m ? score : *m;
    const Vec<W> old = exp<W>(Vec<W>(*m - top)), share = exp<W>(Vec<W>(score - top));
    *m = top;
    *total = *total * old.v[0] + share.v[0];
    lanes<W>(n, [=](std::int64_t c, auto io) CHIMERA_LAMBDA {
      io.store(sums + c, fma<W>(old, io.load(sums + c), share * io.load(k + c)));
      io.store(sums + n + c, fma<W>(old, io.load(sums + n + c), share * io.load(v + c)));
    });
  }
};

/// A pass of one layer: tokens first .. first + n - 1 of a run lie in one span.
struct CachedSpan {
  const CachedSpanKnotShape& s;
  const Pass& pass;
  const float *heads, *rows, *tie, *gain, *distance;
  float* out;

  void see(Isa isa, const Run& run, std::int64_t h, std::int64_t first, std::int64_t n, Bump memory) const {
    const SpanKnotShape& cell = s.cell;
    const std::int64_t D = cell.head_dim, row = cell.row(), position = run.position + first;
    const std::int64_t span = position / cell.span, tied = std::max<std::int64_t>(0, span - cell.window);
    const KvCache tokens{s.tokens(), pass.kv, run.ring};
    const KvCache knots{s.tied(run.context), pass.kv, run.ring + tokens.shape.bytes(pass.kv)};
    float* sums = reinterpret_cast<float*>(run.state) + h * s.sums();
    const Sides<const float> sides(cell, h, heads + (run.first + first) * row, rows + (run.first + first) * row,
                                   nullptr);
    if (position % cell.span == 0) {
      std::fill(sums, sums + cell.knot(), 0.f);
      sums[cell.knot()] = -std::numeric_limits<float>::infinity(), sums[cell.knot() + 1] = 0.f;
    }
    for (std::int64_t t = 0; t < n; ++t) {
      store_row(isa, tokens, sides.tokens.k + t * row, tokens.key(h, position + t));
      store_row(isa, tokens, sides.tokens.v + t * row, tokens.value(h, position + t));
      dispatch<AddToSpan>(isa, D, cell.scale, tie + h * D, sides.knots.q + cell.inner() + t * row,
                          sides.tokens.v + t * row, sums);
    }

    const Pull pull(isa, cell, n, memory, out + (run.first + first) * cell.inner() + h * D);
    float* key_rows = memory.take(tile * tokens.shape.row());
    float* value_rows = memory.take(tile * tokens.shape.row());
    const auto over = [&](const KvCache& cache, std::int64_t from, std::int64_t end, auto f) {
      for (std::int64_t j = from, count = 0; j < end; j += count)
        f(j, count = cache.together(j, std::min(tile, end - j)));
    };
    const auto cached = [&](const KvCache& cache, const std::byte* at, std::int64_t count, float* buffer) {
      return row_major(load_rows(isa, cache, at, count, buffer), cache.shape.row());
    };
    over(tokens, tied * cell.span, position + n, [&](std::int64_t j, std::int64_t count) {
      pull.see(count, row_major(sides.tokens.q, row), cached(tokens, tokens.key(h, j), count, key_rows),
               cached(tokens, tokens.value(h, j), count, value_rows), [&](std::int64_t r, float*) {
                 return Visible{0, std::clamp<std::int64_t>(position + r + 1 - j, 0, count)};
               });
    });
    const std::int64_t oldest = std::max<std::int64_t>(0, span - knots.shape.slot_count);
    const auto all = [&](std::int64_t j, std::int64_t count, float* scores) {
      add_distances(distance + h * SpanKnotShape::buckets, gain[h], span - j, {0, count}, scores);
      return Visible{0, count};
    };
    if (cell.top > 0)
      over(knots, oldest, tied, [&](std::int64_t j, std::int64_t count) {
        pull.rank(count, row_major(sides.knots.q, row), cached(knots, knots.key(h, j), count, key_rows),
                  [&](std::int64_t, float* scores) { return all(j, count, scores); });
      });
    over(knots, oldest, tied, [&](std::int64_t j, std::int64_t count) {
      pull.see(count, row_major(sides.knots.q, row), cached(knots, knots.key(h, j), count, key_rows),
               cached(knots, knots.value(h, j), count, value_rows), [&](std::int64_t r, float* scores) {
                 const Visible see = all(j, count, scores);
                 if (cell.top > 0) drop_below(pull.least(r), see, scores);
                 return see;
               });
    });
    pull.finish();

    if ((position + n) % cell.span > 0) return;
    dispatch<Scaled>(isa, cell.knot(), 1.f / sums[cell.knot() + 1], sums, sums);
    store_row(isa, knots, sums, knots.key(h, span));
    store_row(isa, knots, sums + D, knots.value(h, span));
  }
};

}  // namespace cached_span_knot_parts

CHIMERA_FUNCTION void cached_span_knot(const Cpu& q, const CachedSpanKnotShape& s, const Pass& pass, float* heads,
                                       const float* rows, const float* tie, const float* gain, const float* distance,
                                       float* out) {
  using namespace cached_span_knot_parts;
  const SpanKnotShape& cell = s.cell;
  const std::int64_t row = cell.row(), runs = static_cast<std::int64_t>(pass.runs.size());
  parallel(q, pass.rows, pass.rows * row * 8, [&](std::int64_t index, int) {
    const Run* run = pass.runs.data();
    while (index >= run->first + run->count) ++run;
    alignas(64) float angles[2 * KvShape::most_head_dim];
    float* token = heads + index * row;
    rope_angles(q.isa(), s.turns, cell.head_dim, cell.turning().layout, run->position + index - run->first, angles);
    std::copy_n(token, 2 * cell.inner(), token + cell.turned());
    rotate(q.isa(), cell.turning(), 1.f, angles, token + cell.turned());
  });
  const std::int64_t seen = s.tokens().slot_count + s.tied(pass.runs[0].context).slot_count;
  parallel(q, runs * cell.heads, pass.rows * row * 8 + runs * seen * cell.inner() * 8,
           [&](std::int64_t index, int worker) {
             const Run& run = pass.runs[static_cast<std::size_t>(index / cell.heads)];
             const CachedSpan span{s, pass, heads, rows, tie, gain, distance, out};
             for (std::int64_t t = 0, n = 0; t < run.count; t += n) {
               n = std::min({tile, run.count - t, cell.span - (run.position + t) % cell.span});
               span.see(q.isa(), run, index % cell.heads, t, n, Bump{q.scratch(worker)});
             }
           });
}

CHIMERA_FUNCTION void copy_span_knots(const CachedSpanKnotShape& s, KvFormat kv, std::int64_t context,
                                      std::int64_t tokens, const std::byte* from, std::byte* to) {
  const std::int64_t knots = s.tokens().bytes(kv);
  copy_rows(s.tokens(), kv, tokens, from, to);
  copy_rows(s.tied(context), kv, tokens / s.cell.span, from + knots, to + knots);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
