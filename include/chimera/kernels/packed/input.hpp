// Rows of activations as packed weights multiply them: f32, or signed bytes with a scale for each 32 or 256 numbers.
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstdint>

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
    case Format::q8_0: return InputForms::blocks_of_32;
    case Format::q4_k:
    case Format::q5_k:
    case Format::q6_k:
    case Format::tq1_0:
    case Format::tq2_0: return InputForms::blocks_of_256;
    default: return InputForms::f32;
  }
}

namespace packed_parts {

/// x = d q. A sum stands here with its sign changed, as a word that the level's kernels start from (`Ops::word`).
struct InputBlock32 {
  static constexpr std::int64_t values = 32;
  std::int8_t q[32];
  float d;
  float sum;               // d times the sum of q
  std::int32_t sums16[2];  // of each 16 q
  std::int32_t sums32[1];
};
struct InputBlock256 {
  static constexpr std::int64_t values = 256;
  std::int8_t q[256];
  float d;
  std::int32_t sums16[16], sums32[8], sums256[1];
};

}  // namespace packed_parts

/// Rows of activations in the forms that were asked for.
struct PackedInput {
  InputForms forms = InputForms::none;
  std::int64_t rows = 0, cols = 0;
  float* floats = nullptr;                               // [rows, stride()]
  packed_parts::InputBlock32* blocks_of_32 = nullptr;    // [rows, cols / 32]
  packed_parts::InputBlock256* blocks_of_256 = nullptr;  // [rows, cols / 256]

  /// A cache line more than the numbers take: rows that lie a power of two apart would share one set of the cache.
  constexpr std::int64_t stride() const {
    return static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(cols))) + 16;
  }
};

inline constexpr InputForms all_input_forms = InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256;

/// Bytes of `rows` rows in these forms.
constexpr std::int64_t packed_input_bytes(InputForms forms, std::int64_t rows, std::int64_t cols) {
  using namespace packed_parts;
  const auto asked = [&](InputForms form, std::int64_t bytes) { return contains(forms, form) ? bytes : 0; };
  return asked(InputForms::f32, bytes_of({rows * PackedInput{.cols = cols}.stride()})) +
         asked(InputForms::blocks_of_32, bytes_of<InputBlock32>({rows * (cols / InputBlock32::values)})) +
         asked(InputForms::blocks_of_256, bytes_of<InputBlock256>({rows * (cols / InputBlock256::values)}));
}

/// Takes packed_input_bytes of memory.
inline PackedInput bind_packed_input(Bump& memory, InputForms forms, std::int64_t rows, std::int64_t cols) {
  using namespace packed_parts;
  const auto blocks = [&]<class Block>(InputForms form, Block*& to) {
    if (contains(forms, form)) to = memory.take<Block>(rows * (cols / Block::values));
  };
  PackedInput x{.forms = forms, .rows = rows, .cols = cols};
  if (contains(forms, InputForms::f32)) x.floats = memory.take(rows * x.stride());
  blocks(InputForms::blocks_of_32, x.blocks_of_32);
  blocks(InputForms::blocks_of_256, x.blocks_of_256);
  return x;
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace packed_parts {

/// The blocks that weights in blocks of `values` multiply.
template <int values>
CHIMERA_INLINE auto* input_blocks(const PackedInput& x) {
  if constexpr (values == 32)
    return x.blocks_of_32;
  else
    return x.blocks_of_256;
}

}  // namespace packed_parts

}  // namespace chimera::inline CHIMERA_ABI
#endif
