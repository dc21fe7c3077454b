// Decoding: what layers are told of a pass over some tokens, and products with packed weights.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/cached/kv_cache.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/packed/matrix.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chimera::inline CHIMERA_ABI {

/// Rows first .. first + rows.rows - 1 of a matrix, multiplied by `scale`.
struct PackedPart {
  PackedRows rows;
  std::int64_t first = 0;
  float scale = 1.f;
};

/// A matrix [rows, cols] whose rows may come in several formats: q, k and v of one layer.
struct PackedMatrix {
  std::array<PackedPart, Tensor::most_parts> parts;
  std::size_t count = 0;
  std::int64_t rows = 0, cols = 0;

  /// One part as a matrix of its own.
  PackedMatrix part(std::size_t i) const {
    PackedPart p = parts[i];
    p.first = 0;
    return {{p}, 1, p.rows.rows, cols};
  }
  /// Some panels of the first part, as a matrix of their own.
  PackedMatrix panels(std::int64_t first, std::int64_t number) const {
    PackedPart p = parts[0];
    p.first = 0;
    p.rows.data += static_cast<std::size_t>(first) * panel_bytes(p.rows.format, cols);
    p.rows.rows = std::min(number * panel_rows, p.rows.rows - first * panel_rows);
    return {{p}, 1, p.rows.rows, cols};
  }
  InputForms forms() const {
    InputForms all{};
    for (std::size_t i = 0; i < count; ++i) all = all | input_forms(parts[i].rows.format);
    return all;
  }
};

/// One weight of a packed model: a matrix, or f32 as they lie in the arena.
struct PackedTensor {
  PackedMatrix matrix;
  const float* values = nullptr;
};

/// A layer's weights. The taps of a convolution (Role::taps) lie transposed here: [taps, channels].
template <class Layer>
struct PackedWeights {
  const PackedTensor* tensors;

  const PackedMatrix& matrix(std::size_t param) const { return tensors[param].matrix; }
  const float* vector(std::size_t param) const { return tensors[param].values; }
};

/// What a layer reads: the residual stream x [rows, width], normalised.
struct NormedRows {
  const float* x;
  std::int64_t width;
  const float* weight;
  float eps;

  /// Row t, computed into buffer [width].
  const float* row(Isa isa, std::int64_t t, float* buffer) const {
    dispatch<RmsNorm>(isa, NormShape{1, width, width, eps}, x + t * width, static_cast<const float*>(nullptr),
                      std::int64_t{0}, weight, buffer);
    return buffer;
  }
};

namespace decode_parts {

inline constexpr std::int64_t row_block = 128;  // rows of a pass that one task multiplies: they fit the second cache

/// Panels that are multiplied at once with one row, and with several: so much of each row's results is written together.
inline constexpr std::int64_t together = 8, together_for_rows = 4;

/// What a product asks of its layer, as functions and what they work on: the loops below are compiled once, and not for
/// every layer of every config.
struct Steps {
  void* self;
  const float* (*prepare)(void* self, std::int64_t t, float* buffer);
  void (*finish)(void* self, std::int64_t t, std::int64_t first, std::int64_t count, const float* a, const float* b);
};

/// Results [panels][rows][panel_rows] for rows first ..
inline void multiply(Isa isa, const PackedPart& part, std::int64_t panel, std::int64_t panels, const PackedInput& input,
                     std::int64_t first, std::int64_t rows, float* scratch, float* out) {
  multiply_panels(isa, part.rows, panel, panels, input, first, rows, scratch, out);
  if (part.scale != 1.f)
    for (std::int64_t i = 0; i < panels * rows * panel_rows; ++i) out[i] *= part.scale;
}

/// Panels of a, and of b if there is one, times rows first .. of the input. Fewer panels than asked for if a part of the
/// matrix ends: as many as it returns.
inline std::int64_t multiply_and_finish(Isa isa, const PackedMatrix& a, const PackedMatrix* b, std::int64_t panel,
                                        std::int64_t panels, const PackedInput& input, std::int64_t first,
                                        std::int64_t rows, float* scratch, const Steps& steps) {
  const PackedPart* part = a.parts.data();
  for (; panel >= part->rows.panels(); ++part) panel -= part->rows.panels();
  panels = std::min(panels, part->rows.panels() - panel);
  const std::int64_t floats = panels * rows * panel_rows;
  float* const of_a = scratch + panel_scratch_floats;
  float* const of_b = of_a + floats;
  multiply(isa, *part, panel, panels, input, first, rows, scratch, of_a);
  if (b) multiply(isa, b->parts[0], panel, panels, input, first, rows, scratch, of_b);
  // What lies side by side in a row's results is finished together: for one row all panels.
  const std::int64_t width = rows == 1 ? panels * panel_rows : panel_rows;
  for (std::int64_t t = 0; t < rows; ++t)
    for (std::int64_t at = 0; at < panels * panel_rows; at += width) {
      const std::int64_t row = panel * panel_rows + at, from = at * rows + t * panel_rows;
      steps.finish(steps.self, first + t, part->first + row, std::min(width, part->rows.rows - row), of_a + from,
                   of_b + from);
    }
  return panels;
}

/// Panels that lie together in memory: a worker that reads them one after another finds them fetched ahead.
struct alignas(64) Stretch {
  std::atomic<std::int64_t> next;
  std::int64_t end;

  std::int64_t left() const { return end - next.load(std::memory_order_relaxed); }
};
inline constexpr int max_stretches = 16;  // more workers share them

/// `b`, if given, has one part as a has, of the same shape.
inline void run_product(const Cpu& q, const PackedMatrix& a, const PackedMatrix* b, std::int64_t rows,
                        const Steps& steps, Bump temp) {
  const InputForms forms = b ? a.forms() | b->forms() : a.forms();
  std::int64_t panels = 0;
  for (std::size_t i = 0; i < a.count; ++i) panels += a.parts[i].rows.panels();
  if (rows == 1) {  // every worker prepares the row for itself: cheaper than waiting for one that does
    const int count = std::min(q.threads(), max_stretches);
    Stretch stretches[max_stretches];
    for (int i = 0; i < count; ++i) {
      stretches[i].next.store(panels * i / count, std::memory_order_relaxed);
      stretches[i].end = panels * (i + 1) / count;
    }
    parallel(q, q.threads(), [&](std::int64_t index, int worker) {
      if (std::all_of(stretches, stretches + count, [](const Stretch& s) { return s.left() == 0; })) return;
      Bump scratch{q.scratch(worker)};
      const PackedInput input = bind_packed_input(scratch, forms, 1, a.cols);
      float* buffer = scratch.take(a.cols);
      pack_input(q.isa(), input, 0, steps.prepare(steps.self, 0, buffer));
      for (int i = 0; i < count; ++i) {  // its own stretch first, then what is left of others'
        Stretch& stretch = stretches[(index + i) % count];
        for (std::int64_t at = stretch.next.load(std::memory_order_relaxed); at < stretch.end;) {
          // Single panels in the end, so that nobody waits for long.
          const std::int64_t end = at + std::clamp<std::int64_t>((stretch.end - at) / 2, 1, together);
          if (!stretch.next.compare_exchange_weak(at, end, std::memory_order_relaxed)) continue;
          while (at < end) at += multiply_and_finish(q.isa(), a, b, at, end - at, input, 0, 1, scratch.take(0), steps);
          at = stretch.next.load(std::memory_order_relaxed);
        }
      }
    });
    return;
  }
  const PackedInput input = bind_packed_input(temp, forms, rows, a.cols);
  parallel(q, rows, [&](std::int64_t t, int worker) {
    pack_input(q.isa(), input, t, steps.prepare(steps.self, t, q.scratch(worker)));
  });
  const std::int64_t share = std::max<std::int64_t>(1, panels / (std::int64_t{8} * q.threads()));
  const std::int64_t shares = (panels + share - 1) / share, blocks = (rows + row_block - 1) / row_block;
  parallel(q, shares * blocks, [&](std::int64_t index, int worker) {
    // The row blocks of a share follow each other: its weights are in the caches then.
    const std::int64_t first = index % blocks * row_block, at = index / blocks * share;
    const std::int64_t end = std::min(at + share, panels);
    for (std::int64_t p = at; p < end;)
      p += multiply_and_finish(q.isa(), a, b, p, std::min(end - p, together_for_rows), input, first,
                               std::min(row_block, rows - first), q.scratch(worker), steps);
  });
}

}  // namespace decode_parts

/// Floats of `temp` that a product of `rows` inputs [cols] uses at most: with weights of formats that want all forms.
inline std::int64_t product_floats(std::int64_t rows, std::int64_t cols) {
  if (rows == 1) return 0;
  Bump memory;
  bind_packed_input(memory, InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256, rows, cols);
  return static_cast<std::int64_t>(memory.used);
}

/// For every row t and every panel of w, in parallel: finish(t, first, count, values) with values [count] = rows
/// first .. of w times the row that prepare(t, buffer [cols]) returns. `prepare` may be called several times for a row, by
/// any worker, and only reads what is shared; `finish` is called once for each (t, panel).
template <class Prepare, class Finish>
void product(const Cpu& q, const PackedMatrix& w, std::int64_t rows, Prepare prepare, Finish finish, Bump temp) {
  struct Both {
    Prepare& prepare;
    Finish& finish;
  } both{prepare, finish};
  decode_parts::run_product(q, w, nullptr, rows,
                            {&both,
                             [](void* self, std::int64_t t, float* buffer) -> const float* {
                               return static_cast<Both*>(self)->prepare(t, buffer);
                             },
                             [](void* self, std::int64_t t, std::int64_t first, std::int64_t count, const float* values,
                                const float*) { static_cast<Both*>(self)->finish(t, first, count, values); }},
                            temp);
}

/// y [rows, w.rows] = the products.
template <class Prepare>
void project(const Cpu& q, const PackedMatrix& w, std::int64_t rows, Prepare prepare, float* y, Bump temp) {
  product(
      q, w, rows, prepare,
      [&](std::int64_t t, std::int64_t first, std::int64_t count, const float* values) {
        std::copy_n(values, count, y + t * w.rows + first);
      },
      temp);
}

/// y [rows, w.rows] += scale * the products.
template <class Prepare>
void add_projection(const Cpu& q, const PackedMatrix& w, std::int64_t rows, Prepare prepare, float scale, float* y,
                    Bump temp) {
  product(
      q, w, rows, prepare,
      [&](std::int64_t t, std::int64_t first, std::int64_t count, const float* values) {
        dispatch<AddScaled>(q.isa(), count, scale, values, y + t * w.rows + first);
      },
      temp);
}

/// As `product` for two matrices of one shape, each of one part, whose results belong together:
/// finish(t, first, count, values of a, values of b).
template <class Prepare, class Finish>
void paired_product(const Cpu& q, const PackedMatrix& a, const PackedMatrix& b, std::int64_t rows, Prepare prepare,
                    Finish finish, Bump temp) {
  struct Both {
    Prepare& prepare;
    Finish& finish;
  } both{prepare, finish};
  decode_parts::run_product(q, a, &b, rows,
                            {&both,
                             [](void* self, std::int64_t t, float* buffer) -> const float* {
                               return static_cast<Both*>(self)->prepare(t, buffer);
                             },
                             [](void* self, std::int64_t t, std::int64_t first, std::int64_t count, const float* x,
                                const float* y) { static_cast<Both*>(self)->finish(t, first, count, x, y); }},
                            temp);
}

}  // namespace chimera::inline CHIMERA_ABI
