// Of a whole gradient: its global norm, and how far it is clipped.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace chimera::inline CHIMERA_ABI {

/// Floats of one task of a walk over an arena. Fixed, so that sums are the same for every number of threads.
inline constexpr std::int64_t arena_block = 16'384;

constexpr std::int64_t arena_blocks(std::int64_t floats) { return (floats + arena_block - 1) / arena_block; }

/// Bytes of working memory of gradient_norm.
constexpr std::int64_t gradient_norm_bytes(std::int64_t floats) { return bytes_of<double>({arena_blocks(floats)}); }

/// *norm = the global L2 norm of a gradient arena; not finite if any element is not.
void gradient_norm(const Cpu& q, std::int64_t floats, const float* gradient, double* norm, Bump temp);

/// What a gradient of that norm is multiplied by so that its norm is at most `clip` (0: no limit).
double clip_factor(double norm, double clip);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// Sum of squares of n floats, in double. Sixteen running sums at every level; the product of two floats is exact in
/// double, so the result is the same on every machine.
struct SumOfSquares {
  typedef float Floats __attribute__((__vector_size__(16)));
  typedef double Doubles __attribute__((__vector_size__(32)));

  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, double* result) {
    Doubles a{}, b{}, c{}, d{};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16) add(a, x + i), add(b, x + i + 4), add(c, x + i + 8), add(d, x + i + 12);
    float rest[16] = {};
    for (std::int64_t j = 0; i + j < n; ++j) rest[j] = x[i + j];
    add(a, rest), add(b, rest + 4), add(c, rest + 8), add(d, rest + 12);
    a += b, c += d, a += c;
    *result = (a[0] + a[1]) + (a[2] + a[3]);
  }

 private:
  CHIMERA_INLINE static void add(Doubles& sums, const float* x) {
    Floats part;
    std::memcpy(&part, x, sizeof part);
    const Doubles wide = __builtin_convertvector(part, Doubles);
    sums += wide * wide;
  }
};

CHIMERA_FUNCTION void gradient_norm(const Cpu& q, std::int64_t floats, const float* gradient, double* norm, Bump temp) {
  double* const sums = temp.take<double>(arena_blocks(floats));  // one for each block
  parallel(q, arena_blocks(floats), [&](std::int64_t block, int) {
    const std::int64_t begin = block * arena_block;
    dispatch<SumOfSquares>(q.isa(), gradient + begin, std::min(arena_block, floats - begin), sums + block);
  });
  double sum = 0;
  for (std::int64_t i = 0; i < arena_blocks(floats); ++i) sum += sums[i];
  *norm = std::sqrt(sum);
}

CHIMERA_FUNCTION double clip_factor(double norm, double clip) {
  return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
