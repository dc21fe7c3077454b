// Rows of activations as packed weights multiply them: f32, or signed bytes with a scale for each 32 or 256 numbers.
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace chimera::inline CHIMERA_ABI {

/// A set of forms.
enum class InputForms : std::uint8_t { none = 0, f32 = 1, blocks_of_32 = 2, blocks_of_256 = 4 };

constexpr InputForms operator|(InputForms a, InputForms b) {
  return static_cast<InputForms>(static_cast<int>(a) | static_cast<int>(b));
}
constexpr bool contains(InputForms set, InputForms form) {
  return (static_cast<int>(set) & static_cast<int>(form)) != 0;
}

/// The form that weights of a format multiply.
constexpr InputForms input_forms(Format format) {
  switch (format) {
    case Format::q4_0:
    case Format::q4_1:
    case Format::q5_0:
    case Format::q5_1:
    case Format::q8_0:
    case Format::q4_k:
    case Format::q5_k:
    case Format::q6_k: return InputForms::blocks_of_32;
    case Format::tq1_0:
    case Format::tq2_0: return InputForms::blocks_of_256;
    default: return InputForms::f32;
  }
}

namespace packed_parts {

/// 32 numbers of a row: x = scale 2^e q. Words of 32 bits: the q, four a word; then what kernels make of them for
/// themselves (`Ops`): words of the sums of 16 q each, of all that have this e (in the first unit of these), and of
/// 2^e; then 2^e times the sum of the unit's q as f32.
inline constexpr int input_sums16 = 8, input_sums = 10, input_scale = 11, input_sum = 12, input_words = 13;

/// So many rows lie one after another; of more, the units of a tile's rows lie side by side.
inline constexpr std::int64_t most_single_rows = 8;
/// Whole tiles of any level.
inline constexpr std::int64_t tile_multiple = 12;
/// Single rows whose codes are taken apart together.
inline constexpr int few_rows = 4;

}  // namespace packed_parts

/// What `multiply_panels` uses of a worker's private memory.
inline constexpr std::int64_t panel_scratch_floats = 8192;

/// Rows of activations in the forms that were asked for. Bytes have one scale for a row, and a power of two beside it
/// for each 32 or 256 numbers.
struct PackedInput {
  InputForms forms = InputForms::none;
  std::int64_t rows = 0, cols = 0;
  float* floats = nullptr;                // [rows, stride()]
  float* scales = nullptr;                // [padded_rows()]
  std::int32_t* blocks_of_32 = nullptr;   // [rows, cols / 32, input_words], or [tiles, cols / 32, tile, input_words]
  std::int32_t* blocks_of_256 = nullptr;  // the same, eight units having one power of two

  /// A cache line more than the numbers take: rows that lie a power of two apart would share one set of the cache.
  constexpr std::int64_t stride() const {
    return static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(cols))) + 16;
  }
  constexpr const std::int32_t* units(InputForms form) const {
    return form == InputForms::blocks_of_256 ? blocks_of_256 : blocks_of_32;
  }
  constexpr bool tiled() const { return rows > packed_parts::most_single_rows; }
  /// Of rows, with those that fill the last tile.
  constexpr std::int64_t padded_rows() const {
    using packed_parts::tile_multiple;
    return tiled() ? (rows + tile_multiple - 1) / tile_multiple * tile_multiple : rows;
  }
  constexpr std::int64_t unit_words() const { return padded_rows() * (cols / 32) * packed_parts::input_words; }
};

inline constexpr InputForms all_input_forms = InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256;

/// Bytes of `rows` rows in these forms.
constexpr std::int64_t packed_input_bytes(InputForms forms, std::int64_t rows, std::int64_t cols) {
  const PackedInput x{.rows = rows, .cols = cols};
  const auto asked = [&](InputForms some, std::int64_t bytes) { return contains(forms, some) ? bytes : 0; };
  const std::int64_t units = bytes_of<std::int32_t>({x.unit_words()});
  return asked(InputForms::f32, bytes_of({rows * x.stride()})) + asked(InputForms::blocks_of_32, units) +
         asked(InputForms::blocks_of_256, units) +
         asked(InputForms::blocks_of_32 | InputForms::blocks_of_256, bytes_of({x.padded_rows()}));
}

/// Takes packed_input_bytes of memory.
inline PackedInput bind_packed_input(Bump& memory, InputForms forms, std::int64_t rows, std::int64_t cols) {
  PackedInput x{.forms = forms, .rows = rows, .cols = cols};
  if (contains(forms, InputForms::f32)) x.floats = memory.take(rows * x.stride());
  if (contains(forms, InputForms::blocks_of_32)) x.blocks_of_32 = memory.take<std::int32_t>(x.unit_words());
  if (contains(forms, InputForms::blocks_of_256)) x.blocks_of_256 = memory.take<std::int32_t>(x.unit_words());
  if (contains(forms, InputForms::blocks_of_32 | InputForms::blocks_of_256)) x.scales = memory.take(x.padded_rows());
  return x;
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace packed_parts {

/// The least e, -20 ... 0, with 127 2^e >= x, where 127 is the largest magnitude of a row.
CHIMERA_INLINE Ints<4> input_exponent(const Vec<4>& x) {
  const Ints<4> e = ((bits_of<4>(x * Vec<4>(1.f / 127.f)) + 0x7fffff) >> 23) - 127;
  return max(min(e, Ints<4>(0)), Ints<4>(-20));
}
/// The bits of 2^e.
CHIMERA_INLINE Ints<4> power_of_two(const Ints<4>& e) { return (e + 127) << 23; }

}  // namespace packed_parts

}  // namespace chimera::inline CHIMERA_ABI
#endif
