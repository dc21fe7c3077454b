// Q4_K, Q5_K and Q6_K: blocks of 256 numbers in sub-blocks, whose scales are small integers times a scale of the block.
// Each type reads and writes one block: decode<W>(block, x) and encode<W>(x, block).
//
// Writing is a least-squares fit. First each sub-block is fitted alone: some ways to round it to quanta are tried, and
// the scale (and offset) nearest to the numbers follows for each from sums. Then the scales become integers times the
// block's, and of the integers around each the best is kept. A lane fits one sub-block, so that every sum has the same
// order at every level.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/formats/simple_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI::format_parts {

/// The nearest whole number, |x| < 2^22.
template <int W>
CHIMERA_INLINE Vec<W> nearest(const Vec<W>& x) {
  const Vec<W> magic = 12582912.f;  // 1.5 * 2^23
  return rounded<W>(x + magic) - magic;
}

template <int W>
CHIMERA_INLINE Vec<W> within(const Vec<W>& x, float low, float high) {
  return min<W>(max<W>(x, Vec<W>(low)), Vec<W>(high));
}

/// x / d as one of the whole numbers from low to high; 1 / d is given.
template <int W>
CHIMERA_INLINE Vec<W> quantum(const Vec<W>& x, const Vec<W>& inverse, float low, float high) {
  return within<W>(nearest<W>(product<W>(x, inverse)), low, high);
}

/// d as an f16 keeps it; the integers that multiply it can still serve numbers so small that it would be 0.
CHIMERA_INLINE float scale_as_f16(float d) {
  const float rounded = from_f16<1>(to_f16<1>(Vec<1>(d))).v[0];
  return rounded == 0.f && d != 0.f ? std::copysign(5.9604645e-8f, d) : rounded;
}

/// `inverse_scale` of each lane.
template <int W>
CHIMERA_INLINE Vec<W> inverse_scales(const Vec<W>& d) {
  const Vec<W> size = max<W>(d, -d), least = 1e-30f, one = 1.f;
  return less<W>(size, least, Vec<W>(0.f), one / less<W>(size, least, one, d));
}

/// Sub-blocks side by side: number i of all of them, then number i + 1.
template <int sub_blocks, int n>
struct SideBySide {
  float x[sub_blocks * n];

  CHIMERA_INLINE explicit SideBySide(const float* from) {
    for (int j = 0; j < sub_blocks; ++j)
      for (int i = 0; i < n; ++i) x[i * sub_blocks + j] = from[j * n + i];
  }
  /// Number i of L sub-blocks from j.
  template <int L>
  CHIMERA_INLINE Vec<L> at(int i, int j) const {
    return Vec<L>::load(x + i * sub_blocks + j);
  }
};

/// How many sub-blocks are fitted at once.
constexpr int fit_lanes(int W) { return W < 8 ? W : 8; }

/// x = d s q - dmin m in eight sub-blocks of 32 numbers, with 0 <= q <= most and integers s and m from 0 to 63.
struct AffineFit {
  using Numbers = SideBySide<8, 32>;

  float d = 0.f, dmin = 0.f;  // as an f16 keeps them
  float s[8], m[8];

  template <int W>
  CHIMERA_INLINE static AffineFit of(const float* from, float most) {
    constexpr int L = fit_lanes(W);
    AffineFit fit;
    const Numbers x(from);
    for (int j = 0; j < 8; j += L) fit.each_alone<L>(x, j, most);
    fit.d = scale_as_f16(*std::max_element(fit.s, fit.s + 8) / 63.f);
    fit.dmin = scale_as_f16(*std::max_element(fit.m, fit.m + 8) / 63.f);
    for (int j = 0; j < 8; j += L) fit.to_integers<L>(x, j, most);
    return fit;
  }

  /// Real s and m, for d = dmin = 1.
  template <int L>
  CHIMERA_INLINE void each_alone(const Numbers& x, int j, float most) {
    using V = Vec<L>;
    V least = 0.f, largest = x.at<L>(0, j);
    for (int i = 0; i < 32; ++i) {
      least = min<L>(least, x.at<L>(i, j));
      largest = max<L>(largest, x.at<L>(i, j));
    }
    const V unit = inverse_scales<L>(largest - least), n = 32.f;
    V sum_u;  // u = x - least
    for (int i = 0; i < 32; ++i) sum_u += x.at<L>(i, j) - least;
    V best_s, best_m = -least, best_gain;
    for (int step = -10; step <= 10; ++step) {
      const V steps = unit * V(most + 0.2f * static_cast<float>(step));
      V q1, q2, uq;  // the sums of q, q^2 and u q; the first two are exact
      for (int i = 0; i < 32; ++i) {
        const V u = x.at<L>(i, j) - least;
        const V q = quantum<L>(u, steps, 0.f, most);
        q1 += q;
        q2 += q * q;
        uq += product<L>(u, q);
      }
      // u = scale q + shift, and x = scale q + least + shift, where least + shift may not be positive.
      const V variance = n * q2 - q1 * q1;
      V scale = (product<L>(n, uq) - product<L>(sum_u, q1)) * inverse_scales<L>(variance);
      V shift = (sum_u - product<L>(scale, q1)) * V(1.f / 32);
      const V positive = least + shift;
      const V through_zero = (uq + product<L>(least, q1)) * inverse_scales<L>(q2);
      scale = less<L>(V(0.f), positive, through_zero, scale);
      shift = less<L>(V(0.f), positive, -least, shift);
      // What the fit takes away from the sum of u^2.
      const V linear = product<L>(scale, uq) + product<L>(shift, sum_u);
      const V square = product<L>(scale, product<L>(scale, q2) + product<L>(shift, q1 + q1)) +
                       product<L>(shift, product<L>(shift, n));
      const V gain = linear + linear - square;
      best_s = less<L>(best_gain, gain, scale, best_s);
      best_m = less<L>(best_gain, gain, -(least + shift), best_m);
      best_gain = max<L>(best_gain, gain);
    }
    best_s.store(s + j);
    best_m.store(m + j);
  }

  /// Integers near s / d and m / dmin.
  template <int L>
  CHIMERA_INLINE void to_integers(const Numbers& x, int j, float most) {
    using V = Vec<L>;
    const V middle_s = nearest<L>(product<L>(V::load(s + j), V(inverse_scale(d))));
    const V middle_m = nearest<L>(product<L>(V::load(m + j), V(inverse_scale(dmin))));
    V best_s, best_m, best_error = 3e38f;
    for (int a = -1; a <= 1; ++a)
      for (int b = -1; b <= 1; ++b) {
        const V try_s = within<L>(middle_s + V(static_cast<float>(a)), 0.f, 63.f);
        const V try_m = within<L>(middle_m + V(static_cast<float>(b)), 0.f, 63.f);
        const V scale = try_s * V(d), offset = try_m * V(dmin), steps = inverse_scales<L>(scale);
        V error;
        for (int i = 0; i < 32; ++i) {
          const V u = x.at<L>(i, j) + offset;
          const V e = u - product<L>(scale, quantum<L>(u, steps, 0.f, most));
          error += product<L>(e, e);
        }
        best_s = less<L>(error, best_error, try_s, best_s);
        best_m = less<L>(error, best_error, try_m, best_m);
        best_error = min<L>(best_error, error);
      }
    best_s.store(s + j);
    best_m.store(m + j);
  }

  /// Quanta of the numbers x[0 ... W) of sub-block j.
  template <int W>
  CHIMERA_INLINE Ints<W> quanta(const float* x, int j, float most) const {
    const Vec<W> u = Vec<W>::load(x) + Vec<W>(dmin * m[j]);
    return truncated<W>(quantum<W>(u, Vec<W>(inverse_scale(d * s[j])), 0.f, most));
  }
};

/// x = d s q in sixteen sub-blocks of 16 numbers, with -32 <= q <= 31 and integers s from -128 to 127.
struct LinearFit {
  using Numbers = SideBySide<16, 16>;

  float d = 0.f;  // as an f16 keeps it
  float s[16];

  template <int W>
  CHIMERA_INLINE static LinearFit of(const float* from) {
    constexpr int L = fit_lanes(W);
    LinearFit fit;
    const Numbers x(from);
    for (int j = 0; j < 16; j += L) fit.each_alone<L>(x, j);
    fit.d = scale_as_f16(furthest<4>(fit.s, 16) / -128.f);
    for (int j = 0; j < 16; j += L) fit.to_integers<L>(x, j);
    return fit;
  }

  template <int L>
  CHIMERA_INLINE void each_alone(const Numbers& x, int j) {
    using V = Vec<L>;
    V least = x.at<L>(0, j), largest = least;
    for (int i = 1; i < 16; ++i) {
      least = min<L>(least, x.at<L>(i, j));
      largest = max<L>(largest, x.at<L>(i, j));
    }
    // The quanta reach one further below zero: there goes the number furthest from it.
    const V unit = -inverse_scales<L>(less<L>(largest, -least, least, largest));
    V best_s, best_gain;
    for (int step = -10; step <= 10; ++step) {
      const V steps = unit * V(32.f + 0.2f * static_cast<float>(step));
      V q2, xq;  // the sums of q^2 and x q
      for (int i = 0; i < 16; ++i) {
        const V q = quantum<L>(x.at<L>(i, j), steps, -32.f, 31.f);
        q2 += q * q;
        xq += product<L>(x.at<L>(i, j), q);
      }
      const V scale = xq * inverse_scales<L>(q2), gain = scale * xq;
      best_s = less<L>(best_gain, gain, scale, best_s);
      best_gain = max<L>(best_gain, gain);
    }
    best_s.store(s + j);
  }

  template <int L>
  CHIMERA_INLINE void to_integers(const Numbers& x, int j) {
    using V = Vec<L>;
    const V middle = nearest<L>(product<L>(V::load(s + j), V(inverse_scale(d))));
    V best_s, best_error = 3e38f;
    for (int a = -1; a <= 1; ++a) {
      const V try_s = within<L>(middle + V(static_cast<float>(a)), -128.f, 127.f);
      const V scale = try_s * V(d), steps = inverse_scales<L>(scale);
      V error;
      for (int i = 0; i < 16; ++i) {
        const V e = x.at<L>(i, j) - product<L>(scale, quantum<L>(x.at<L>(i, j), steps, -32.f, 31.f));
        error += product<L>(e, e);
      }
      best_s = less<L>(error, best_error, try_s, best_s);
      best_error = min<L>(best_error, error);
    }
    best_s.store(s + j);
  }

  /// Quanta of the numbers x[0 ... W) of sub-block j.
  template <int W>
  CHIMERA_INLINE Ints<W> quanta(const float* x, int j) const {
    return truncated<W>(quantum<W>(Vec<W>::load(x), Vec<W>(inverse_scale(d * s[j])), -32.f, 31.f));
  }
};

/// Eight pairs of 6 bits in 12 bytes: the scale s and the offset m of each sub-block of Q4_K and Q5_K. Bytes 0..3 hold
/// s of the first four, 4..7 their m, 8..11 the low nibbles of s and m of the last four, whose upper two bits lie on
/// top of the bytes 0..7.
struct SixBitPairs {
  std::uint8_t s[8], m[8];

  CHIMERA_INLINE static SixBitPairs load(const std::byte* p) {
    std::uint8_t b[12];
    std::memcpy(b, p, sizeof b);
    SixBitPairs r;
    for (int j = 0; j < 4; ++j) {
      r.s[j] = b[j] & 63;
      r.m[j] = b[j + 4] & 63;
      r.s[j + 4] = static_cast<std::uint8_t>((b[j + 8] & 15) | (b[j] >> 6) << 4);
      r.m[j + 4] = static_cast<std::uint8_t>(b[j + 8] >> 4 | (b[j + 4] >> 6) << 4);
    }
    return r;
  }

  CHIMERA_INLINE static void store(const AffineFit& fit, std::byte* p) {
    for (int j = 0; j < 4; ++j) {
      const auto s = static_cast<int>(fit.s[j]), m = static_cast<int>(fit.m[j]);
      const auto s4 = static_cast<int>(fit.s[j + 4]), m4 = static_cast<int>(fit.m[j + 4]);
      p[j] = static_cast<std::byte>(s | s4 >> 4 << 6);
      p[j + 4] = static_cast<std::byte>(m | m4 >> 4 << 6);
      p[j + 8] = static_cast<std::byte>((s4 & 15) | (m4 & 15) << 4);
    }
  }
};

/// Fields: f16 d; f16 dmin; 12 bytes of scales and offsets; 128 bytes: in each 32, low nibbles are one sub-block and
/// high nibbles the next. x = d s q - dmin m. Products of d and s are exact in f32, and so are those with q.
struct Q4_K {
  static constexpr std::int64_t values = 256, bytes = 144;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block), dmin = load_f16(block + 2);
    const SixBitPairs pairs = SixBitPairs::load(block + 4);
    block += 16;
    for (int j = 0; j < 8; j += 2, block += 32, x += 64)
      for (int i = 0; i < 32; i += W) {
        const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + i);
        (Vec<W>(d * pairs.s[j]) * as_floats<W>(q & 15) - Vec<W>(dmin * pairs.m[j])).store(x + i);
        (Vec<W>(d * pairs.s[j + 1]) * as_floats<W>(q >> 4) - Vec<W>(dmin * pairs.m[j + 1])).store(x + i + 32);
      }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const AffineFit fit = AffineFit::of<W>(x, 15.f);
    store_f16(block, fit.d);
    store_f16(block + 2, fit.dmin);
    SixBitPairs::store(fit, block + 4);
    block += 16;
    for (int j = 0; j < 8; j += 2, block += 32, x += 64)
      for (int i = 0; i < 32; i += W) {
        const Ints<W> low = fit.quanta<W>(x + i, j, 15.f), high = fit.quanta<W>(x + i + 32, j + 1, 15.f);
        (low | high << 4).template store<std::uint8_t>(block + i);
      }
  }
};

/// Fields: f16 d; f16 dmin; 12 bytes of scales and offsets; 32 bytes of fifth bits, bit j for sub-block j; 128 bytes as
/// in Q4_K. x = d s q - dmin m.
struct Q5_K {
  static constexpr std::int64_t values = 256, bytes = 176;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block), dmin = load_f16(block + 2);
    const SixBitPairs pairs = SixBitPairs::load(block + 4);
    const std::byte* fifth = block + 16;
    block += 48;
    for (int j = 0; j < 8; j += 2, block += 32, x += 64)
      for (int i = 0; i < 32; i += W) {
        const Ints<W> q = Ints<W>::template load<std::uint8_t>(block + i);
        const Ints<W> f = Ints<W>::template load<std::uint8_t>(fifth + i) >> j;
        const Ints<W> low = (q & 15) | (f & 1) << 4, high = q >> 4 | (f & 2) << 3;
        (Vec<W>(d * pairs.s[j]) * as_floats<W>(low) - Vec<W>(dmin * pairs.m[j])).store(x + i);
        (Vec<W>(d * pairs.s[j + 1]) * as_floats<W>(high) - Vec<W>(dmin * pairs.m[j + 1])).store(x + i + 32);
      }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const AffineFit fit = AffineFit::of<W>(x, 31.f);
    store_f16(block, fit.d);
    store_f16(block + 2, fit.dmin);
    SixBitPairs::store(fit, block + 4);
    for (int i = 0; i < 32; i += W) {
      Ints<W> fifth;
      for (int j = 0; j < 8; j += 2) {
        const Ints<W> low = fit.quanta<W>(x + 32 * j + i, j, 31.f),
                      high = fit.quanta<W>(x + 32 * j + i + 32, j + 1, 31.f);
        fifth = fifth | (low >> 4) << j | (high >> 4) << (j + 1);
        ((low & 15) | (high & 15) << 4).template store<std::uint8_t>(block + 48 + 16 * j + i);
      }
      fifth.template store<std::uint8_t>(block + 16 + i);
    }
  }
};

/// Fields: 128 bytes of lower 4 bits; 64 bytes of upper 2 bits; 16 signed bytes of scales s; f16 d. x = d s (q - 32).
/// In each half of 128 numbers, number 32 k + l has its lower bits in byte l + 32 (k % 2) as the nibble k / 2, and its
/// upper bits in byte l at 2 k. A scale serves 16 numbers.
struct Q6_K {
  static constexpr std::int64_t values = 256, bytes = 210;

  template <int W>
  CHIMERA_INLINE static void decode(const std::byte* block, float* x) {
    const float d = load_f16(block + 208);
    std::int8_t scale[16];
    std::memcpy(scale, block + 192, sizeof scale);
    for (int half = 0; half < 2; ++half) {
      const std::byte *lower = block + 64 * half, *upper = block + 128 + 32 * half;
      for (int k = 0; k < 4; ++k)
        for (int l = 0; l < 32; l += W, x += W) {
          const Ints<W> low = Ints<W>::template load<std::uint8_t>(lower + l + 32 * (k % 2)) >> 4 * (k / 2);
          const Ints<W> high = Ints<W>::template load<std::uint8_t>(upper + l) >> 2 * k;
          const Ints<W> q = ((low & 15) | (high & 3) << 4) - 32;
          const int sixteen = 8 * half + 2 * k + l / 16;
          (Vec<W>(d * scale[sixteen]) * as_floats<W>(q)).store(x);
        }
    }
  }

  template <int W>
  CHIMERA_INLINE static void encode(const float* x, std::byte* block) {
    const LinearFit fit = LinearFit::of<W>(x);
    for (int half = 0; half < 2; ++half, x += 128) {
      std::byte *const lower = block + 64 * half, *const upper = block + 128 + 32 * half;
      for (int l = 0; l < 32; l += W) {
        Ints<W> q[4], high;
        for (int k = 0; k < 4; ++k) {
          q[k] = fit.quanta<W>(x + 32 * k + l, 8 * half + 2 * k + l / 16) + 32;
          high = high | (q[k] >> 4) << 2 * k;
        }
        ((q[0] & 15) | (q[2] & 15) << 4).template store<std::uint8_t>(lower + l);
        ((q[1] & 15) | (q[3] & 15) << 4).template store<std::uint8_t>(lower + l + 32);
        high.template store<std::uint8_t>(upper + l);
      }
    }
    for (int j = 0; j < 16; ++j) block[192 + j] = static_cast<std::byte>(static_cast<int>(fit.s[j]));
    store_f16(block + 208, fit.d);
  }
};

}  // namespace chimera::inline CHIMERA_ABI::format_parts
#endif
