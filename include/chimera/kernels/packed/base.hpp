// Products with packed weights by portable vectors: the level of processors for which there is no other.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/packed/input.hpp>
#include <chimera/kernels/packed/layout.hpp>
#include <chimera/kernels/packed/ops.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if CHIMERA_BODIES
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define CHIMERA_LEVEL packed_base
#define CHIMERA_TARGET

namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::IntegerOps<4> {
  static constexpr int tokens = 2;
  typedef std::int16_t Shorts __attribute__((__vector_size__(16)));

  /// Bytes 0 and 2, or 1 and 3, of each lane, widened.
  CHIMERA_INLINE static Shorts even(const IVec& x) { return reinterpret_cast<Shorts>(x.v) << 8 >> 8; }
  CHIMERA_INLINE static Shorts odd(const IVec& x) { return reinterpret_cast<Shorts>(x.v) >> 8; }
  /// Sums of two products each.
  CHIMERA_INLINE static IVec pairs(const Shorts& a, const Shorts& b) {
#if defined(__SSE2__)
    return IVec(
        reinterpret_cast<IVec::Native>(_mm_madd_epi16(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b))));
#else
    const IVec x(reinterpret_cast<IVec::Native>(a)), y(reinterpret_cast<IVec::Native>(b));
    return (x << 16 >> 16) * (y << 16 >> 16) + (x >> 16) * (y >> 16);
#endif
  }

  template <bool wide>
  CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    return sum + pairs(even(codes), even(x)) + pairs(odd(codes), odd(x));
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL

#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif
