// Products with weights in a file's own format, packed in panels of 16 rows, and activations that are packed on
// the fly.
//
//   layout.hpp   panels: layouts, packing, one row back
//   input.hpp    activations: forms, memory
//   loops.hpp    the kernels, for the instructions ("Ops") of each level: base, avx2, avx512, vnni, neon.hpp
//   bf16.hpp     a kernel of its own, for BF16 weights
//   product.hpp  products as layers ask for them
//
// Accuracy: activations become signed bytes with one scale for each 32 numbers, or 256 for the K formats and the
// ternary ones, which is what llama.cpp multiplies these formats with. Products and their sums are exact in integers;
// blocks are added in f32. F32, F16 and BF16 weights multiply f32; at the level avx512_bf16 x is rounded to BF16 for
// BF16 weights.
//
// The result for a row of weights and a row of x has the same bits however many rows are multiplied together.
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/isa.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/packed/avx2.hpp>
#include <chimera/kernels/packed/avx512.hpp>
#include <chimera/kernels/packed/base.hpp>
#include <chimera/kernels/packed/bf16.hpp>
#include <chimera/kernels/packed/input.hpp>
#include <chimera/kernels/packed/layout.hpp>
#include <chimera/kernels/packed/neon.hpp>
#include <chimera/kernels/packed/vnni.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera::inline CHIMERA_ABI {

/// Rows of one format in panels of 16, the last padded with zeros. Only formats of `holds_weights`.
struct PackedRows {
  Format format = Format::f32;
  std::int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;  // 64-byte aligned

  std::int64_t panels() const { return (rows + panel_rows - 1) / panel_rows; }
};

/// Of one panel; a multiple of 64. `cols` are whole blocks of the format.
std::size_t panel_bytes(Format format, std::int64_t cols);
std::size_t packed_bytes(Format format, std::int64_t rows, std::int64_t cols);

/// Packs `count` rows, at most 16, of the file's layout as one panel; row r lies at rows[r].
void pack_panel(Format format, std::int64_t cols, const std::byte* const* rows, std::int64_t count, std::byte* panel);

/// y [cols] = scale * row: what `decode` of block_formats.hpp gives, bit for bit, times scale.
void unpack_row(const PackedRows& w, std::int64_t row, float scale, float* y);

/// Quantizes x [cols] as one row of the input. Rows may come in any order, and from several threads.
void pack_input(Isa isa, const PackedInput& input, std::int64_t row, const float* x);

/// What `multiply_panels` uses of a worker's private memory.
inline constexpr std::int64_t panel_scratch_floats = 8192;

/// out [panels][count][16] = rows first ... first + count - 1 of the input times some panels, from `panel` on. `isa` is
/// the one that packed the input; w.cols == x.cols.
void multiply_panels(Isa isa, const PackedRows& w, std::int64_t panel, std::int64_t panels, const PackedInput& x,
                     std::int64_t first, std::int64_t count, float* scratch, float* out);

/// Rows first .. first + rows.rows - 1 of a matrix, multiplied by `scale`.
struct PackedPart {
  PackedRows rows;
  std::int64_t first = 0;
  float scale = 1.f;
};

/// A matrix [rows, cols] whose rows may come in several formats: q, k and v of one layer.
struct PackedMatrix {
  std::array<PackedPart, 2 * Tensor::most_parts> parts;  // twice a weight's, for two that are joined
  std::size_t count = 0;
  std::int64_t rows = 0, cols = 0;

  /// The rows of a, and those of b below them. Both are weights, and not joined themselves.
  static PackedMatrix joined(const PackedMatrix& a, const PackedMatrix& b) {
    PackedMatrix both = a;
    for (std::size_t i = 0; i < b.count; ++i) {
      PackedPart& part = both.parts[both.count++] = b.parts[i];
      part.first += a.rows;
    }
    both.rows += b.rows;
    return both;
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

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace packed_parts {

/// The kernels of a level. One that has none of its own takes those of the best level below.
#if defined(__aarch64__)
template <Isa>
struct KernelsOf : packed_neon::Kernels {};
template <>
struct KernelsOf<Isa::dotprod> : packed_dotprod::Kernels {};
#else
template <Isa>
struct KernelsOf : packed_base::Kernels {};
#endif
#if defined(__x86_64__)
template <>
struct KernelsOf<Isa::avx2> : packed_avx2::Kernels {};
template <>
struct KernelsOf<Isa::avx_vnni> : packed_avx_vnni::Kernels {};
template <>
struct KernelsOf<Isa::avx512> : packed_avx512::Kernels {};
template <>
struct KernelsOf<Isa::avx512_vnni> : packed_avx512_vnni::Kernels {};
template <>
struct KernelsOf<Isa::avx512_bf16> : packed_avx512_bf16::Kernels {};
#endif

/// f(kernels) with the kernels of that level, or of the only one that is compiled.
template <class F>
void with_kernels([[maybe_unused]] Isa isa, F&& f) {
#if defined(CHIMERA_ISA)
  f(KernelsOf<Isa::CHIMERA_ISA>());
#else
  switch (isa) {
    case Isa::base: return f(KernelsOf<Isa::base>());
    case Isa::dotprod: return f(KernelsOf<Isa::dotprod>());
    case Isa::avx2: return f(KernelsOf<Isa::avx2>());
    case Isa::avx_vnni: return f(KernelsOf<Isa::avx_vnni>());
    case Isa::avx512: return f(KernelsOf<Isa::avx512>());
    case Isa::avx512_vnni: return f(KernelsOf<Isa::avx512_vnni>());
    case Isa::avx512_bf16: return f(KernelsOf<Isa::avx512_bf16>());
  }
#endif
}

}  // namespace packed_parts

CHIMERA_FUNCTION std::size_t panel_bytes(Format format, std::int64_t cols) {
  return packed_parts::with_layout(format, [cols](auto layout) {
    using L = decltype(layout);
    const auto blocks = static_cast<std::size_t>((cols + L::values - 1) / L::values);
    return (blocks * L::bytes + 63) / 64 * 64;
  });
}

CHIMERA_FUNCTION std::size_t packed_bytes(Format format, std::int64_t rows, std::int64_t cols) {
  return static_cast<std::size_t>((rows + panel_rows - 1) / panel_rows) * panel_bytes(format, cols);
}

CHIMERA_FUNCTION void pack_panel(Format format, std::int64_t cols, const std::byte* const* rows, std::int64_t count,
                                 std::byte* panel) {
  std::memset(panel, 0, panel_bytes(format, cols));
  packed_parts::with_layout(format, [&](auto layout) {
    for (std::int64_t r = 0; r < count; ++r) packed_parts::pack_row<decltype(layout)>(format, cols, rows[r], r, panel);
  });
}

CHIMERA_FUNCTION void unpack_row(const PackedRows& w, std::int64_t row, float scale, float* y) {
  const auto panel = static_cast<std::size_t>(row / panel_rows);
  const std::byte* at = w.data + panel * panel_bytes(w.format, w.cols);
  packed_parts::with_layout(w.format, [&](auto layout) {
    packed_parts::unpack_row<decltype(layout)>(at, w.cols, row % panel_rows, scale, y);
  });
}

CHIMERA_FUNCTION void pack_input(Isa isa, const PackedInput& input, std::int64_t row, const float* x) {
  packed_parts::with_kernels(isa, [&](auto kernels) { kernels.pack_input(input, row, x); });
}

CHIMERA_FUNCTION void multiply_panels(Isa isa, const PackedRows& w, std::int64_t panel, std::int64_t panels,
                                      const PackedInput& x, std::int64_t first, std::int64_t count, float* scratch,
                                      float* out) {
  const std::size_t bytes = panel_bytes(w.format, w.cols);
  const std::byte* at = w.data + static_cast<std::size_t>(panel) * bytes;
  packed_parts::with_layout(w.format, [&](auto layout) {
    packed_parts::with_kernels(isa, [&](auto kernels) {
      for (std::int64_t p = 0; p < panels; ++p, at += bytes, out += count * panel_rows)
        kernels.template multiply<decltype(layout)>(at, x, first, count, scratch, out);
    });
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
