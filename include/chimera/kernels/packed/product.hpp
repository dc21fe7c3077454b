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
  /// outputs[i].logits[first ...] = scale r
  static Then logits(const Output* outputs, std::int64_t first, float scale) {
    return {.kind = Kind::logits, .scale = scale, .outputs = outputs, .first = first};
  }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace product_parts {

inline constexpr std::int64_t row_block = 252;  // rows that one task multiplies: whole tiles of any level

/// Panels that are multiplied at once with one row, and with several: so much of each row's results is
/// written together.
inline constexpr std::int64_t together = 8, together_for_rows = 4;

/// Panels that lie together in memory: a worker that reads them one after another finds them fetched ahead.
struct alignas(64) Stretch {
  std::atomic<std::int64_t> next;
  std::int64_t end;

  std::int64_t left() const { return end - next.load(std::memory_order_relaxed); }
};

inline constexpr int max_stretches = 16;  // more workers share them

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

/// Multiplies `rows` rows of x [cols] with the matrix w [rows, cols].
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

/// `count` results of row i, `first` being the row of the matrix; of both parts for a gate.
inline void finish(Isa isa, const Then& then, std::int64_t i, std::int64_t first, std::int64_t count, const float* a,
                   const float* b) {
  const bool is_logits = then.kind == Then::Kind::logits;
  float* const y = first + (is_logits ? then.outputs[i].logits + then.first : then.y + i * then.stride);
  switch (then.kind) {
    case Then::Kind::store:
      std::copy_n(a, count, y);
      if (then.bias) dispatch<AddScaled>(isa, count, 1.f, then.bias + first, y);
      return;
    case Then::Kind::gate: return dispatch<SiluGate>(isa, count, a, b, y);
    case Then::Kind::logits: return dispatch<Scaled>(isa, count, then.scale, a, y);
    case Then::Kind::add:
      dispatch<AddScaled>(isa, count, then.scale, a, y);
      if (then.bias) dispatch<AddScaled>(isa, count, then.scale, then.bias + first, y);
  }
}

/// Results [panels][rows][panel_rows] for rows first ..
inline void multiply(Isa isa, const PackedPart& part, std::int64_t panel, std::int64_t panels, const PackedInput& input,
                     std::int64_t first, std::int64_t rows, float* scratch, float* out) {
  multiply_panels(isa, part.rows, panel, panels, input, first, rows, scratch, out);
  if (part.scale != 1.f)
    for (std::int64_t i = 0; i < panels * rows * panel_rows; ++i) out[i] *= part.scale;
}

/// Some panels, of a gate's two parts both, times rows first .. of the input. Fewer panels than asked for if a part of
/// the matrix ends: as many as it returns.
inline std::int64_t multiply_and_finish(Isa isa, const PackedMatrix& w, std::int64_t panel, std::int64_t panels,
                                        const PackedInput& input, std::int64_t first, std::int64_t rows, Bump scratch,
                                        const Then& then) {
  const PackedPart* part = w.parts.data();
  for (; panel >= part->rows.panels(); ++part) panel -= part->rows.panels();
  panels = std::min(panels, part->rows.panels() - panel);
  float* const inner = scratch.take(panel_scratch_floats);
  float* const a = scratch.take(panels * rows * panel_rows);
  float* const b = scratch.take(panels * rows * panel_rows);
  multiply(isa, *part, panel, panels, input, first, rows, inner, a);
  if (then.kind == Then::Kind::gate) multiply(isa, w.parts[1], panel, panels, input, first, rows, inner, b);
  // What lies side by side in a row's results is finished together: for one row all panels.
  const std::int64_t width = rows == 1 ? panels * panel_rows : panel_rows;
  for (std::int64_t t = 0; t < rows; ++t)
    for (std::int64_t at = 0; at < panels * panel_rows; at += width) {
      const std::int64_t row = panel * panel_rows + at, from = at * rows + t * panel_rows;
      finish(isa, then, first + t, part->first + row, std::min(width, part->rows.rows - row), a + from, b + from);
    }
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
  const int count = std::min(q.at_once(), max_stretches);
  Stretch stretches[max_stretches];
  for (int i = 0; i < count; ++i) {
    stretches[i].next.store(panels * i / count, std::memory_order_relaxed);
    stretches[i].end = panels * (i + 1) / count;
  }
  parallel(q, q.at_once(), weight_bytes(w), [&](std::int64_t index, int worker) {
    if (std::all_of(stretches, stretches + count, [](const Stretch& s) { return s.left() == 0; })) return;
    Bump scratch{q.scratch(worker)};
    const PackedInput input = bind_packed_input(scratch, w.forms(), 1, w.cols);
    float* buffer = scratch.take(w.cols);
    pack_input(q.isa(), input, 0, input_row(q.isa(), x, w.cols, 0, buffer));
    for (int i = 0; i < count; ++i) {  // its own stretch first, then what is left of others'
      Stretch& stretch = stretches[(index + i) % count];
      for (std::int64_t at = stretch.next.load(std::memory_order_relaxed); at < stretch.end;) {
        // Single panels in the end, so that nobody waits for long.
        const std::int64_t end = at + std::clamp<std::int64_t>((stretch.end - at) / 2, 1, together);
        if (!stretch.next.compare_exchange_weak(at, end, std::memory_order_relaxed)) continue;
        while (at < end) at += multiply_and_finish(q.isa(), w, at, end - at, input, 0, 1, scratch, then);
        at = stretch.next.load(std::memory_order_relaxed);
      }
    }
  });
}

inline void multiply_rows(const Cpu& q, const PackedMatrix& w, std::int64_t panels, std::int64_t rows,
                          const ProductInput& x, const Then& then, Bump temp) {
  const PackedInput input = bind_packed_input(temp, w.forms(), rows, w.cols);
  parallel(q, rows, rows * w.cols * std::int64_t{sizeof(float)}, [&](std::int64_t i, int worker) {
    pack_input(q.isa(), input, i, input_row(q.isa(), x, w.cols, i, q.scratch(worker)));
  });
  const std::int64_t share = std::max<std::int64_t>(1, panels / (std::int64_t{8} * q.at_once()));
  const std::int64_t shares = (panels + share - 1) / share, blocks = (rows + row_block - 1) / row_block;
  parallel(q, shares * blocks, weight_bytes(w) * rows, [&](std::int64_t index, int worker) {
    // The row blocks of a share follow each other: its weights are in the caches then.
    const std::int64_t first = index % blocks * row_block, at = index / blocks * share;
    const std::int64_t end = std::min(at + share, panels);
    for (std::int64_t p = at; p < end;)
      p += multiply_and_finish(q.isa(), w, p, std::min(end - p, together_for_rows), input, first,
                               std::min(row_block, rows - first), Bump{q.scratch(worker)}, then);
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
