// F16 and BF16: two bytes for each number. The conversions give the same bits on every processor; rounding is to
// nearest, ties to even.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// f32 from the low 16 bits, which the others must leave zero. A NaN becomes quiet.
template <int W>
CHIMERA_INLINE Vec<W> from_f16(const Ints<W>& half) {
  const Ints<W> magnitude = (half & 0x7fff) << 13;
  const Ints<W> normal = magnitude + ((127 - 15) << 23);
  const Ints<W> quiet(magnitude.v > (31 << 23) ? Ints<W>(1 << 22).v : Ints<W>(0).v);
  const Ints<W> infinite = (magnitude + ((255 - 31) << 23)) | quiet;
  // A denormal's bits, put behind the exponent of 2^-14, are 2^-14 too large.
  const Ints<W> small_bits = magnitude + ((127 - 14) << 23);
  const Ints<W> subnormal = bits_of<W>(from_bits<W>(small_bits) - Vec<W>(6.103515625e-5f));
  const Ints<W> x(magnitude.v < (1 << 23) ? subnormal.v : magnitude.v >= (31 << 23) ? infinite.v : normal.v);
  return from_bits<W>(x | (half & 0x8000) << 16);
}

/// The bits of an f16: from 65520 infinite, a NaN stays one and becomes quiet.
template <int W>
CHIMERA_INLINE Ints<W> to_f16(const Vec<W>& x) {
  const Ints<W> bits = bits_of<W>(x), magnitude = bits & 0x7fffffff;
  const Ints<W> odd = (magnitude >> 13) & 1;
  const Ints<W> normal = (magnitude + (0xfff - ((127 - 15) << 23)) + odd) >> 13;
  // Adding 1/2 leaves as many digits behind the point as a denormal f16 has.
  const Ints<W> subnormal = bits_of<W>(from_bits<W>(magnitude) + Vec<W>(0.5f)) - (126 << 23);
  const Ints<W> infinite(magnitude.v > 0x7f800000 ? Ints<W>(0x7e00).v : Ints<W>(0x7c00).v);
  const Ints<W> half(magnitude.v < (113 << 23) ? subnormal.v : magnitude.v >= (143 << 23) ? infinite.v : normal.v);
  return half | ((bits >> 16) & 0x8000);
}

/// A BF16 is the upper half of an f32.
template <int W>
CHIMERA_INLINE Vec<W> from_bf16(const Ints<W>& half) {
  return from_bits<W>(half << 16);
}

template <int W>
CHIMERA_INLINE Ints<W> to_bf16(const Vec<W>& x) {
  const Ints<W> bits = bits_of<W>(x), upper = (bits >> 16) & 0xffff;
  const Ints<W> nearest = ((bits + 0x7fff + (upper & 1)) >> 16) & 0xffff;
  return Ints<W>((bits & 0x7fffffff).v > 0x7f800000 ? (upper | 0x40).v : nearest.v);
}

/// W numbers from memory: by one instruction where there is one, AVX2 and AArch64.
template <int W>
CHIMERA_INLINE Vec<W> load_f16(const std::byte* p) {
#if defined(__x86_64__) || defined(__i386__)
  constexpr int of_one = 8;
#elif defined(__aarch64__)
  constexpr int of_one = 4;
#else
  constexpr int of_one = 0;
#endif
  if constexpr (W == 2 * of_one) {
    return joined<W>(load_f16<W / 2>(p), load_f16<W / 2>(p + W));
  } else if constexpr (W != of_one) {
    return from_f16<W>(Ints<W>::template load<std::uint16_t>(p));
  } else {
    Vec<W> r;
#if defined(__clang__)
    typedef _Float16 Halves __attribute__((__vector_size__(2 * W)));
    Halves halves;
    std::memcpy(&halves, p, sizeof halves);
    r.v = __builtin_convertvector(halves, typename Vec<W>::Native);
#elif defined(__aarch64__)
    asm("ldr %d0, %1\n\tfcvtl %0.4s, %0.4h" : "=w"(r.v) : "m"(*reinterpret_cast<const std::byte(*)[2 * W]>(p)));
#else  // g++ 12 takes vectors of _Float16 apart
    asm("vcvtph2ps %1, %0" : "=v"(r.v) : "m"(*reinterpret_cast<const std::byte(*)[2 * W]>(p)));
#endif
    return r;
  }
}

/// One number, from and to its place in memory.
CHIMERA_INLINE float load_f16(const std::byte* p) { return from_f16<1>(Ints<1>::load<std::uint16_t>(p)).v[0]; }
CHIMERA_INLINE void store_f16(std::byte* p, float x) { to_f16<1>(Vec<1>(x)).store<std::uint16_t>(p); }

namespace format_parts {

struct F16 {
  template <int W>
  CHIMERA_INLINE static Vec<W> load(const std::byte* p) {
    return load_f16<W>(p);
  }
  template <int W>
  CHIMERA_INLINE static Ints<W> to(const Vec<W>& x) {
    return to_f16<W>(x);
  }
};

struct Bf16 {
  template <int W>
  CHIMERA_INLINE static Vec<W> load(const std::byte* p) {
    return from_bf16<W>(Ints<W>::template load<std::uint16_t>(p));
  }
  template <int W>
  CHIMERA_INLINE static Ints<W> to(const Vec<W>& x) {
    return to_bf16<W>(x);
  }
};

template <class Half>
struct DecodeHalves {
  template <int W>
  CHIMERA_INLINE static void run(const std::byte* from, std::int64_t n, float* to) {
    std::int64_t i = 0;
    for (; i + W <= n; i += W) Half::template load<W>(from + 2 * i).store(to + i);
    for (; i < n; ++i) Half::template load<1>(from + 2 * i).store(to + i);
  }
};

template <class Half>
struct EncodeHalves {
  template <int W>
  CHIMERA_INLINE static void run(const float* from, std::int64_t n, std::byte* to) {
    std::int64_t i = 0;
    for (; i + W <= n; i += W) Half::template to<W>(Vec<W>::load(from + i)).template store<std::uint16_t>(to + 2 * i);
    for (; i < n; ++i) Half::template to<1>(Vec<1>::load(from + i)).template store<std::uint16_t>(to + 2 * i);
  }
};

}  // namespace format_parts

}  // namespace chimera::inline CHIMERA_ABI
#endif
