// What levels have in common whose sums of products are integers from the start.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/formats/k_formats.hpp>
#include <chimera/kernels/packed/input.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace packed_parts {

/// Numbers of the rows of a tile's panels that are taken apart at a time, and of f32.
inline constexpr std::int64_t code_depth = 1024, float_depth = 256;

/// What a level multiplies panels of one layout with whose numbers are codes. `blocks` are blocks of the layout.
struct CodeKernels {
  InputForms form;          // of x
  int values, bytes;        // of a block
  int tile_panels, tokens;  // of a tile: panels, and rows of x
  int unit_bytes;           // 32 numbers of a tile's panels taken apart

  /// out [16] = a panel times a row of x. `few`, where there is one, does so with `few_rows`: out [few_rows][16].
  void (*one)(const std::byte* w, const std::int32_t* const* rows, std::int64_t blocks, float* out);
  void (*few)(const std::byte* w, const std::int32_t* const* rows, std::int64_t blocks, float* out);
  /// Blocks of one of a tile's panels.
  void (*take_apart)(const std::byte* w, std::int64_t blocks, int panel, std::byte* to);
  /// acc [tile_panels][tokens][16], panels `stride` apart, += units taken apart times the rows of a tile; and then
  /// *= scales [tokens], unless they are null.
  void (*multiply)(const std::byte* w, const std::int32_t* x, std::int64_t units, float* acc, std::int64_t stride,
                   const float* scales);
};

/// The same of numbers as they are. `depth` are numbers.
struct NumberKernels {
  int values, bytes;  // of what lies together
  int tokens;         // rows of x of a tile
  void (*one)(const std::byte* w, const float* const* rows, std::int64_t depth, float* acc);
  void (*load)(const std::byte* w, std::int64_t depth, float* to);
  void (*multiply)(const std::byte* w, const float* const* rows, std::int64_t depth, float* acc);
  /// Where there is one, it does all: out [count][16] = a panel times rows first ... of the input.
  void (*whole)(const std::byte* w, const PackedInput& x, std::int64_t first, std::int64_t count, float* out) = nullptr;
};

/// Four units of 32 numbers become bytes, and words that stand for their sums.
template <int W>
struct FourUnits {
  /// most [4] = the largest magnitudes.
  CHIMERA_INLINE static void largest(const float* x, float* most) {
    for (int u = 0; u < 4; ++u) {
      Vec<W> m;
      for (int i = 0; i < 32; i += W) {
        const Vec<W> v = Vec<W>::load(x + 32 * u + i);
        m = max<W>(m, max<W>(v, -v));
      }
      most[u] = largest_lane<W>(m);
    }
  }
  /// Units `step` words apart = x * inverse [4], to nearest. What is no number becomes some byte. sums [2][4]: words of
  /// the sums of the first 16 and the last of each unit, with their signs changed.
  CHIMERA_INLINE static void quantize(const float* x, const float* inverse, std::int64_t step, std::int32_t* to,
                                      std::int32_t (*sums)[4]) {
    using V = Vec<W>;
    for (int u = 0; u < 4; ++u)
      for (int h = 0; h < 2; ++h) {
        Ints<W> sum;
        for (int i = 16 * h; i < 16 * h + 16; i += W) {
          const V scaled = V::load(x + 32 * u + i) * V(inverse[u]);
          const V whole = format_parts::nearest<W>(min<W>(max<W>(scaled, V(-127.f)), V(127.f)));
          truncated<W>(whole).template store<std::int8_t>(reinterpret_cast<std::byte*>(to + u * step) + i);
          sum = sum + Ints<W>::template load<std::int8_t>(reinterpret_cast<std::byte*>(to + u * step) + i);
        }
        sums[h][u] = -static_cast<std::int32_t>(chimera::sum<W>(as_floats<W>(sum)));
      }
  }
  /// Of words.
  CHIMERA_INLINE static Ints<4> add(const Ints<4>& a, const Ints<4>& b) { return a + b; }
  /// The sums that words stand for.
  CHIMERA_INLINE static Ints<4> value(const Ints<4>& words) { return Ints<4>(0) - words; }
};

/// A lane is a row, and holds four codes, or a sum. A level adds
///
///   tokens     rows of x that are multiplied at once
///   dot        sum + codes x, four products a lane. Codes are 0 ... 63, or `wide`: signed bytes; where a level has
///              `any_bytes`, they are any unsigned ones. x are signed bytes without -128.
///
/// and may have forms of its own for sums, and for the words that stand for the sums of inputs, until `total` makes
/// them integers.
template <int W>
struct IntegerOps {
  static constexpr int lanes = W;  // of a register
  using FloatKernels = void;       // of another level whose products of f32, and most panels taken apart, are the same
  using InputKernels = void;       // of another level that makes bytes of inputs for this one, too
  using Quantize = FourUnits<W>;
  using IVec = Ints<W>;
  static constexpr bool any_bytes = false;
  static constexpr bool narrow = false;        // sums of products have 16 bits
  static constexpr bool has_few = false;       // whether several rows are worth a kernel of their own
  static constexpr bool float_powers = false;  // the word that stands for 2^e is e as f32, not the bits of 2^e

  CHIMERA_INLINE static IVec broadcast(const void* p) {
    float x = 0;
    std::memcpy(&x, p, sizeof x);
    return bits_of<W>(Vec<W>(x));
  }

  /// The integer that a sum stands for.
  CHIMERA_INLINE static IVec total(const IVec& sum) { return sum; }
  /// Times scales of 8 bits, whose `factors` are made once.
  CHIMERA_INLINE static IVec total(const IVec& sum, const IVec& factors) { return sum * factors; }
  CHIMERA_INLINE static IVec factors(const IVec& scales) { return scales; }
  /// What sums start from so that codes stand for code - 2^zero.
  CHIMERA_INLINE static IVec start(const IVec& word, int zero) { return word << zero; }

  /// d 2^e, from the word that stands for 2^e.
  CHIMERA_INLINE static Vec<W> scaled(const Vec<W>& d, const IVec& power) { return d * from_bits<W>(power); }

  /// `lanes` numbers of f16.
  CHIMERA_INLINE static Vec<W> halves(const std::byte* p) { return load_f16<W>(p); }
};

/// Where the instruction multiplies any unsigned bytes with signed ones, as vpdpbusd: a word is -128 times a sum.
template <int W>
struct UnsignedOps : IntegerOps<W> {
  using IVec = Ints<W>;
  static constexpr bool any_bytes = true;

  CHIMERA_INLINE static IVec start(const IVec& word, int zero) { return word >> (7 - zero); }
};

}  // namespace packed_parts
}  // namespace chimera::inline CHIMERA_ABI
#endif
