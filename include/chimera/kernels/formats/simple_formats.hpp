// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: blocks of 32 numbers with one scale, and the _1 formats with a least value, too.
//
// Each type reads and writes one block: decode<W>(block, x) and encode<W>(x, block). Scales are f16 in memory; quanta
// come from the scale before it was rounded, as llama.cpp's reference does, and are the same bits at every level.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI::format_parts {

/// 1 / d, and 0 where a block is so small that its scale is 0 as an f16: every quantum stands for 0 then.
CHIMERA_INLINE float inverse_scale(float d) { return std::fabs(d) < 1e-30f ? 0.f : 1.f / d; }

/// The f16 at the start of a block, which has 16 bytes at least: with the one instruction of AVX2, seven for nothing.
template <int W>
CHIMERA_INLINE Vec<W> block_scale(const std::byte* block) {
  if constexpr (W >= 8)
    return Vec<W>(load_f16<8>(block).v[0]);
  else
    return Vec<W>(load_f16(block));
}

struct Range {
  float least, largest;
};
template <int W>
CHIMERA_INLINE Range range(const float* x, int n) {
  Vec<W> least = Vec<W>::load(x), largest = least;
  for (int i = W; i < n; i += W) {
    const Vec<W> v = Vec<W>::load(x + i);
    least = min<W>(least, v);
    largest = max<W>(largest, v);
  }
  return {least_lane<W>(least), largest_lane<W>(largest)};
}

/// The number furthest from zero; of x and -x the one that comes first.
template <int W>
CHIMERA_INLINE float furthest(const float* x, int n) {
  const Range r = range<W>(x, n);
  if (r.largest > -r.least) return r.largest;
  if (r.largest < -r.least) return r.least;
  for (int i = 0; i < n; ++i)
    if (std::fabs(x[i]) == r.largest) return x[i];
  return 0.f;
}

/// x / d + shift towards zero, at most `most`; d is given as its inverse.
template <int W>
CHIMERA_INLINE Ints<W> quanta(const Vec<W>& x, float inverse, float shift, int most) {
  return min(truncated<W>(product<W>(x, Vec<W>(inverse)) + Vec<W>(shift)), Ints<W>(most));
}

/// Fields: f16 d; 16 bytes: low nibble x[j], high nibble x[j + 16]. x = d (q - 8).
struct Q4_0 {
  static constexpr std::int64_t values = 32, bytes = 18;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = block_scale<W>(block);
    for (int j = 0; j < 16; j += W) {
      const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + 2 + j);
      (d * as_floats<W>((q & 15) - 8)).store(x + j);
      (d * as_floats<W>((q >> 4) - 8)).store(x + j + 16);
    }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const float d = furthest<W>(x, 32) / -8.f, inverse = inverse_scale(d);
    store_f16(block, d);
    for (int j = 0; j < 16; j += W) {
      const Ints<W> low = quanta<W>(Vec<W>::load(x + j), inverse, 8.5f, 15);
      const Ints<W> high = quanta<W>(Vec<W>::load(x + j + 16), inverse, 8.5f, 15);
      (low | high << 4).template store<std::uint8_t>(block + 2 + j);
    }
  }
};

/// Fields: f16 d; f16 least; 16 bytes as in Q4_0. x = d q + least.
struct Q4_1 {
  static constexpr std::int64_t values = 32, bytes = 20;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = load_f16(block), least = load_f16(block + 2);
    for (int j = 0; j < 16; j += W) {
      const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + 4 + j);
      (d * as_floats<W>(q & 15) + least).store(x + j);  // the product is exact: 11 bits times 4
      (d * as_floats<W>(q >> 4) + least).store(x + j + 16);
    }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const Range r = range<W>(x, 32);
    const float d = (r.largest - r.least) / 15.f, inverse = inverse_scale(d);
    store_f16(block, d);
    store_f16(block + 2, r.least);
    for (int j = 0; j < 16; j += W) {
      const Ints<W> low = quanta<W>(Vec<W>::load(x + j) - Vec<W>(r.least), inverse, 0.5f, 15);
      const Ints<W> high = quanta<W>(Vec<W>::load(x + j + 16) - Vec<W>(r.least), inverse, 0.5f, 15);
      (low | high << 4).template store<std::uint8_t>(block + 4 + j);
    }
  }
};

/// The fifth bits of 32 quanta, quantum j at bit j, and the low nibbles as in Q4_0: q[W] of x[j ...] and x[j + 16 ...].
template <int W>
CHIMERA_INLINE void load_five_bits(const std::byte* fifth, const std::byte* nibbles, int j, Ints<W>& low,
                                   Ints<W>& high) {
  std::int32_t bits = 0;
  std::memcpy(&bits, fifth, sizeof bits);
  Ints<W> lane;
  for (int i = 0; i < W; ++i) lane.v[i] = 1 << i;
  const Ints<W> first(((Ints<W>(bits >> j) & lane).v != 0) & 16);
  const Ints<W> second(((Ints<W>(bits >> (j + 16)) & lane).v != 0) & 16);
  const Ints<W> q = Ints<W>::template load<std::uint8_t>(nibbles + j);
  low = (q & 15) | first;
  high = (q >> 4 & 15) | second;
}

/// Fields: f16 d; 4 bytes of fifth bits; 16 bytes as in Q4_0. x = d (q - 16).
struct Q5_0 {
  static constexpr std::int64_t values = 32, bytes = 22;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = load_f16(block);
    for (int j = 0; j < 16; j += W) {
      Ints<W> low, high;
      load_five_bits<W>(block + 2, block + 6, j, low, high);
      (d * as_floats<W>(low - 16)).store(x + j);
      (d * as_floats<W>(high - 16)).store(x + j + 16);
    }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const float d = furthest<W>(x, 32) / -16.f, inverse = inverse_scale(d);
    store_f16(block, d);
    std::uint32_t fifth = 0;
    for (int j = 0; j < 16; j += W) {
      const Ints<W> low = quanta<W>(Vec<W>::load(x + j), inverse, 16.5f, 31);
      const Ints<W> high = quanta<W>(Vec<W>::load(x + j + 16), inverse, 16.5f, 31);
      fifth |= fifth_bits<W>(low) << j | fifth_bits<W>(high) << (j + 16);
      ((low & 15) | (high & 15) << 4).template store<std::uint8_t>(block + 6 + j);
    }
    std::memcpy(block + 2, &fifth, sizeof fifth);
  }

  /// Bit i: the fifth bit of q[i].
  template <int W>
  CHIMERA_INLINE static std::uint32_t fifth_bits(const Ints<W>& q) {
    std::uint32_t bits = 0;
    for (int i = 0; i < W; ++i) bits |= static_cast<std::uint32_t>(q.v[i] >> 4) << i;
    return bits;
  }
};

/// Fields: f16 d; f16 least; 4 bytes of fifth bits; 16 bytes as in Q4_0. x = d q + least.
struct Q5_1 {
  static constexpr std::int64_t values = 32, bytes = 24;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = load_f16(block), least = load_f16(block + 2);
    for (int j = 0; j < 16; j += W) {
      Ints<W> low, high;
      load_five_bits<W>(block + 4, block + 8, j, low, high);
      (d * as_floats<W>(low) + least).store(x + j);
      (d * as_floats<W>(high) + least).store(x + j + 16);
    }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const Range r = range<W>(x, 32);
    const float d = (r.largest - r.least) / 31.f, inverse = inverse_scale(d);
    store_f16(block, d);
    store_f16(block + 2, r.least);
    std::uint32_t fifth = 0;
    for (int j = 0; j < 16; j += W) {
      const Ints<W> low = quanta<W>(Vec<W>::load(x + j) - Vec<W>(r.least), inverse, 0.5f, 31);
      const Ints<W> high = quanta<W>(Vec<W>::load(x + j + 16) - Vec<W>(r.least), inverse, 0.5f, 31);
      fifth |= Q5_0::fifth_bits<W>(low) << j | Q5_0::fifth_bits<W>(high) << (j + 16);
      ((low & 15) | (high & 15) << 4).template store<std::uint8_t>(block + 8 + j);
    }
    std::memcpy(block + 4, &fifth, sizeof fifth);
  }
};

/// Fields: f16 d; 32 signed bytes. x = d q.
struct Q8_0 {
  static constexpr std::int64_t values = 32, bytes = 34;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const Vec<W> d = block_scale<W>(block);
    for (int j = 0; j < 32; j += W) (d * as_floats<W>(Ints<W>::template load<std::int8_t>(block + 2 + j))).store(x + j);
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const Range r = range<W>(x, 32);
    const float d = std::max(r.largest, -r.least) / 127.f, inverse = inverse_scale(d);
    store_f16(block, d);
    for (int j = 0; j < 32; j += W) {
      // To nearest, half away from zero: what is cut off decides.
      const Vec<W> scaled = product<W>(Vec<W>::load(x + j), Vec<W>(inverse));
      const Ints<W> whole = truncated<W>(scaled);
      const Vec<W> rest = scaled - as_floats<W>(whole);
      const Ints<W> q(whole.v + (rest.v <= -0.5f) - (rest.v >= 0.5f));  // a comparison that holds is -1
      q.template store<std::int8_t>(block + 2 + j);
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI::format_parts
#endif
