// Products of some rows with a packed matrix. What a row is made of before it is multiplied, and what becomes of its
// results, are values: so norms, gates and residual streams need no barrier of their own.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/packed/matrix.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// What a product reads: rows of x, `stride` floats apart, as they are; or normalised, where `norm` are the norm's
/// weights and each run of `group` channels has a mean of its own.
struct ProductInput {
  const float* x;
  std::int64_t stride;
  const float* norm = nullptr;
  std::int64_t group = 0;
  float eps = 0.f;
  const Output* outputs = nullptr;  // row i is the one of outputs[i]; null: row i of x
};

/// What becomes of a product's results r [rows, matrix rows].
struct Then {
  enum class Kind : std::uint8_t { store, add, gate, logits };

  Kind kind;
  float* y = nullptr;
  std::int64_t stride = 0;  // between rows of y
  float scale = 1.f;
  const float* bias = nullptr;
  const Output* outputs = nullptr;
  std::int64_t first = 0;
  float cap = 0.f;

  /// y = r + bias; `bias` may be null.
  static Then store(float* y, std::int64_t stride, const float* bias = nullptr) {
    return {.kind = Kind::store, .y = y, .stride = stride, .bias = bias};
  }
  /// y += scale r + scale bias; `bias` may be null.
  static Then add(float* y, std::int64_t stride, float scale, const float* bias = nullptr) {
    return {.kind = Kind::add, .y = y, .stride = stride, .scale = scale, .bias = bias};
  }
  /// y = silu(r of the matrix's first part) (r of the second). Both parts have one shape.
  static Then gate(float* y, std::int64_t stride) { return {.kind = Kind::gate, .y = y, .stride = stride}; }
  /// outputs[i].logits[first ...] = scale r, then cap tanh(x / cap) of it if cap is not 0.
  static Then logits(const Output* outputs, std::int64_t first, float scale, float cap = 0.f) {
    return {.kind = Kind::logits, .scale = scale, .outputs = outputs, .first = first, .cap = cap};
  }

  /// Where results of row i go.
  float* row(std::int64_t i) const { return outputs ? outputs[i].logits + first : y + i * stride; }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace product_parts {

/// Rows that one task multiplies at most, whole tiles of any level; and at least, if it can be.
inline constexpr std::int64_t row_block = 264, least_row_block = 96;

/// Panels that are multiplied at once with one row, and with several: so much of each row's results is
/// written together.
inline constexpr std::int64_t together = 8, together_for_rows = 4;

/// Tasks 0 ... count - 1 in stretches, one for each worker: of panels that lie together in memory, which are fetched
/// ahead then, or of rows, which stay in that worker's caches from one product to the next.
class Stretches {
 public:
  Stretches(std::int64_t count, int workers) : count_(std::min(workers, most)) {
    for (int i = 0; i < count_; ++i) {
      all_[i].next.store(count * i / count_, std::memory_order_relaxed);
      all_[i].end = count * (i + 1) / count_;
    }
  }

  /// f(first, end) for some tasks, at most `number`, until none is left: first those of the worker's own stretch,
  /// then others'. Single ones in the end, so that nobody waits for long.
  template <class F>
  void take(int worker, std::int64_t number, F f) {
    for (int i = 0; i < count_; ++i) {
      Stretch& s = all_[(worker + i) % count_];
      for (std::int64_t at = s.next.load(std::memory_order_relaxed); at < s.end;) {
        const std::int64_t end = at + std::clamp<std::int64_t>((s.end - at) / 2, 1, number);
        if (!s.next.compare_exchange_weak(at, end, std::memory_order_relaxed)) continue;
        f(at, end);
        at = s.next.load(std::memory_order_relaxed);
      }
    }
  }

  bool empty() const {
    return std::all_of(all_, all_ + count_,
                       [](const Stretch& s) { return s.next.load(std::memory_order_relaxed) >= s.end; });
  }

 private:
  static constexpr int most = 16;  // more workers share them

  struct alignas(64) Stretch {
    std::atomic<std::int64_t> next;
    std::int64_t end;
  };

  int count_;
  Stretch all_[most];
};

/// Of a worker's scratch: what some panels make of some rows.
constexpr std::int64_t results_bytes(std::int64_t panels, std::int64_t rows) {
  return bytes_of({panel_scratch_floats, panels * rows * panel_rows, panels * rows * panel_rows});
}

}  // namespace product_parts

/// Bytes of `temp` that a product of `rows` inputs [cols] uses at most: with weights of formats that want all forms.
constexpr std::int64_t product_bytes(std::int64_t rows, std::int64_t cols) {
  return rows == 1 ? 0 : packed_input_bytes(all_input_forms, rows, cols);
}

/// Bytes of a worker's scratch that it uses at most.
constexpr std::int64_t product_scratch_bytes(std::int64_t cols) {
  using namespace product_parts;
  return std::max({packed_input_bytes(all_input_forms, 1, cols) + bytes_of({cols}) + results_bytes(together, 1),
                   bytes_of({cols}), results_bytes(together_for_rows, row_block)});
}

/// Multiplies `rows` rows of x [cols] with the matrix w [rows, cols]. With adapters, rows times all their columns are at
/// most Cpu::shared_floats.
void product(const Cpu& q, const PackedMatrix& w, std::int64_t rows, const ProductInput& x, const Then& then,
             Bump temp);

/// y [rows, n] = x w^T for w [n, cols] that lies as in the arena: gates, which are few, and want f32.
void gate_product(const Cpu& q, const float* w, std::int64_t n, std::int64_t cols, std::int64_t rows,
                  const ProductInput& x, float* y);

/// x [rows, width] = scale times the rows of a table that the tokens name.
void embed(const Cpu& q, std::int64_t rows, const std::int32_t* tokens, float scale, const PackedMatrix& table,
           float* x);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace product_parts {

/// Row i of the input: where it is, or computed into buffer [cols].
inline const float* input_row(Isa isa, const ProductInput& in, std::int64_t cols, std::int64_t i, float* buffer) {
  const float* x = in.x + (in.outputs ? in.outputs[i].row : i) * in.stride;
  if (!in.norm) return x;
  dispatch<RmsNorm>(isa, NormShape{1, cols, in.group, in.eps}, x, nullptr, 0, in.norm, buffer);
  return buffer;
}

/// What becomes of results [panels][rows][panel_rows]: of rows first ... of the input and `count` rows of the matrix
/// from `at` on. b: those of a gate's second part.
struct Finish {
  /// Rows: the lines of y that other workers wrote or read last come slowly, and stores wait for each other.
  static constexpr std::int64_t ahead = 8;

  template <int W>
  CHIMERA_INLINE static void run(const Then& then, std::int64_t first, std::int64_t rows, std::int64_t at,
                                 std::int64_t count, const float* a, const float* b) {
    const std::int64_t width = rows == 1 ? count : panel_rows;  // that lie side by side
    const auto each = [&](auto result) CHIMERA_LAMBDA {
      for (std::int64_t t = 0; t < rows; ++t) {
        float* const y = then.row(first + t) + at;
        if (t + ahead < rows)
          for (std::int64_t i = 0; i < count; i += 16) prefetch_to_write(then.row(first + t + ahead) + at + i);
        for (std::int64_t i = 0; i < count; i += width)
          lanes<W>(std::min(width, count - i), [&](std::int64_t lane, auto io) CHIMERA_LAMBDA {
            io.store(y + i + lane, result(io, i * rows + t * panel_rows + lane, at + i + lane, y + i + lane));
          });
      }
    };
    const Vec<W> scale(then.scale);
    const float* const bias = then.bias;
    const float cap = then.cap;
    switch (then.kind) {
      case Then::Kind::store:
        return each([&](auto io, std::int64_t from, std::int64_t row, const float*)
                        CHIMERA_LAMBDA { return bias ? io.load(a + from) + io.load(bias + row) : io.load(a + from); });
      case Then::Kind::add:
        return each([&](auto io, std::int64_t from, std::int64_t row, const float* y) CHIMERA_LAMBDA {
          const Vec<W> sum = fma<W>(scale, io.load(a + from), io.load(y));
          return bias ? fma<W>(scale, io.load(bias + row), sum) : sum;
        });
      case Then::Kind::gate:
        return each([&](auto io, std::int64_t from, std::int64_t, const float*)
                        CHIMERA_LAMBDA { return silu<W>(io.load(a + from)) * io.load(b + from); });
      case Then::Kind::logits:
        return each([&](auto io, std::int64_t from, std::int64_t, const float*) CHIMERA_LAMBDA {
          const Vec<W> logits = io.load(a + from) * scale;
          return cap > 0.f ? Vec<W>(cap) * tanh<W>(logits * Vec<W>(1.f / cap)) : logits;
        });
    }
  }
};

/// h [columns] = a x, for all parts that have adapters; each sum has the same order however many rows there are.
inline void adapt_down(Isa isa, const PackedMatrix& w, const float* x, float* scratch, float* h) {
  for (std::size_t i = 0; i < w.count; ++i)
    if (const PackedAdapter* a = w.parts[i].adapter) {
      gemm_serial(isa, scratch, 1, a->rank, w.cols, 1.f, row_major(x, w.cols), transposed(a->a, w.cols), 0.f, h,
                  a->rank);
      h += a->rank;
    }
}

/// out [panels][rows][panel_rows] += b h, for rows of h that lie ldh apart.
struct AdaptUp {
  template <int W>
  CHIMERA_INLINE static void run(const PackedAdapter& adapter, std::int64_t panel, std::int64_t panels,
                                 std::int64_t rows, const float* h, std::int64_t ldh, float* out) {
    for (std::int64_t p = 0; p < panels; ++p)
      for (std::int64_t t = 0; t < rows; ++t, out += panel_rows)
        for (std::int64_t lane = 0; lane < panel_rows; lane += W) {
          const float* b = adapter.b + (panel + p) * adapter.rank * panel_rows + lane;
          Vec<W> sum = Vec<W>::load(out + lane);
          for (std::int64_t r = 0; r < adapter.rank; ++r, b += panel_rows)
            sum = fma<W>(Vec<W>(h[t * ldh + r]), Vec<W>::load(b), sum);
          sum.store(out + lane);
        }
  }
};

/// What adapters make of the rows of an input [rows, columns].
struct Adapted {
  const float* h = nullptr;
  std::int64_t ranks = 0;
};

/// Results [panels][rows][panel_rows] of part `number` for rows first ..
inline void multiply(Isa isa, const PackedMatrix& w, std::size_t number, std::int64_t panel, std::int64_t panels,
                     const PackedInput& input, const Adapted& adapted, std::int64_t first, std::int64_t rows,
                     float* scratch, float* out) {
  const PackedPart& part = w.parts[number];
  multiply_panels(isa, part.rows, panel, panels, input, first, rows, scratch, out);
  if (part.scale != 1.f)
    for (std::int64_t i = 0; i < panels * rows * panel_rows; ++i) out[i] *= part.scale;
  if (part.adapter)
    dispatch<AdaptUp>(isa, *part.adapter, panel, panels, rows,
                      adapted.h + first * adapted.ranks + w.adapter_ranks(number), adapted.ranks, out);
}

/// Some panels, of a gate's two parts both, times rows first .. of the input. Fewer panels than asked for if a part of
/// the matrix ends: as many as it returns.
inline std::int64_t multiply_and_finish(Isa isa, const PackedMatrix& w, std::int64_t panel, std::int64_t panels,
                                        const PackedInput& input, const Adapted& adapted, std::int64_t first,
                                        std::int64_t rows, Bump scratch, const Then& then) {
  const PackedPart* part = w.parts.data();
  for (; panel >= part->rows.panels(); ++part) panel -= part->rows.panels();
  panels = std::min(panels, part->rows.panels() - panel);
  float* const inner = scratch.take(panel_scratch_floats);
  float* const a = scratch.take(panels * rows * panel_rows);
  float* const b = scratch.take(panels * rows * panel_rows);
  const auto number = static_cast<std::size_t>(part - w.parts.data());
  multiply(isa, w, number, panel, panels, input, adapted, first, rows, inner, a);
  if (then.kind == Then::Kind::gate) multiply(isa, w, 1, panel, panels, input, adapted, first, rows, inner, b);
  const std::int64_t row = panel * panel_rows, count = std::min(panels * panel_rows, part->rows.rows - row);
  dispatch<Finish>(isa, then, first, rows, part->first + row, count, a, b);
  return panels;
}

inline std::int64_t weight_bytes(const PackedMatrix& w) {
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < w.count; ++i)
    bytes += static_cast<std::int64_t>(packed_bytes(w.parts[i].rows.format, w.parts[i].rows.rows, w.cols));
  return bytes;
}

/// Of one row. Every worker prepares it for itself: cheaper than waiting for one that does.
inline void multiply_one(const Cpu& q, const PackedMatrix& w, std::int64_t panels, const ProductInput& x,
                         const Then& then) {
  Stretches stretches(panels, q.at_once());
  parallel(q, q.at_once(), weight_bytes(w), [&](std::int64_t, int worker) {
    if (stretches.empty()) return;
    Bump scratch{q.scratch(worker)};
    const PackedInput input = bind_packed_input(scratch, w.forms(), 1, w.cols);
    float* buffer = scratch.take(w.cols);
    const float* row = input_row(q.isa(), x, w.cols, 0, buffer);
    pack_input(q.isa(), input, 0, row);
    const std::int64_t ranks = w.adapter_ranks(w.count);
    float* h = scratch.take(ranks);
    adapt_down(q.isa(), w, row, scratch.take(0), h);
    stretches.take(worker, together, [&](std::int64_t at, std::int64_t end) {
      while (at < end) at += multiply_and_finish(q.isa(), w, at, end - at, input, {h, ranks}, 0, 1, scratch, then);
    });
  });
}

inline void multiply_rows(const Cpu& q, const PackedMatrix& w, std::int64_t panels, std::int64_t rows,
                          const ProductInput& x, const Then& then, Bump temp) {
  using packed_parts::tile_multiple;
  const PackedInput input = bind_packed_input(temp, w.forms(), rows, w.cols);
  const std::int64_t tiles = (rows + tile_multiple - 1) / tile_multiple;
  const std::int64_t ranks = w.adapter_ranks(w.count);
  float* const h = q.shared();
  Stretches packing(tiles, q.at_once());
  parallel(q, q.at_once(), rows * w.cols * std::int64_t{sizeof(float)}, [&](std::int64_t, int worker) {
    packing.take(worker, 1, [&](std::int64_t tile, std::int64_t) {
      for (std::int64_t i = tile * tile_multiple; i < std::min(rows, (tile + 1) * tile_multiple); ++i) {
        Bump scratch{q.scratch(worker)};
        const float* row = input_row(q.isa(), x, w.cols, i, scratch.take(w.cols));
        pack_input(q.isa(), input, i, row);
        adapt_down(q.isa(), w, row, scratch.take(0), h + i * ranks);
      }
    });
  });
  // Some panels for each worker, of whole tiles. Blocks of rows alike in size, of whole tiles, too; as many as workers
  // if there are enough rows to be worth taking panels apart.
  const std::int64_t share = std::max<std::int64_t>(2, panels / (std::int64_t{8} * q.at_once()) / 2 * 2);
  const std::int64_t shares = (panels + share - 1) / share;
  const std::int64_t least = (rows + row_block - 1) / row_block;
  const std::int64_t number = std::max(least, std::min<std::int64_t>(q.at_once(), rows / least_row_block));
  const std::int64_t block = (tiles + number - 1) / number * tile_multiple, blocks = (rows + block - 1) / block;
  Stretches products(shares * blocks, q.at_once());
  parallel(q, q.at_once(), weight_bytes(w) * rows, [&](std::int64_t, int worker) {
    products.take(worker, 1, [&](std::int64_t index, std::int64_t) {
      const std::int64_t first = index / shares * block, at = index % shares * share;
      const std::int64_t end = std::min(at + share, panels);
      for (std::int64_t p = at; p < end;)
        p += multiply_and_finish(q.isa(), w, p, std::min(end - p, together_for_rows), input, {h, ranks}, first,
                                 std::min(block, rows - first), Bump{q.scratch(worker)}, then);
    });
  });
}

}  // namespace product_parts

CHIMERA_FUNCTION void product(const Cpu& q, const PackedMatrix& w, std::int64_t rows, const ProductInput& x,
                              const Then& then, Bump temp) {
  std::int64_t panels = 0;
  for (std::size_t i = 0; i < (then.kind == Then::Kind::gate ? 1 : w.count); ++i) panels += w.parts[i].rows.panels();
  if (rows == 1)
    product_parts::multiply_one(q, w, panels, x, then);
  else
    product_parts::multiply_rows(q, w, panels, rows, x, then, temp);
}

CHIMERA_FUNCTION void gate_product(const Cpu& q, const float* w, std::int64_t n, std::int64_t cols, std::int64_t rows,
                                   const ProductInput& x, float* y) {
  parallel(q, rows, rows * n * cols * std::int64_t{sizeof(float)}, [&](std::int64_t i, int worker) {
    Bump scratch{q.scratch(worker)};
    const float* row = product_parts::input_row(q.isa(), x, cols, i, scratch.take(cols));
    gemm_serial(q.isa(), scratch.take(0), 1, n, cols, 1.f, row_major(row, cols), transposed(w, cols), 0.f, y + i * n,
                n);
  });
}

CHIMERA_FUNCTION void embed(const Cpu& q, std::int64_t rows, const std::int32_t* tokens, float scale,
                            const PackedMatrix& table, float* x) {
  const PackedPart& part = table.parts[0];
  parallel_rows(q, rows, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      unpack_row(part.rows, tokens[t], scale * part.scale, x + t * table.cols);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
