// Products with weights in a file's own format, packed in panels of 16 rows, and activations that are packed on
// the fly.
//
//   layout.hpp   panels: layouts, packing, one row back
//   input.hpp    activations: forms, memory
//   loops.hpp    the kernels, for the instructions ("Ops") of each level: base, avx2, avx512, vnni, neon.hpp
//   bf16.hpp     a kernel of its own, for BF16 weights
//   product.hpp  products as layers ask for them
//
// Accuracy: activations become signed bytes with one scale for a row and a power of two for each 32 numbers, or 256 for
// the ternary formats. So they are as local as llama.cpp's, whose scale is a number of its own. Products and their sums
// are exact in integers; runs of one scale are added in f32. F32, F16 and BF16 weights multiply f32; at the level
// avx512_bf16 x is rounded to BF16 for BF16 weights.
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

/// out [panels][count][16] = rows first ... first + count - 1 of the input times some panels, from `panel` on. `isa` is
/// the one that packed the input; w.cols == x.cols.
void multiply_panels(Isa isa, const PackedRows& w, std::int64_t panel, std::int64_t panels, const PackedInput& x,
                     std::int64_t first, std::int64_t count, float* scratch, float* out);

/// What is added to some rows of a matrix: b a x, in f32.
struct PackedAdapter {
  std::int64_t rank = 0;
  const float* a = nullptr;  // [rank, cols]
  const float* b = nullptr;  // [panels of the rows][rank][16]
};

/// Rows first .. first + rows.rows - 1 of a matrix, multiplied by `scale`.
struct PackedPart {
  PackedRows rows;
  std::int64_t first = 0;
  float scale = 1.f;
  const PackedAdapter* adapter = nullptr;

  std::int64_t rank() const { return adapter ? adapter->rank : 0; }
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
  /// Of what the adapters of its first parts make of a row, side by side.
  std::int64_t adapter_ranks(std::size_t before) const {
    std::int64_t ranks = 0;
    for (std::size_t i = 0; i < before; ++i) ranks += parts[i].rank();
    return ranks;
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
auto with_kernels([[maybe_unused]] Isa isa, F&& f) {
#if defined(CHIMERA_ISA)
  return f(KernelsOf<Isa::CHIMERA_ISA>());
#else
  switch (isa) {
    case Isa::base: break;
    case Isa::dotprod: return f(KernelsOf<Isa::dotprod>());
    case Isa::avx2: return f(KernelsOf<Isa::avx2>());
    case Isa::avx_vnni: return f(KernelsOf<Isa::avx_vnni>());
    case Isa::avx512: return f(KernelsOf<Isa::avx512>());
    case Isa::avx512_vnni: return f(KernelsOf<Isa::avx512_vnni>());
    case Isa::avx512_bf16: return f(KernelsOf<Isa::avx512_bf16>());
  }
  return f(KernelsOf<Isa::base>());
#endif
}

/// The kernels of a format at a level: of codes, or of numbers.
struct FormatKernels {
  const CodeKernels* codes = nullptr;
  const NumberKernels* numbers = nullptr;
};
inline FormatKernels kernels_of(Isa isa, Format format) {
  return with_layout(format, [&](auto layout) {
    return with_kernels(isa, [](auto kernels) -> FormatKernels {
      using L = decltype(layout);
      if constexpr (has_codes<L>)
        return {.codes = &decltype(kernels)::template of<L>};
      else
        return {.numbers = &decltype(kernels)::template of<L>};
    });
  });
}

/// f(rows of sums [tile][16]) where they lie, or beside that if only `left` rows are there.
template <class F>
void with_room(std::int64_t tile, std::int64_t left, float* sums, F f) {
  constexpr std::int64_t most = 16;
  if (left >= tile) return f(sums);
  alignas(64) float some[most * panel_rows] = {};
  std::copy_n(sums, left * panel_rows, some);
  f(some);
  std::copy_n(some, left * panel_rows, sums);
}

/// One panel times rows that lie one after another.
inline void multiply_rows(const CodeKernels& k, const std::byte* w, const PackedInput& input, std::int64_t first,
                          std::int64_t count, float* out) {
  const std::int64_t blocks = input.cols / k.values, row = input.cols / 32 * input_words;
  const std::int32_t* x = input.units(k.form) + first * row;
  for (std::int64_t t = 0; t < count;) {
    const bool alone = k.few == nullptr || count - t == 1;
    const std::int32_t* rows[few_rows];
    for (std::int64_t i = 0; i < few_rows; ++i) rows[i] = x + std::min(t + i, count - 1) * row;
    if (alone)
      k.one(w, rows, blocks, out + t * panel_rows);
    else
      with_room(few_rows, count - t, out + t * panel_rows, [&](float* to) { k.few(w, rows, blocks, to); });
    t += alone ? 1 : few_rows;
  }
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t i = 0; i < panel_rows; ++i) out[t * panel_rows + i] *= input.scales[first + t];
}

/// Fetches lines first ... end - 1 of some memory into the second cache.
inline void fetch_lines(const std::byte* p, std::int64_t first, std::int64_t end) {
  for (std::int64_t i = first; i < end; ++i) __builtin_prefetch(p + i * line, 0, 2);
}

/// `panels` panels, at most those of a tile, times rows that lie in tiles. What is taken apart next is fetched meanwhile.
inline void multiply_tiles(const CodeKernels& k, const std::byte* w, std::int64_t panel, std::int64_t panels,
                           const PackedInput& input, std::int64_t first, std::int64_t count, float* scratch,
                           float* out) {
  const std::int64_t stride = count * panel_rows, row = input.cols / 32 * input_words,
                     step = code_depth / k.tile_panels;
  std::fill_n(out, panels * stride, 0.f);
  auto* bytes = reinterpret_cast<std::byte*>(scratch);
  for (std::int64_t at = 0; at < input.cols; at += step) {
    const std::int64_t depth = std::min(step, input.cols - at);
    for (int p = 0; p < k.tile_panels; ++p)
      k.take_apart(w + std::min<std::int64_t>(p, panels - 1) * panel + at / k.values * k.bytes, depth / k.values, p,
                   bytes);
    const bool last = at + step >= input.cols;
    const std::byte* const next = w + (last ? panels * panel : (at + step) / k.values * k.bytes);
    const std::int64_t all_lines = step / k.values * k.bytes / line;
    for (std::int64_t t = first / k.tokens * k.tokens; t < first + count; t += k.tokens) {
      for (int p = 0; p < k.tile_panels; ++p)
        fetch_lines(next + p * panel, all_lines * (t - first) / count, all_lines * (t + k.tokens - first) / count);
      const std::int32_t* x = input.units(k.form) + t * row + at / 32 * input_words * k.tokens;
      const std::int64_t from = std::max(t, first) - t, end = std::min<std::int64_t>(k.tokens, first + count - t);
      const float* const scales = last ? input.scales + t : nullptr;
      float* const sums = out + (t - first) * panel_rows;
      if (panels == k.tile_panels && from == 0 && end == k.tokens) {
        k.multiply(bytes, x, depth / 32, sums, stride, scales);
        continue;
      }
      constexpr std::int64_t most = 16;  // panels times rows of any tile
      alignas(64) float some[most * panel_rows] = {};
      const std::int64_t skipped = from * panel_rows, number = (end - from) * panel_rows, apart = k.tokens * panel_rows;
      for (std::int64_t p = 0; p < panels; ++p)
        std::copy_n(sums + p * stride + skipped, number, some + p * apart + skipped);
      k.multiply(bytes, x, depth / 32, some, apart, scales);
      for (std::int64_t p = 0; p < panels; ++p)
        std::copy_n(some + p * apart + skipped, number, sums + p * stride + skipped);
    }
  }
}

/// out [panels][count][16] = panels, `panel` bytes each, times rows first ... of the input.
inline void multiply(const CodeKernels& k, const std::byte* w, std::int64_t panel, std::int64_t panels,
                     const PackedInput& input, std::int64_t first, std::int64_t count, float* scratch, float* out) {
  const std::int64_t step = input.tiled() ? k.tile_panels : 1;
  for (std::int64_t p = 0; p < panels; p += step, w += step * panel, out += step * count * panel_rows)
    if (input.tiled())
      multiply_tiles(k, w, panel, std::min(step, panels - p), input, first, count, scratch, out);
    else
      multiply_rows(k, w, input, first, count, out);
}
inline void multiply(const NumberKernels& k, const std::byte* w, std::int64_t panel, std::int64_t panels,
                     const PackedInput& input, std::int64_t first, std::int64_t count, float* scratch, float* out) {
  const std::int64_t stride = input.stride();
  const float* x = input.floats + first * stride;
  for (; panels > 0; --panels, w += panel, out += count * panel_rows) {
    if (k.whole) {
      k.whole(w, input, first, count, out);
      continue;
    }
    std::fill_n(out, count * panel_rows, 0.f);
    if (count <= 2) {
      for (std::int64_t t = 0; t < count; ++t) {
        const float* row = x + t * stride;
        k.one(w, &row, input.cols, out + t * panel_rows);
      }
      continue;
    }
    for (std::int64_t at = 0; at < input.cols; at += float_depth) {
      const std::int64_t depth = std::min(float_depth, input.cols - at);
      k.load(w + at / k.values * k.bytes, depth, scratch);
      for (std::int64_t t = 0; t < count; t += k.tokens) {
        const float* tile[16];
        for (std::int64_t i = 0; i < k.tokens; ++i) tile[i] = x + std::min(t + i, count - 1) * stride + at;
        with_room(k.tokens, count - t, out + t * panel_rows,
                  [&](float* acc) { k.multiply(reinterpret_cast<const std::byte*>(scratch), tile, depth, acc); });
      }
    }
  }
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
  const auto panel_size = static_cast<std::int64_t>(panel_bytes(w.format, w.cols));
  const std::byte* at = w.data + panel * panel_size;
  const packed_parts::FormatKernels kernels = packed_parts::kernels_of(isa, w.format);
  if (kernels.codes)
    packed_parts::multiply(*kernels.codes, at, panel_size, panels, x, first, count, scratch, out);
  else
    packed_parts::multiply(*kernels.numbers, at, panel_size, panels, x, first, count, scratch, out);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
