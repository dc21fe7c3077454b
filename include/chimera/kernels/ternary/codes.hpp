// Weights of three values and activations of 8 bits, as BitNet b1.58 has them (Ma et al., 2402.17764):
//   s = max(mean |W|, 1e-5),      q = clip(round(W / s), -1, 1),        W^ = s q        for each group of weights
//   a = 127 / max(max |x|, 1e-5), r = clip(round(a x), -128, 127),      x^ = r / a      for each row
// Halves go to the even neighbour. Gradients pass through the rounding as if it were not there. All of it has the same
// bits at every level and for every number of threads.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera {

/// A matrix W [out, in] and what of it shares a scale: `group` consecutive weights of a row, a multiple of 32
/// that divides `in`; 0: all rows of a part, of `parts` rows each, and all of W where it is one.
struct TernaryShape {
  std::int64_t out = 0, in = 0, group = 0;
  std::array<std::int64_t, Tensor::most_parts> parts{};

  constexpr std::int64_t groups() const { return group > 0 ? in / group : 1; }  // of a row
  constexpr std::int64_t group_size() const { return group > 0 ? group : in; }
};

/// What holds weights back that lie deep inside the zero: |W| / s below `depth` get no gradient, but where more than
/// `most_zeros` of a group are 0, which would never come out of it again.
struct DeepZero {
  float depth = 0.f, most_zeros = 1.f;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// scales [out, groups] of W.
template <Device D>
void ternary_scales(const D& q, const TernaryShape& s, const float* w, float* scales);

/// rounded [out, in] = W^.
template <Device D>
void ternary_weights(const D& q, const TernaryShape& s, const float* w, const float* scales, float* rounded);

/// dw [out, in] += dweights, those of deep zeros left out.
template <Device D>
void ternary_gradient(const D& q, const TernaryShape& s, DeepZero deep, const float* w, const float* scales,
                      const float* dweights, float* dw);

/// rounded [rows, n] = x^, the rows of x ldx floats apart.
template <Device D>
void rounded_rows(const D& q, std::int64_t rows, std::int64_t n, const float* x, std::int64_t ldx, float* rounded);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace ternary_parts {

/// Sum of |x|, in 16 sums at every level.
template <int W>
CHIMERA_INLINE double sum_of_magnitudes(const float* x, std::int64_t n) {
  float sums[16];
  Vec<W> s[16 / W];
  for (std::int64_t i = 0; i < n; i += 16) {
#pragma GCC unroll 4
    for (int v = 0; v < 16 / W; ++v) {
      const std::int64_t at = i + v * W, left = n - at;
      if (left <= 0) break;
      const Vec<W> some = left >= W ? Vec<W>::load(x + at) : Vec<W>::load(x + at, left);
      s[v] += from_bits<W>(bits_of<W>(some) & 0x7fffffff);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < 16 / W; ++v) s[v].store(sums + v * W);
  double sum = 0;
  for (const float part : sums) sum += double{part};
  return sum;
}

struct Magnitudes {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, double* sum) {
    *sum = sum_of_magnitudes<W>(x, n);
  }
};

constexpr float scale_of(double sum, std::int64_t n) {
  const auto mean = static_cast<float>(sum / static_cast<double>(n));
  return mean < 1e-5f ? 1e-5f : mean;  // what is no number stays so
}

/// The largest |x| of a row, or what is no number.
template <int W>
CHIMERA_INLINE float largest_magnitude(const float* x, std::int64_t n) {
  Ints<W> most;
  lanes<W>(n,
           [&](std::int64_t i, auto io) CHIMERA_LAMBDA { most = max(most, bits_of<W>(io.load(x + i)) & 0x7fffffff); });
  std::int32_t all[W];
  from_bits<W>(most).store(reinterpret_cast<float*>(all));
  std::int32_t largest = 0;
  for (const std::int32_t bits : all) largest = std::max(largest, bits);
  float magnitude = 0;
  std::memcpy(&magnitude, &largest, sizeof magnitude);
  return magnitude < 1e-5f ? 1e-5f : magnitude;
}

/// x a + 1.5 2^23: its lowest byte is round(x a), halves to even, which needs no clipping where a is a row's own.
template <int W>
CHIMERA_INLINE Vec<W> rounding(const Vec<W>& x, const Vec<W>& a) {
  return product<W>(x, a) + Vec<W>(12582912.f);
}

struct RoundedRow {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, float* rounded) {
    const float most = largest_magnitude<W>(x, n);
    const Vec<W> a = 127.f / most, back = most / 127.f;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> r = as_floats<W>((bits_of<W>(rounding<W>(io.load(x + i), a)) << 24) >> 24);
      io.store(rounded + i, r * back);
    });
  }
};

/// One group: rounded = s q.
struct RoundedWeights {
  template <int W>
  CHIMERA_INLINE static void run(const float* w, std::int64_t n, float scale, float* rounded) {
    using V = Vec<W>;
    const V s = scale, half = 0.5f * scale, none = s * V(0.f);  // no number where the scale is none
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const V x = io.load(w + i);
      io.store(rounded + i, less<W>(half, x, s, less<W>(x, -half, -s, none)));
    });
  }
};

/// One group: dw += dweights.
struct AddGradient {
  template <int W>
  CHIMERA_INLINE static void run(const float* w, std::int64_t n, float scale, DeepZero deep, const float* dweights,
                                 float* dw) {
    using V = Vec<W>;
    const V half = 0.5f * scale, depth = deep.depth * scale;
    V zeros;
    if (deep.most_zeros < 1.f)
      lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const V x = io.load(w + i);
        zeros += less<W>(half, max<W>(x, -x), V(0.f), V(1.f));
      });
    float count = 0;
    if (deep.most_zeros < 1.f) count = sum<W>(zeros) - static_cast<float>((W - n % W) % W);
    const bool all = deep.depth <= 0.f || count > deep.most_zeros * static_cast<float>(n);
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const V x = io.load(w + i), g = io.load(dweights + i);
      io.store(dw + i, io.load(dw + i) + (all ? g : less<W>(max<W>(x, -x), depth, V(0.f), g)));
    });
  }
};

/// Calls f(row, group, where it begins) for every group, in parallel.
template <Device D, class F>
void each_group(const D& q, const TernaryShape& s, F f) {
  parallel(q, s.out, s.out * s.in * std::int64_t{sizeof(float)}, [&](std::int64_t row, int) {
    for (std::int64_t g = 0; g < s.groups(); ++g) f(row, g, row * s.in + g * s.group_size());
  });
}

}  // namespace ternary_parts

template <Device D>
void ternary_scales(const D& q, const TernaryShape& s, const float* w, float* scales) {
  using namespace ternary_parts;
  if (s.group > 0)
    return each_group(q, s, [&](std::int64_t row, std::int64_t g, std::int64_t at) {
      double sum = 0;
      dispatch<Magnitudes>(q.isa(), w + at, s.group, &sum);
      scales[row * s.groups() + g] = scale_of(sum, s.group);
    });
  // Sums of rows as f32 where their scales will be: each to be added to the others of its part.
  each_group(q, s, [&](std::int64_t row, std::int64_t, std::int64_t at) {
    double sum = 0;
    dispatch<Magnitudes>(q.isa(), w + at, s.in, &sum);
    scales[row] = static_cast<float>(sum);
  });
  for (std::int64_t row = 0; row < s.out;) {
    const std::int64_t end = part_end(s.parts, s.out, row);
    double sum = 0;
    for (std::int64_t r = row; r < end; ++r) sum += double{scales[r]};
    std::fill(scales + row, scales + end, scale_of(sum, (end - row) * s.in));
    row = end;
  }
}

template <Device D>
void ternary_weights(const D& q, const TernaryShape& s, const float* w, const float* scales, float* rounded) {
  using namespace ternary_parts;
  each_group(q, s, [&](std::int64_t row, std::int64_t g, std::int64_t at) {
    dispatch<RoundedWeights>(q.isa(), w + at, s.group_size(), scales[row * s.groups() + g], rounded + at);
  });
}

template <Device D>
void ternary_gradient(const D& q, const TernaryShape& s, DeepZero deep, const float* w, const float* scales,
                      const float* dweights, float* dw) {
  using namespace ternary_parts;
  each_group(q, s, [&](std::int64_t row, std::int64_t g, std::int64_t at) {
    dispatch<AddGradient>(q.isa(), w + at, s.group_size(), scales[row * s.groups() + g], deep, dweights + at, dw + at);
  });
}

template <Device D>
void rounded_rows(const D& q, std::int64_t rows, std::int64_t n, const float* x, std::int64_t ldx, float* rounded) {
  parallel(q, rows, rows * n * std::int64_t{sizeof(float)}, [&](std::int64_t row, int) {
    dispatch<ternary_parts::RoundedRow>(q.isa(), x + row * ldx, n, rounded + row * n);
  });
}

#if defined(CHIMERA_COMPILE)
template void ternary_scales(const Cpu& q, const TernaryShape& s, const float* w, float* scales);
template void ternary_weights(const Cpu& q, const TernaryShape& s, const float* w, const float* scales, float* rounded);
template void ternary_gradient(const Cpu& q, const TernaryShape& s, DeepZero deep, const float* w, const float* scales,
                               const float* dweights, float* dw);
template void rounded_rows(const Cpu& q, std::int64_t rows, std::int64_t n, const float* x, std::int64_t ldx,
                           float* rounded);
#endif

}  // namespace chimera::inline CHIMERA_ABI
#endif
