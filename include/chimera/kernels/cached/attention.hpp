// Attention as decoding does it: the rows of a pass, each run of tokens against its own cache of keys and values.
//
// The past of a token is seen in chunks (attend.hpp), which are shared out to threads where a pass has few tokens. What
// a token becomes has the same bits however its chunks were shared out.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/attend.hpp>
#include <chimera/kernels/cached/kv_cache.hpp>
#include <chimera/kernels/f32/attention.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/rope.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera {

/// `window` keys are kept, or as many as a sequence's context. Queries and keys turn where `dims` is not 0.
struct CachedAttentionShape {
  AttentionShape heads;
  std::int64_t dims;
  RopeLayout layout;
  RopeTurns turns;

  constexpr KvShape ring(std::int64_t context = INT64_MAX) const {
    return {heads.kv_heads, heads.head_dim, std::min(heads.window, context)};
  }
  constexpr RopeShape turning() const {
    return {heads.heads + heads.kv_heads, heads.head_dim, dims, heads.row(), layout};
  }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace cached_attention_parts {

using attend_parts::tile;

/// Up to this many rows the past of a token is shared out.
inline constexpr std::int64_t few_rows = 4;

constexpr std::int64_t chunk(const CachedAttentionShape& s) { return chunk_keys(s.heads.window); }

/// Parts into which a past is shared out at most.
constexpr std::int64_t most_parts(const CachedAttentionShape& s, std::int64_t rows) {
  return rows <= few_rows ? ceil_div(s.heads.window, chunk(s)) + 1 : 1;
}

constexpr std::int64_t softmax_floats(const CachedAttentionShape& s) {
  return Softmax::floats(s.heads.heads, s.ring().row());
}

/// Of a pass of that many rows, or of fewer, whose parts are more.
constexpr std::int64_t all_softmaxes_floats(const CachedAttentionShape& s, std::int64_t rows) {
  return std::max(rows, std::min(rows, few_rows) * most_parts(s, 1)) * softmax_floats(s);
}

/// A pass of one layer, and memory.
struct Work {
  const CachedAttentionShape& s;
  const Pass& pass;
  float* tokens;     // [rows, row()]
  float* mixed;      // [rows, heads*head_dim]
  float* softmaxes;  // [rows, most_parts, softmax_floats]

  KvCache cache(const Run& run) const { return {s.ring(run.context), pass.kv, run.ring}; }
  /// The heads, with the window of a run.
  AttentionShape heads(const Run& run) const {
    AttentionShape h = s.heads;
    h.window = std::min(h.window, run.context);
    return h;
  }
  float* token(std::int64_t row) const { return tokens + row * s.heads.row(); }
  float* mixed_of(std::int64_t row) const { return mixed + row * s.heads.heads * s.heads.head_dim; }
  /// Of heads `head` and behind it.
  Softmax softmax(std::int64_t row, std::int64_t part, std::int64_t head) const {
    float* memory = softmaxes + (row * most_parts(s, pass.rows) + part) * softmax_floats(s);
    return Softmax::at(memory, s.heads.heads, s.ring().row(), head);
  }
  std::int64_t first_key(const Run& run) const {
    return std::max<std::int64_t>(0, run.position - std::min(s.heads.window, run.context) + 1);
  }
  /// Parts of the past of a run of one token.
  std::int64_t parts(const Run& run) const {
    if (most_parts(s, pass.rows) == 1) return 1;
    return run.position / chunk(s) - first_key(run) / chunk(s) + 1;
  }
};

/// Calls task(run, index, worker) for index 0 .. tasks(run) - 1 of every run, in parallel.
template <class Tasks, class Task>
void over_runs(const Cpu& q, const Work& work, Tasks tasks, Task task) {
  const Pass& pass = work.pass;
  const KvShape ring = work.s.ring();
  std::int64_t all = 0, bytes = 0;  // keys and values, as f32
  for (const Run& run : pass.runs) {
    all += tasks(run);
    bytes += run.count * std::min(run.position + run.count, ring.slot_count) * ring.kv_heads * ring.row() * 8;
  }
  if (all == 0) return;
  parallel(q, all, bytes, [&](std::int64_t index, int worker) {
    const Run* run = pass.runs.data();
    for (; index >= tasks(*run); ++run) index -= tasks(*run);
    task(*run, index, worker);
  });
}

/// Of a worker's scratch.
constexpr std::int64_t part_bytes(const CachedAttentionShape& s) {
  return bytes_of({(s.heads.group() + 1) * s.ring().row(), softmax_floats(s)}) + attend_chunk_bytes(s.heads, s.ring());
}

}  // namespace cached_attention_parts

/// Bytes of `temp` for a pass of that many rows.
constexpr std::int64_t cached_attention_bytes(const CachedAttentionShape& s, std::int64_t rows) {
  return bytes_of({cached_attention_parts::all_softmaxes_floats(s, rows)});
}

/// Bytes of a worker's scratch.
constexpr std::int64_t cached_attention_scratch_bytes(const CachedAttentionShape& s) {
  return std::max(cached_attention_parts::part_bytes(s), attend_tile_bytes(s.heads, s.ring()));
}

/// tokens [rows, row()], which leave turned, -> mixed [rows, heads*head_dim].
void cached_attention(const Cpu& q, const CachedAttentionShape& s, const Pass& pass, float* tokens, float* mixed,
                      Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_attention_parts {

inline void turn(Isa isa, const CachedAttentionShape& s, const RopeShape& shape, std::int64_t position, float* x) {
  if (s.dims == 0) return;
  alignas(64) float angles[2 * KvShape::most_head_dim];
  rope_angles(isa, s.turns, s.dims, s.layout, position, angles);
  rotate(isa, shape, 1.f, angles, x);
}

/// Writes n heads' channels of a row of `mixed`.
inline void finish(Isa isa, const CachedAttentionShape& s, const Softmax& seen, std::int64_t n, float* mixed) {
  for (std::int64_t h = 0; h < n; ++h)
    dispatch<Scaled>(isa, s.heads.head_dim, 1.f / seen.sum[h], seen.mixed + h * s.ring().row(),
                     mixed + h * s.heads.head_dim);
}

/// What is new of one key head of a token is turned and kept, and one part of its past is seen.
inline void attend_part(Isa isa, const Work& work, const Run& run, std::int64_t kv_head, std::int64_t part,
                        Bump scratch) {
  const CachedAttentionShape& s = work.s;
  const std::int64_t group = s.heads.group(), width = s.ring().row(), head_dim = s.heads.head_dim;
  const std::int64_t head = kv_head * group, keys = chunk(s), all = work.parts(run);
  const float* token = work.token(run.first);
  const KvCache cache = work.cache(run);
  float* queries = scratch.take((group + 1) * width);  // and the key
  std::fill(queries, queries + (group + 1) * width, 0.f);
  for (std::int64_t g = 0; g < group; ++g) std::copy_n(token + (head + g) * head_dim, head_dim, queries + g * width);
  float* key = queries + group * width;
  std::copy_n(token + s.heads.key(kv_head), head_dim, key);
  turn(isa, s, {group + 1, width, s.dims, s.heads.row(), s.layout}, run.position, queries);
  if (part == all - 1) {
    store_row(isa, cache, key, cache.key(kv_head, run.position));
    store_row(isa, cache, token + s.heads.value(kv_head), cache.value(kv_head, run.position));
  }
  const Softmax seen = work.softmax(run.first, part, head);
  const Softmax more = Softmax::at(scratch.take(softmax_floats(s)), s.heads.heads, width, head);
  const std::int64_t from = work.first_key(run), first = from / keys + part;
  const std::int64_t last = all > 1 ? first : run.position / keys;
  for (std::int64_t c = first; c <= last; ++c) {
    attend_chunk(isa, work.heads(run), cache, kv_head, queries, run.position, std::max(from, c * keys),
                 std::min(run.position, c * keys + keys - 1) + 1, scratch, c == first ? seen : more);
    if (c > first) add_softmax(isa, group, width, more, seen);
  }
  if (all == 1) finish(isa, s, seen, group, work.mixed_of(run.first) + head * head_dim);
}

/// Runs of one token; where their past has several parts, these are put together in the end.
inline void attend_tokens(const Cpu& q, const Work& work) {
  const std::int64_t kv_heads = work.s.heads.kv_heads, heads = work.s.heads.heads;
  const auto parts = [&](const Run& run) { return run.count == 1 ? work.parts(run) : 0; };
  over_runs(
      q, work, [&](const Run& run) { return kv_heads * parts(run); },
      [&](const Run& run, std::int64_t index, int worker) {
        attend_part(q.isa(), work, run, index % kv_heads, index / kv_heads, Bump{q.scratch(worker)});
      });
  over_runs(
      q, work, [&](const Run& run) { return parts(run) > 1 ? 1 : 0; },
      [&](const Run& run, std::int64_t, int) {
        const Softmax all = work.softmax(run.first, 0, 0);
        for (std::int64_t part = 1; part < parts(run); ++part)
          add_softmax(q.isa(), heads, work.s.ring().row(), work.softmax(run.first, part, 0), all);
        finish(q.isa(), work.s, all, heads, work.mixed_of(run.first));
      });
}

/// Runs of several tokens: turned, then each tile of 64 against its past and itself, then kept.
inline void attend_pieces(const Cpu& q, const Work& work) {
  const CachedAttentionShape& s = work.s;
  const auto in_piece = [](const Run& run, std::int64_t n) { return run.count == 1 ? 0 : n; };
  over_runs(
      q, work, [&](const Run& run) { return in_piece(run, run.count); },
      [&](const Run& run, std::int64_t t, int) {
        turn(q.isa(), s, s.turning(), run.position + t, work.token(run.first + t));
      });
  over_runs(
      q, work, [&](const Run& run) { return in_piece(run, s.heads.kv_heads * ceil_div(run.count, tile)); },
      [&](const Run& run, std::int64_t index, int worker) {
        const std::int64_t first = index / s.heads.kv_heads * tile;
        attend_tile(q.isa(), work.heads(run), work.cache(run), index % s.heads.kv_heads, work.token(run.first),
                    run.position, first, std::min(tile, run.count - first), Bump{q.scratch(worker)},
                    work.mixed_of(run.first));
      });
  over_runs(
      q, work, [&](const Run& run) { return in_piece(run, std::min(run.count, work.heads(run).window)); },
      [&](const Run& run, std::int64_t index, int) {
        const std::int64_t t = run.count - 1 - index, position = run.position + t;
        const float* token = work.token(run.first + t);
        const KvCache cache = work.cache(run);
        for (std::int64_t h = 0; h < s.heads.kv_heads; ++h) {
          store_row(q.isa(), cache, token + s.heads.key(h), cache.key(h, position));
          store_row(q.isa(), cache, token + s.heads.value(h), cache.value(h, position));
        }
      });
}

}  // namespace cached_attention_parts

CHIMERA_FUNCTION void cached_attention(const Cpu& q, const CachedAttentionShape& s, const Pass& pass, float* tokens,
                                       float* mixed, Bump temp) {
  using namespace cached_attention_parts;
  const Work work{s, pass, tokens, mixed, temp.take(all_softmaxes_floats(s, pass.rows))};
  attend_tokens(q, work);
  attend_pieces(q, work);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
