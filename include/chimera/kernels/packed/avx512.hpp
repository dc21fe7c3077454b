// Products with packed weights by AVX-512 without VNNI: as by AVX2, on 16 lanes.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/packed/avx2.hpp>
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
#if defined(__x86_64__)
#include <immintrin.h>

#define CHIMERA_LEVEL packed_avx512
#define CHIMERA_TARGET CHIMERA_AVX512
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

/// Sums and words as in avx2.hpp.
struct Ops : packed_parts::IntegerOps<16> {
  static constexpr int tokens = 6;
  static constexpr bool narrow = true, float_powers = true;
  using InputKernels = packed_avx2::Kernels;
  using Quantize = packed_avx2::FourUnits<true>;

  CHIMERA_TARGET CHIMERA_INLINE static __m512i in(const IVec& x) { return reinterpret_cast<__m512i>(x.v); }
  CHIMERA_TARGET CHIMERA_INLINE static IVec out(__m512i x) { return IVec(reinterpret_cast<IVec::Native>(x)); }

  template <bool wide>
  CHIMERA_TARGET CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    if constexpr (wide) {
      const __m512i signed_x =
          _mm512_mask_sub_epi8(in(x), _mm512_movepi8_mask(in(codes)), _mm512_setzero_si512(), in(x));
      const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(in(codes)), signed_x);
      return out(_mm512_add_epi32(in(sum), _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))));
    } else {
      return out(_mm512_add_epi16(in(sum), _mm512_maddubs_epi16(in(codes), in(x))));
    }
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec total(const IVec& sum) {
    return out(_mm512_madd_epi16(in(sum), _mm512_set1_epi16(1)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec total(const IVec& sum, const IVec& factors) {
    return out(_mm512_madd_epi16(in(sum), in(factors)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec factors(const IVec& scales) {
    return out(_mm512_mask_blend_epi16(0xaaaaaaaa, in(scales), in(scales << 16)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec start(const IVec& word, int zero) {
    return out(_mm512_slli_epi16(in(word), static_cast<unsigned>(zero)));
  }

  /// By instructions that take no turn of those that multiply.
  CHIMERA_TARGET CHIMERA_INLINE static IVec broadcast(const void* p) {
    IVec::Native r;
    asm("vpbroadcastd %1, %0" : "=v"(r) : "m"(*static_cast<const std::byte(*)[4]>(p)));
    return IVec(r);
  }
  CHIMERA_TARGET CHIMERA_INLINE static Vec<16> scaled(const Vec<16>& d, const IVec& power) {
    Vec<16>::Native r;
    asm("vscalefps %2, %1, %0" : "=v"(r) : "v"(d.v), "v"(power.v));  // g++ 12 warns of the intrinsic
    return Vec<16>(r);
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif
#endif
