// TQ1_0 and TQ2_0: blocks of 256 numbers -d, 0, d. A number's code is its sign plus 1. Each type reads and writes one
// block: decode<W>(block, x) and encode<W>(x, block). d is the largest magnitude, so that ternary weights are kept as
// they are, but for the rounding of d to f16.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/formats/simple_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI::format_parts {

/// 0, 1 or 2: the nearest of -d, 0 and d, ties away from zero.
template <int W>
CHIMERA_INLINE Ints<W> ternary_codes(const float* x, float inverse) {
  const Vec<W> scaled = Vec<W>::load(x) * Vec<W>(inverse);
  return Ints<W>(1 + (scaled.v <= -0.5f) - (scaled.v >= 0.5f));  // a comparison that holds is -1
}

/// Fields: 64 bytes; f16 d. In each half byte m holds the codes of x[m], x[m + 32], x[m + 64], x[m + 96], lowest bits
/// first.
struct TQ2_0 {
  static constexpr std::int64_t values = 256, bytes = 66;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = load_f16(block + 64);
    for (int half = 0; half < 2; ++half, block += 32, x += 128)
      for (int m = 0; m < 32; m += W) {
        const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + m);
        for (int n = 0; n < 4; ++n) (d * as_floats<W>(((q >> (2 * n)) & 3) - 1)).store(x + m + 32 * n);
      }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const Range r = range<W>(x, 256);
    const float d = std::max(r.largest, -r.least), inverse = inverse_scale(d);
    store_f16(block + 64, d);
    for (int half = 0; half < 2; ++half, block += 32, x += 128)
      for (int m = 0; m < 32; m += W) {
        Ints<W> q;
        for (int n = 0; n < 4; ++n) q = q | ternary_codes<W>(x + m + 32 * n, inverse) << (2 * n);
        q.template store<std::uint8_t>(block + m);
      }
  }
};

/// Fields: 48 bytes of five codes, 4 bytes of four; f16 d. A byte is t 256 / 243, rounded up, of the number t whose
/// digits to base 3 are the codes, first code first; a byte of four codes has a zero as its last digit. So the first
/// code is the whole part of 3 byte / 256, and the next is found in what is left.
struct TQ1_0 {
  static constexpr std::int64_t values = 256, bytes = 54;

  /// W bytes hold `codes` runs of numbers that lie `stride` apart.
  template <int W>
  CHIMERA_INLINE static void decode_run(const std::byte* from, int codes, int stride, const Vec<W>& d, float* x) {
    Ints<W> left = Ints<W>::template load<std::uint8_t>(from);
    for (int n = 0; n < codes; ++n) {
      const Ints<W> tripled = left + left + left;
      (d * as_floats<W>((tripled >> 8) - 1)).store(x + n * stride);
      left = tripled & 255;
    }
  }
  template <int W>
  CHIMERA_INLINE static void encode_run(const float* x, int codes, int stride, float inverse, std::byte* to) {
    Ints<W> t;
    for (int n = 0; n < 5; ++n) {
      t = t + t + t;
      if (n < codes) t = t + ternary_codes<W>(x + n * stride, inverse);
    }
    // 256 t / 243 = t + 13 t / 243, and 4316 / 2^20 is near enough to 1 / 243 for numbers below 2^12.
    const Ints<W> byte = t + ((t * Ints<W>(13) + 242) * Ints<W>(4316) >> 20);
    byte.template store<std::uint8_t>(to);
  }

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block + 52);
    for (int m = 0; m < 32; m += W) decode_run<W>(block + m, 5, 32, d, x + m);
    for (int m = 0; m < 16; m += W) decode_run<W>(block + 32 + m, 5, 16, d, x + 160 + m);
    decode_run<4>(block + 48, 4, 4, d, x + 240);
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const Range r = range<W>(x, 256);
    const float d = std::max(r.largest, -r.least), inverse = inverse_scale(d);
    for (int m = 0; m < 32; m += W) encode_run<W>(x + m, 5, 32, inverse, block + m);
    for (int m = 0; m < 16; m += W) encode_run<W>(x + 160 + m, 5, 16, inverse, block + 32 + m);
    encode_run<4>(x + 240, 4, 4, inverse, block + 48);
    store_f16(block + 52, d);
  }
};

}  // namespace chimera::inline CHIMERA_ABI::format_parts
#endif
