// What levels have in common whose sums of products are integers from the start.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/formats/k_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstddef>
#include <cstdint>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace packed_parts {

/// A lane is a row, and holds four codes, or a sum. A level adds
///
///   tokens     rows of x that are multiplied at once
///   dot        sum + codes x, four products a lane. Codes are 0 ... 63, x are signed bytes without -128.
///   wide_dot   the same for signed codes of eight bits
///
/// and may have forms of its own for sums, and for the words that stand for the sums of inputs, until `total` makes
/// them integers.
template <int W>
struct IntegerOps {
  static constexpr int lanes = W;  // of a register
  using FloatKernels = void;       // of another level whose products of f32 are the same
  using IVec = Ints<W>;

  /// The integer that a sum stands for.
  CHIMERA_INLINE static IVec total(const IVec& sum) { return sum; }
  /// Times a sub-block's scale, or an offset, from `multipliers`.
  CHIMERA_INLINE static IVec total(const IVec& sum, const IVec& multipliers) { return sum * multipliers; }
  CHIMERA_INLINE static IVec multipliers(const IVec& scales) { return scales; }
  /// What sums start from so that codes stand for code - 2^zero.
  CHIMERA_INLINE static IVec start(const IVec& word, int zero) { return word << zero; }
  /// What sums of `wide_dot` start from.
  CHIMERA_INLINE static IVec wide_start(const IVec&) { return {}; }

  /// `lanes` numbers of f16.
  CHIMERA_INLINE static Vec<W> halves(const std::byte* p) { return load_f16<W>(p); }

  /// q [32] = x * inverse, to nearest. What is no number becomes some byte.
  CHIMERA_INLINE static void quantize(const float* x, float inverse, std::int8_t* q) {
    using V = Vec<W>;
    for (int i = 0; i < 32; i += W) {
      const V scaled = V::load(x + i) * V(inverse);
      const V limited = min<W>(max<W>(scaled, V(-127.f)), V(127.f));
      truncated<W>(format_parts::nearest<W>(limited)).template store<std::int8_t>(reinterpret_cast<std::byte*>(q + i));
    }
  }
  /// Words of the sums of q[0 ... 16) and q[16 ... 32), with their signs changed.
  CHIMERA_INLINE static void sums(const std::int8_t* q, std::int32_t* words) {
    for (int h = 0; h < 2; ++h) {
      IVec s;
      for (int i = 0; i < 16; i += W)
        s = s + IVec::template load<std::int8_t>(reinterpret_cast<const std::byte*>(q + 16 * h + i));
      words[h] = -static_cast<std::int32_t>(sum<W>(as_floats<W>(s)));
    }
  }
  CHIMERA_INLINE static std::int32_t add(std::int32_t a, std::int32_t b) { return a + b; }
  CHIMERA_INLINE static std::int32_t value(std::int32_t word) { return word; }
};

/// Where the instruction multiplies unsigned bytes with signed ones, as vpdpbusd: signed codes become code + 128, and
/// sums start from -128 times the sum of x.
template <int W>
struct UnsignedOps : IntegerOps<W> {
  using IVec = Ints<W>;

  CHIMERA_INLINE static IVec unsigned_codes(const IVec& codes) {
    return IVec(codes.v ^ IVec(static_cast<std::int32_t>(0x80808080)).v);
  }
  CHIMERA_INLINE static IVec wide_start(const IVec& word) { return word << 7; }
};

}  // namespace packed_parts
}  // namespace chimera::inline CHIMERA_ABI
#endif
