// Products with packed weights by portable vectors: the level of processors for which there is no other. It shows what
// a level's `Ops` are.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/half_formats.hpp>
#include <chimera/kernels/integers.hpp>
#include <chimera/kernels/k_formats.hpp>
#include <chimera/kernels/packed_input.hpp>
#include <chimera/kernels/packed_layout.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define CHIMERA_LEVEL packed_base
#define CHIMERA_TARGET

namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

/// A lane is a row, and holds four codes, or a sum. `Sum`s of products may have a form of their own until `total` makes
/// them integers, and so have the words that stand for the sums of inputs.
struct Ops {
  static constexpr int lanes = 4;   // of a register
  static constexpr int tokens = 4;  // rows of x that are multiplied at once
  using I = Ints<lanes>;

  CHIMERA_INLINE static I byte(const I& x, int n) { return (x << (24 - 8 * n)) >> 24; }

  /// sum + codes x, four products a lane. Codes are 0 ... 63, x are signed bytes.
  CHIMERA_INLINE static I dot(const I& sum, const I& codes, const I& x) { return wide_dot(sum, codes, x); }
  /// The integer that a sum stands for.
  CHIMERA_INLINE static I total(const I& sum) { return sum; }
  /// Times a sub-block's scale, or an offset, from `multipliers`.
  CHIMERA_INLINE static I total(const I& sum, const I& multipliers) { return sum * multipliers; }
  CHIMERA_INLINE static I multipliers(const I& scales) { return scales; }
  /// What sums start from so that codes stand for code - 2^zero.
  CHIMERA_INLINE static I start(const I& word, int zero) { return word << zero; }

  /// sum + codes x for signed codes of eight bits; here sums are integers at once.
  CHIMERA_INLINE static I wide_dot(const I& sum, const I& codes, const I& x) {
    return sum + byte(codes, 0) * byte(x, 0) + byte(codes, 1) * byte(x, 1) + byte(codes, 2) * byte(x, 2) +
           byte(codes, 3) * byte(x, 3);
  }
  CHIMERA_INLINE static I wide_start(const I&) { return {}; }

  /// `lanes` numbers of f16.
  CHIMERA_INLINE static Vec<lanes> halves(const std::byte* p) {
    return from_f16<lanes>(I::template load<std::uint16_t>(p));
  }

  /// q [32] = x * inverse, to nearest. What is no number becomes some byte.
  CHIMERA_INLINE static void quantize(const float* x, float inverse, std::int8_t* q) {
    using V = Vec<lanes>;
    for (int i = 0; i < 32; i += lanes) {
      const V scaled = product<lanes>(V::load(x + i), V(inverse));
      const V limited = min<lanes>(max<lanes>(scaled, V(-127.f)), V(127.f));
      truncated<lanes>(format_parts::nearest<lanes>(limited))
          .template store<std::int8_t>(reinterpret_cast<std::byte*>(q + i));
    }
  }
  /// Words of the sums of q[0 ... 16) and q[16 ... 32), with their signs changed.
  CHIMERA_INLINE static void sums(const std::int8_t* q, std::int32_t* words) {
    for (int h = 0; h < 2; ++h) {
      words[h] = 0;
      for (int i = 0; i < 16; ++i) words[h] -= q[16 * h + i];
    }
  }
  CHIMERA_INLINE static std::int32_t add(std::int32_t a, std::int32_t b) { return a + b; }
  CHIMERA_INLINE static std::int32_t value(std::int32_t word) { return word; }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL

#include <chimera/kernels/packed_loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
