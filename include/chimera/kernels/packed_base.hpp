// Products with packed weights by portable vectors: the level of processors for which there is no other.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/integers.hpp>
#include <chimera/kernels/packed_input.hpp>
#include <chimera/kernels/packed_layout.hpp>
#include <chimera/kernels/packed_ops.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define CHIMERA_LEVEL packed_base
#define CHIMERA_TARGET

namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::IntegerOps<4> {
  static constexpr int tokens = 4;

  CHIMERA_INLINE static I byte(const I& x, int n) { return (x << (24 - 8 * n)) >> 24; }
  CHIMERA_INLINE static I dot(const I& sum, const I& codes, const I& x) {
    return sum + byte(codes, 0) * byte(x, 0) + byte(codes, 1) * byte(x, 1) + byte(codes, 2) * byte(x, 2) +
           byte(codes, 3) * byte(x, 3);
  }
  CHIMERA_INLINE static I wide_dot(const I& sum, const I& codes, const I& x) { return dot(sum, codes, x); }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL

#include <chimera/kernels/packed_loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
