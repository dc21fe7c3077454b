// Products with packed weights by vpdpbusd, which adds four products of bytes to an i32: AVX-VNNI on 8 lanes, AVX-512
// VNNI on 16.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/packed/avx2.hpp>
#include <chimera/kernels/packed/avx512.hpp>
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

#define CHIMERA_LEVEL packed_avx_vnni
#define CHIMERA_TARGET __attribute__((__target__("avx2,fma,f16c,avxvnni")))
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::UnsignedOps<8> {
  static constexpr int tokens = 4;
  static constexpr bool has_few = true;
  using InputKernels = packed_avx2::Kernels;
  using Quantize = packed_avx2::FourUnits<false>;
  using FloatKernels = packed_avx2::Kernels;

  template <bool wide>
  CHIMERA_TARGET CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    return IVec(reinterpret_cast<IVec::Native>(_mm256_dpbusd_avx_epi32(
        reinterpret_cast<__m256i>(sum.v), reinterpret_cast<__m256i>(codes.v), reinterpret_cast<__m256i>(x.v))));
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#define CHIMERA_LEVEL packed_avx512_vnni
#define CHIMERA_TARGET __attribute__((__target__("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")))
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::UnsignedOps<16> {
  static constexpr int tokens = 6;
  static constexpr bool has_few = true, float_powers = true;
  using InputKernels = packed_avx2::Kernels;
  using Quantize = packed_avx2::FourUnits<false>;
  using FloatKernels = packed_avx512::Kernels;

  template <bool wide>
  CHIMERA_TARGET CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    return IVec(reinterpret_cast<IVec::Native>(_mm512_dpbusd_epi32(
        reinterpret_cast<__m512i>(sum.v), reinterpret_cast<__m512i>(codes.v), reinterpret_cast<__m512i>(x.v))));
  }
  CHIMERA_TARGET CHIMERA_INLINE static IVec broadcast(const void* p) { return packed_avx512::Ops::broadcast(p); }
  CHIMERA_TARGET CHIMERA_INLINE static Vec<16> scaled(const Vec<16>& d, const IVec& power) {
    return packed_avx512::Ops::scaled(d, power);
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif
#endif
