// Products with packed weights by AVX2: vpmaddubsw multiplies bytes and adds pairs in 16 bits.
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
#if defined(__x86_64__)
#include <immintrin.h>

#define CHIMERA_LEVEL packed_avx2
#define CHIMERA_TARGET CHIMERA_AVX2

namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

/// FourUnits by AVX2, for all levels above, too. `narrow`: words of two sums of 16 bits; else of -128 times a sum.
template <bool narrow>
struct FourUnits {
  CHIMERA_TARGET CHIMERA_INLINE static void largest(const float* x, float* most) {
    const __m256 a = most_of(x), b = most_of(x + 32), c = most_of(x + 64), d = most_of(x + 96);
    const __m256d ab = _mm256_castps_pd(_mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)));
    const __m256d cd = _mm256_castps_pd(_mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d)));
    const __m256 all =
        _mm256_max_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)), _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
    _mm_storeu_ps(most, _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static void quantize(const float* x, const float* inverse, std::int64_t step,
                                                     std::int32_t* to, std::int32_t (*sums)[4]) {
    const __m256i a = bytes_of(x, inverse[0], to), b = bytes_of(x + 32, inverse[1], to + step);
    const __m256i c = bytes_of(x + 64, inverse[2], to + 2 * step), d = bytes_of(x + 96, inverse[3], to + 3 * step);
    const __m256i ab = sum(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const __m256i cd = sum(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums),
                        sum(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static Ints<4> add(const Ints<4>& a, const Ints<4>& b) {
    if constexpr (!narrow) return a + b;
    return Ints<4>(reinterpret_cast<Ints<4>::Native>(
        _mm_add_epi16(reinterpret_cast<__m128i>(a.v), reinterpret_cast<__m128i>(b.v))));
  }
  CHIMERA_TARGET CHIMERA_INLINE static Ints<4> value(const Ints<4>& words) {
    return narrow ? Ints<4>(0) - (words << 16 >> 16) - (words >> 16) : Ints<4>(0) - (words >> 7);
  }

 private:
  /// The largest magnitudes of every eighth number of a unit.
  CHIMERA_TARGET CHIMERA_INLINE static __m256 most_of(const float* x) {
    const __m256 sign = _mm256_set1_ps(-0.f);
    __m256 most = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 32; i += 8) most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
    return most;
  }
  CHIMERA_TARGET CHIMERA_INLINE static __m256i sum(__m256i p, __m256i q) {
    return narrow ? _mm256_add_epi16(p, q) : _mm256_add_epi32(p, q);
  }
  /// A unit's bytes, and words of the sums of fours.
  CHIMERA_TARGET CHIMERA_INLINE static __m256i bytes_of(const float* x, float inverse, std::int32_t* to) {
    const __m256 scale = _mm256_set1_ps(inverse);
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
    const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
    const __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), scale));
    const __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), scale));
    // Packing goes on in each half: fours come out as a0 b0 c0 d0 a1 b1 c1 d1.
    const __m256i bytes =
        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d)),
                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
    return narrow ? _mm256_sub_epi16(_mm256_setzero_si256(), pairs) : _mm256_madd_epi16(pairs, _mm256_set1_epi16(-128));
  }
};

/// See ops.hpp. A sum has 16 bits for products 0 and 1 of each four, and 16 for products 2 and 3; it may run over
/// on its way as long as the end of a run fits: 16 products of 4 bits less 8, 8 of 6 bits less 32, 128 of 2 bits
/// less 1.
struct Ops {
  static constexpr int lanes = 8;
  using FloatKernels = void;
  using InputKernels = void;
  using Quantize = FourUnits<true>;
  static constexpr int tokens = 4;
  static constexpr bool any_bytes = false, narrow = true, has_few = true, float_powers = false;
  using IVec = Ints<lanes>;

  CHIMERA_TARGET CHIMERA_INLINE static __m256i in(const IVec& x) { return reinterpret_cast<__m256i>(x.v); }
  CHIMERA_TARGET CHIMERA_INLINE static IVec out(__m256i x) { return IVec(reinterpret_cast<IVec::Native>(x)); }

  CHIMERA_TARGET CHIMERA_INLINE static IVec broadcast(const void* p) {
    float x = 0;
    std::memcpy(&x, p, sizeof x);
    return bits_of<lanes>(Vec<lanes>(x));
  }
  /// sum + x, after what comes before: g++ 12 would make all products of a tile first, for which there are too few
  /// registers.
  CHIMERA_TARGET CHIMERA_INLINE static IVec add16(const IVec& sum, const IVec& x) {
#if defined(__clang__)
    return out(_mm256_add_epi16(in(sum), in(x)));
#else
    IVec r = sum;
    asm volatile("vpaddw %1, %0, %0" : "+x"(r.v) : "x"(x.v));
    return r;
#endif
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec add32(const IVec& sum, const IVec& x) {
#if defined(__clang__)
    return sum + x;
#else
    IVec r = sum;
    asm volatile("vpaddd %1, %0, %0" : "+x"(r.v) : "x"(x.v));
    return r;
#endif
  }

  template <bool wide>
  CHIMERA_TARGET CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    if constexpr (wide) {
      // |codes| times x with the signs of codes: a pair is at most 2 * 128 * 127.
      const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(in(codes)), _mm256_sign_epi8(in(x), in(codes)));
      return add32(sum, out(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
    } else {
      return add16(sum, out(_mm256_maddubs_epi16(in(codes), in(x))));
    }
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec total(const IVec& sum) {
    return out(_mm256_madd_epi16(in(sum), _mm256_set1_epi16(1)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec total(const IVec& sum, const IVec& factors) {
    return out(_mm256_madd_epi16(in(sum), in(factors)));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec factors(const IVec& scales) {
    return out(_mm256_blend_epi16(in(scales), _mm256_slli_epi32(in(scales), 16), 0xaa));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec start(const IVec& word, int zero) {
    return out(_mm256_slli_epi16(in(word), zero));
  }

  CHIMERA_TARGET CHIMERA_INLINE static Vec<lanes> scaled(const Vec<lanes>& d, const IVec& power) {
    return d * from_bits<lanes>(power);
  }

  CHIMERA_TARGET CHIMERA_INLINE static Vec<lanes> halves(const std::byte* p) {
    return Vec<lanes>(
        reinterpret_cast<Vec<lanes>::Native>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL

#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif
#endif
