// Grouped-query attention, causal, with an optional sliding window and rotary or ALiBi positions
// (Ainslie et al., 2305.13245; Su et al., 2104.09864; Press et al., 2108.12409). With sub_norm what the output matrix
// multiplies is normalised first (BitNet b1.58 2B4T, 2504.12285).
#pragma once

#include <chimera/core/constexpr_math.hpp>
#include <chimera/kernels/cached/attend.hpp>
#include <chimera/kernels/f32/attention.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/layers/decode.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

template <const Config& C>
struct Attention : AttentionWeights {
  static constexpr std::int64_t width = C.width, heads = C.attention.heads, kv_heads = C.kv_heads();
  static constexpr std::int64_t head_dim = C.head_dim(), rows = heads * head_dim,
                                row = (heads + 2 * kv_heads) * head_dim;
  static constexpr bool rotary = C.attention.position == Position::rope;
  static constexpr bool alibi = C.attention.position == Position::alibi;
  static constexpr std::int64_t dims = rotary ? C.rope_dims() : 0;

  // 1. Weights.
  static constexpr auto params = table(C);
  static constexpr Linear in{row, width}, out{width, rows};

  struct Activations {
    float* qkv;     // [B,T,row], after rotation
    float* mixed;   // [B,T,rows]
    float* lse;     // [B,heads,T]
    float* angles;  // [T,rope_row]
  };
  static Activations bind(Bump& memory, const Batch& batch) {
    return {memory.take(batch.tokens() * row), memory.take(batch.tokens() * rows), memory.take(batch.tokens() * heads),
            memory.take(batch.length * rope_row(dims, layout))};
  }
  static std::int64_t temp_floats(const Batch& batch) {
    const std::int64_t n = batch.tokens(), inside = C.sub_norm ? n * rows : 0;
    return floats_of({n * row, n * rows, n * heads, inside, inside ? norm_backward_temp(n, rows) : 0});
  }

  // 2. Forward.
  static void forward(const Cpu& q, Weights<Attention> w, const Batch& batch, const float* x, float scale, float* y,
                      Activations& a, [[maybe_unused]] Bump temp) {
    const std::int64_t n = batch.tokens();
    linear(q, in, n, 1.f, x, width, w[qkv], 0.f, a.qkv, row);
    if constexpr (rotary) {
      rope_table(q, turns.first.data(), turns.second, dims, layout, 0, batch.length, a.angles);
      rope(q, turning, batch, 1.f, a.angles, a.qkv);
    }
    attention(q, shape, batch, a.qkv, a.mixed, a.lse);
    const float* last = a.mixed;
    if constexpr (C.sub_norm) {
      float* normed = temp.take(n * rows);
      rms_norm(q, norm(n), a.mixed, w[sub_norm], normed);
      last = normed;
    }
    linear(q, out, n, scale, last, rows, w[output], 1.f, y, width);
  }

  // 3. Backward.
  static void backward(const Cpu& q, Weights<Attention> w, Weights<Attention, float> dw, const Batch& batch,
                       const float* x, const float* dy, float scale, float* dx, Activations& a, Bump temp) {
    const std::int64_t n = batch.tokens();
    float* dmixed = temp.take(n * rows);
    float* dqkv = temp.take(n * row);
    if constexpr (C.sub_norm) {
      Bump inner = temp;
      float* normed = inner.take(n * rows);
      float* dnormed = normed;
      rms_norm(q, norm(n), a.mixed, w[sub_norm], normed);
      linear_weight_gradient(q, out, n, scale, dy, width, normed, rows, dw[output]);
      linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dnormed, rows);
      std::fill(dmixed, dmixed + n * rows, 0.f);
      rms_norm_backward(q, norm(n), a.mixed, w[sub_norm], dnormed, dmixed, dw[sub_norm], inner);
    } else {
      linear_weight_gradient(q, out, n, scale, dy, width, a.mixed, rows, dw[output]);
      linear_input_gradient(q, out, n, scale, dy, width, w[output], 0.f, dmixed, rows);
    }
    attention_backward(q, shape, batch, a.qkv, a.mixed, a.lse, dmixed, dqkv, temp);
    if constexpr (rotary) rope(q, turning, batch, -1.f, a.angles, dqkv);
    linear_weight_gradient(q, in, n, 1.f, dqkv, row, x, width, dw[qkv]);
    linear_input_gradient(q, in, n, 1.f, dqkv, row, w[qkv], 0.f, dx, width);
  }

  // 4. Decode.
  static constexpr std::int64_t state_bytes(KvFormat kv) { return ring.bytes(kv); }
  /// Copies the keys and values of a sequence of that many tokens.
  static void copy_rows(KvFormat kv, std::int64_t tokens, const std::byte* from, std::byte* to) {
    const KvCache cache{ring, kv, to};
    const auto bytes = static_cast<std::size_t>(std::min(tokens, ring.slots) * ring.row_bytes(kv));
    for (std::int64_t h = 0; h < kv_heads; ++h)
      for (std::byte* head : {cache.key(h, 0), cache.value(h, 0)}) std::memcpy(head, from + (head - to), bytes);
  }
  static std::int64_t decode_floats(std::int64_t n) {
    return floats_of({n * row, n * rows, softmaxes(n) * softmax}) +
           std::max(product_floats(n, width), product_floats(n, rows));
  }
  static void decode(const Cpu& q, PackedWeights<Attention> w, const Pass& pass, const NormedRows& x, float scale,
                     float* y, Bump temp) {
    const std::int64_t n = pass.rows;
    const Decoding d{q, pass, temp.take(n * row), temp.take(n * rows), temp.take(softmaxes(n) * softmax)};
    project(
        q, w.matrix(qkv), n, [&](std::int64_t t, float* buffer) { return x.row(q.isa(), t, buffer); }, d.tokens, temp);
    attend_tokens(d);
    attend_pieces(d);
    add_projection(
        q, w.matrix(output), n,
        [&](std::int64_t t, float* buffer) {
          const float* mixed = mixed_row(d, t, buffer);
          if constexpr (C.sub_norm) {
            dispatch<RmsNorm>(q.isa(), norm(1), mixed, static_cast<const float*>(nullptr), std::int64_t{0},
                              w.vector(sub_norm), buffer);
            return static_cast<const float*>(buffer);
          } else {
            return mixed;
          }
        },
        scale, y, temp);
  }

 private:
  static constexpr RopeLayout layout = C.attention.rope.layout;
  static constexpr RopeShape turning{heads + kv_heads, head_dim, dims, row, layout};
  /// The rotation's frequencies and the factor on cos and sin.
  static constexpr auto turns = [] {
    std::pair<std::array<float, Rope::max_pairs>, float> t{};
    if constexpr (rotary)
      t.second = rope_frequencies(C.attention.rope, static_cast<int>(dims), C.context, C.context, t.first.data());
    return t;
  }();
  static constexpr auto slopes = [] {
    std::array<float, heads> s{};
    alibi_slopes(heads, s.data());
    return s;
  }();
  static constexpr AttentionShape shape{
      heads,
      kv_heads,
      head_dim,
      C.window(),
      C.attention.scale != 0.f ? C.attention.scale : static_cast<float>(constexpr_pow(head_dim, -0.5)),
      alibi ? slopes.data() : nullptr};
  static constexpr KvShape ring{kv_heads, head_dim, C.window()};
  static constexpr std::int64_t group = shape.group(), padded = ring.row(), chunk = chunk_keys(ring.slots),
                                softmax = Softmax::floats(heads, padded);

  static constexpr NormShape norm(std::int64_t n) { return {n, rows, rows, C.norm_eps}; }

  /// What decoding works on: of every row its queries, keys and values; what attention makes of it, and
  /// before that what it makes of the parts of its past.
  struct Decoding {
    const Cpu& q;
    const Pass& pass;
    float* tokens;     // [rows,row]
    float* mixed;      // [rows,heads*head_dim]
    float* softmaxes;  // [rows,parts,softmax]

    KvCache cache(const Run& run) const { return {ring, pass.kv, run.state}; }
  };

  /// The past of a token is shared out to threads where a pass has few of them: most parts of one token, and of all.
  static constexpr std::int64_t few = 4, most_parts = ceil_div(ring.slots, chunk) + 1;
  static constexpr std::int64_t parts(std::int64_t n) { return n <= few ? most_parts : 1; }
  static constexpr std::int64_t softmaxes(std::int64_t n) { return std::max(n, std::min(n, few) * most_parts); }

  static constexpr std::int64_t first_chunk(std::int64_t position) {
    return std::max<std::int64_t>(0, position - shape.window + 1) / chunk;
  }
  static std::int64_t parts(const Decoding& d, const Run& run) {
    return parts(d.pass.rows) == 1 ? 1 : run.position / chunk - first_chunk(run.position) + 1;
  }

  /// Calls task(run, index, worker) for index 0 .. tasks(run) - 1 of every run, in parallel.
  template <class Tasks, class Task>
  static void over_runs(const Decoding& d, Tasks tasks, Task task) {
    std::int64_t all = 0;
    for (const Run& run : d.pass.runs) all += tasks(run);
    parallel(d.q, all, [&](std::int64_t index, int worker) {
      const Run* run = d.pass.runs.data();
      for (; index >= tasks(*run); ++run) index -= tasks(*run);
      task(*run, index, worker);
    });
  }

  static void turn(Isa isa, std::int64_t position, RopeShape s, float* x) {
    if constexpr (rotary) {
      alignas(64) float angles[2 * KvShape::most_head_dim];
      rope_angles(isa, turns.first.data(), turns.second, dims, layout, position, angles);
      rotate(isa, s, 1.f, angles, x);
    }
  }

  /// Runs of one token: one task turns and keeps what is new of a key head and sees a part of its past.
  static void attend_tokens(const Decoding& d) {
    static constexpr std::int64_t scratch_floats =
        floats_of({(group + 1) * padded, attend_chunk_floats(shape, ring), softmax});
    static_assert(scratch_floats <= static_cast<std::int64_t>(Cpu::scratch_floats),
                  "chimera: too many query heads share a key head");
    const Isa isa = d.q.isa();
    over_runs(
        d, [&](const Run& run) { return run.count == 1 ? kv_heads * parts(d, run) : 0; },
        [&](const Run& run, std::int64_t index, int worker) {
          const std::int64_t kv_head = index % kv_heads, part = index / kv_heads, all = parts(d, run);
          const float* token = d.tokens + run.first * row;
          const KvCache cache = d.cache(run);
          Bump scratch{d.q.scratch(worker)};
          float* queries = scratch.take((group + 1) * padded);  // and the key
          std::fill(queries, queries + (group + 1) * padded, 0.f);
          for (std::int64_t g = 0; g < group; ++g)
            std::copy_n(token + (kv_head * group + g) * head_dim, head_dim, queries + g * padded);
          float* key = queries + group * padded;
          std::copy_n(token + shape.key(kv_head), head_dim, key);
          turn(isa, run.position, {group + 1, padded, dims, row, layout}, queries);
          if (part == all - 1) {
            store_row(isa, cache, key, cache.key(kv_head, run.position));
            store_row(isa, cache, token + shape.value(kv_head), cache.value(kv_head, run.position));
          }
          float* memory = d.softmaxes + (run.first * parts(d.pass.rows) + part) * softmax;
          const Softmax seen = Softmax::at(memory, heads, padded, kv_head * group);
          const Softmax more = Softmax::at(scratch.take(softmax), heads, padded, kv_head * group);
          float* rest = scratch.take(attend_chunk_floats(shape, ring));
          const std::int64_t from = std::max<std::int64_t>(0, run.position - shape.window + 1);
          const std::int64_t c0 = first_chunk(run.position) + part, c1 = all > 1 ? c0 : run.position / chunk;
          for (std::int64_t c = c0; c <= c1; ++c) {
            attend_chunk(isa, shape, cache, kv_head, queries, run.position, std::max(from, c * chunk),
                         std::min(run.position, c * chunk + chunk - 1) + 1, rest, c == c0 ? seen : more);
            if (c > c0) add_softmax(isa, group, padded, more, seen);
          }
          if (all == 1) finish(isa, seen, group, d.mixed + run.first * rows + kv_head * group * head_dim);
        });
  }

  /// Runs of several tokens: turned, then each tile of 64 against its past and itself, then kept.
  static void attend_pieces(const Decoding& d) {
    static constexpr std::int64_t tile = attend_parts::tile;
    static_assert(attend_tile_floats(shape, ring) <= static_cast<std::int64_t>(Cpu::scratch_floats),
                  "chimera: too many query heads share a key head");
    const Isa isa = d.q.isa();
    if (std::all_of(d.pass.runs.begin(), d.pass.runs.end(), [](const Run& run) { return run.count == 1; })) return;
    const auto in_piece = [](const Run& run, std::int64_t n) { return run.count == 1 ? 0 : n; };
    over_runs(
        d, [&](const Run& run) { return in_piece(run, run.count); },
        [&](const Run& run, std::int64_t t, int) {
          turn(isa, run.position + t, turning, d.tokens + (run.first + t) * row);
        });
    over_runs(
        d, [&](const Run& run) { return in_piece(run, kv_heads * ceil_div(run.count, tile)); },
        [&](const Run& run, std::int64_t index, int worker) {
          const std::int64_t first = index / kv_heads * tile;
          attend_tile(isa, shape, d.cache(run), index % kv_heads, d.tokens + run.first * row, run.position, first,
                      std::min(tile, run.count - first), d.q.scratch(worker), d.mixed + run.first * rows);
        });
    over_runs(
        d, [&](const Run& run) { return in_piece(run, std::min(run.count, ring.slots)); },
        [&](const Run& run, std::int64_t index, int) {
          const std::int64_t t = run.count - 1 - index, position = run.position + t;
          const float* token = d.tokens + (run.first + t) * row;
          const KvCache cache = d.cache(run);
          for (std::int64_t h = 0; h < kv_heads; ++h) {
            store_row(isa, cache, token + shape.key(h), cache.key(h, position));
            store_row(isa, cache, token + shape.value(h), cache.value(h, position));
          }
        });
  }

  /// Writes the heads' channels of a row of `mixed`.
  static void finish(Isa isa, const Softmax& seen, std::int64_t n, float* mixed) {
    for (std::int64_t h = 0; h < n; ++h)
      dispatch<Scaled>(isa, head_dim, 1.f / seen.sum[h], static_cast<const float*>(seen.mixed + h * padded),
                       mixed + h * head_dim);
  }

  /// What attention makes of row t [heads*head_dim]: where it is, or its parts put together in `buffer`.
  static const float* mixed_row(const Decoding& d, std::int64_t t, float* buffer) {
    const Run* run = d.pass.runs.data();
    while (t >= run->first + run->count) ++run;
    const std::int64_t n = run->count == 1 ? parts(d, *run) : 1;
    if (n == 1) return d.mixed + t * rows;
    float* memory = d.softmaxes + t * parts(d.pass.rows) * softmax;
    for (std::int64_t h = 0; h < heads; ++h) {
      const Softmax first = Softmax::at(memory, heads, padded, h);
      alignas(64) float mixed[padded];
      float largest = *first.largest, sum = *first.sum;
      std::copy_n(first.mixed, padded, mixed);
      for (std::int64_t part = 1; part < n; ++part)
        add_softmax(d.q.isa(), 1, padded, Softmax::at(memory + part * softmax, heads, padded, h),
                    {&largest, &sum, mixed});
      finish(d.q.isa(), {&largest, &sum, mixed}, 1, buffer + h * head_dim);
    }
    return buffer;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
