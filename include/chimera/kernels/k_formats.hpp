// Q4_K, Q5_K and Q6_K: blocks of 256 numbers in sub-blocks, whose scales are small integers times a scale of the block.
// Each type reads and writes one block: decode<W>(block, x) and encode<W>(x, block).
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/half_formats.hpp>
#include <chimera/kernels/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Eight pairs of 6 bits in 12 bytes: the scale s and the offset m of each sub-block of Q4_K and Q5_K. Bytes 0..3 hold
/// s of the first four, 4..7 their m, 8..11 the low nibbles of s and m of the last four, whose upper two bits lie on
/// top of the bytes 0..7.
struct SixBitPairs {
  std::uint8_t scale[8], offset[8];

  CHIMERA_INLINE static SixBitPairs load(const std::byte* p) {
    std::uint8_t b[12];
    std::memcpy(b, p, sizeof b);
    SixBitPairs r;
    for (int j = 0; j < 4; ++j) {
      r.scale[j] = b[j] & 63;
      r.offset[j] = b[j + 4] & 63;
      r.scale[j + 4] = static_cast<std::uint8_t>((b[j + 8] & 15) | (b[j] >> 6) << 4);
      r.offset[j + 4] = static_cast<std::uint8_t>(b[j + 8] >> 4 | (b[j + 4] >> 6) << 4);
    }
    return r;
  }
};

/// Fields: f16 d; f16 dmin; 12 bytes of scales and offsets; 128 bytes: in each 32, low nibbles are one sub-block and
/// high nibbles the next. x = d s q - dmin m. Products of d and s are exact in f32, and so are those with q.
struct Q4_K {
  static constexpr std::int64_t values = 256, bytes = 144;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block), dmin = load_f16(block + 2);
    const SixBitPairs pairs = SixBitPairs::load(block + 4);
    block += 16;
    for (int j = 0; j < 8; j += 2, block += 32, x += 64)
      for (int i = 0; i < 32; i += W) {
        const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + i);
        (Vec<W>(d * pairs.scale[j]) * floats<W>(q & 15) - Vec<W>(dmin * pairs.offset[j])).store(x + i);
        (Vec<W>(d * pairs.scale[j + 1]) * floats<W>(q >> 4) - Vec<W>(dmin * pairs.offset[j + 1])).store(x + i + 32);
      }
  }
};

/// Fields: f16 d; f16 dmin; 12 bytes of scales and offsets; 32 bytes of fifth bits, bit j for sub-block j; 128 bytes as
/// in Q4_K. x = d s q - dmin m.
struct Q5_K {
  static constexpr std::int64_t values = 256, bytes = 176;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block), dmin = load_f16(block + 2);
    const SixBitPairs pairs = SixBitPairs::load(block + 4);
    const std::byte* fifth = block + 16;
    block += 48;
    for (int j = 0; j < 8; j += 2, block += 32, x += 64)
      for (int i = 0; i < 32; i += W) {
        const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + i);
        const Ints<W> f = Ints<W>::template load<std::uint8_t>(fifth + i) >> j;
        const Ints<W> low = (q & 15) | (f & 1) << 4, high = q >> 4 | (f & 2) << 3;
        (Vec<W>(d * pairs.scale[j]) * floats<W>(low) - Vec<W>(dmin * pairs.offset[j])).store(x + i);
        (Vec<W>(d * pairs.scale[j + 1]) * floats<W>(high) - Vec<W>(dmin * pairs.offset[j + 1])).store(x + i + 32);
      }
  }
};

/// Fields: 128 bytes of lower 4 bits; 64 bytes of upper 2 bits; 16 signed bytes of scales s; f16 d. x = d s (q - 32).
/// In each half of 128 numbers, number 32 k + l has its lower bits in byte l + 32 (k % 2) as the nibble k / 2, and its
/// upper bits in byte l at 2 k. A scale serves 16 numbers.
struct Q6_K {
  static constexpr std::int64_t values = 256, bytes = 210;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block + 208);
    std::int8_t scale[16];
    std::memcpy(scale, block + 192, sizeof scale);
    for (int half = 0; half < 2; ++half) {
      const std::byte *lower = block + 64 * half, *upper = block + 128 + 32 * half;
      for (int k = 0; k < 4; ++k)
        for (int l = 0; l < 32; l += W, x += W) {
          const Ints<W> low = Ints<W>::template load<std::uint8_t>(lower + l + 32 * (k % 2)) >> 4 * (k / 2);
          const Ints<W> high = Ints<W>::template load<std::uint8_t>(upper + l) >> 2 * k;
          const Ints<W> q = ((low & 15) | (high & 3) << 4) - 32;
          (Vec<W>(d * scale[8 * half + 2 * k + l / 16]) * floats<W>(q)).store(x);
        }
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
