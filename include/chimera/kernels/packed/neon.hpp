// Products with packed weights on AArch64: NEON widens products to 16 bits; SDOT, where there is one, adds four to
// an i32.
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
#if defined(__aarch64__)
#include <arm_neon.h>

#define CHIMERA_LEVEL packed_neon
#define CHIMERA_TARGET
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::IntegerOps<4> {
  static constexpr int tokens = 4;

  /// Two products fit 16 bits: 2 * 128 * 127.
  template <bool wide>
  CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    const auto a = reinterpret_cast<int8x16_t>(codes.v), b = reinterpret_cast<int8x16_t>(x.v);
    const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
    return IVec(vpadalq_s16(sum.v, pairs));
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#define CHIMERA_LEVEL packed_dotprod
#define CHIMERA_TARGET __attribute__((__target__("arch=armv8.2-a+dotprod")))
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::IntegerOps<4> {
  static constexpr int tokens = 4;

  template <bool wide>
  CHIMERA_TARGET CHIMERA_INLINE static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    return IVec(vdotq_s32(sum.v, reinterpret_cast<int8x16_t>(codes.v), reinterpret_cast<int8x16_t>(x.v)));
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif
#endif
