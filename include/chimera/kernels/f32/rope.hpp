// Rotary position embedding: the frequencies of every extension, tables of angles, and the rotation.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/batch.hpp>
#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/formats/integers.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace chimera {

/// How heads lie in memory: token t's head h is x[t * stride + h * head_dim ...]; its first `dims` channels turn.
struct RopeShape {
  std::int64_t heads, head_dim, dims, stride;
  RopeLayout layout;
};

/// What rope_frequencies found: radians per token, of each pair, and the factor on cos and sin.
struct RopeTurns {
  std::array<float, Rope::most_pairs> inverse{};
  float factor = 1.f;
  int kept = 0;  // positions below it turn by `unscaled`
  std::array<float, Rope::most_pairs> unscaled{};
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// Writes the dims/2 inverse frequencies (radians per token) and returns the factor on cos and sin.
/// `context` is the trained context when rope.original_context is 0; `length` the longest sequence to come.
/// Linear: Chen et al. 2306.15595. NTK-aware: base f^(d/(d-2)); dynamic: the factor grows with the length. YaRN:
/// Peng et al. 2309.00071, equations 17 to 22. LongRoPE: Ding et al. 2402.13753.
constexpr float rope_frequencies(const Rope& rope, int dims, int context, int length, float* inverse) {
  constexpr double pi = 3.14159265358979323846;
  const double d = dims, factor = rope.factor, base0 = rope.base;
  const double original = rope.original_context ? rope.original_context : context;
  double base = base0;
  if (dims > 2 && rope.scaling == RopeScaling::ntk) base *= constexpr_pow(factor, d / (d - 2));
  if (dims > 2 && rope.scaling == RopeScaling::dynamic_ntk && length > original)
    base *= constexpr_pow(factor * length / original - (factor - 1), d / (d - 2));

  // YaRN's ramp between the dimension that turns beta_fast times in the trained context and the one that turns
  // beta_slow.
  double low = 0, high = 0;
  if (rope.scaling == RopeScaling::yarn) {
    const auto dimension_of = [&](double turns) {
      return d * constexpr_log(original / (turns * 2 * pi)) / (2 * constexpr_log(base0));
    };
    const auto floor = [](double x) {
      const auto whole = static_cast<double>(static_cast<std::int64_t>(x));
      return whole > x ? whole - 1 : whole;
    };
    low = std::max(floor(dimension_of(rope.beta_fast)), 0.0);
    high = std::min(-floor(-dimension_of(rope.beta_slow)), d - 1);
  }

  for (int i = 0; i < dims / 2; ++i) {
    const double theta = constexpr_pow(base, -2.0 * i / d);
    double scaled = theta;
    switch (rope.scaling) {
      case RopeScaling::none:
      case RopeScaling::ntk:
      case RopeScaling::dynamic_ntk: break;
      case RopeScaling::linear: scaled = theta / factor; break;
      case RopeScaling::yarn: {
        const double ramp = std::clamp((i - low) / std::max(high - low, 0.001), 0.0, 1.0);
        scaled = theta * (1 - ramp) + theta / factor * ramp;
        break;
      }
      case RopeScaling::llama3: {
        const double turns = original * theta / (2 * pi);
        const double smooth =
            std::clamp((turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor), 0.0, 1.0);
        scaled = (1 - smooth) * theta / factor + smooth * theta;
        break;
      }
      case RopeScaling::longrope: {
        const auto& stretch = length > original ? rope.long_factor : rope.short_factor;
        scaled = theta / stretch[static_cast<std::size_t>(i)];
        break;
      }
    }
    inverse[i] = static_cast<float>(scaled);
  }

  if (rope.attention_factor != 0.f) return rope.attention_factor;
  const auto temperature = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * constexpr_log(factor) + 1.0; };
  if (rope.scaling == RopeScaling::yarn)
    return static_cast<float>(rope.mscale != 0.f && rope.mscale_all_dim != 0.f
                                  ? temperature(rope.mscale) / temperature(rope.mscale_all_dim)
                                  : temperature(1));
  if (rope.scaling == RopeScaling::longrope && factor > 1)
    return static_cast<float>(constexpr_pow(1 + constexpr_log(factor) / constexpr_log(original), 0.5));
  return 1.f;
}

/// All that heads turn by. `context`: of the config.
constexpr RopeTurns rope_turns(const Rope& rope, int dims, int context) {
  RopeTurns t;
  t.factor = rope_frequencies(rope, dims, context, context, t.inverse.data());
  if (rope.scaling != RopeScaling::longrope) return t;
  t.kept = rope.kept;
  rope_frequencies({.base = rope.base}, dims, context, context, t.unscaled.data());
  return t;
}

/// cos and sin of one position, dims each. Adjacent layout: the pair's cosine twice; its sine as (-s, s).
/// Halves: dims/2 cosines, dims/2 sines, unsigned.
void rope_angles(Isa isa, const RopeTurns& turns, std::int64_t dims, RopeLayout layout, std::int64_t position,
                 float* angles);

/// Floats of one position in a table.
constexpr std::int64_t rope_row(std::int64_t dims, RopeLayout layout) {
  return layout == RopeLayout::halves ? dims : 2 * dims;
}

/// The table [length, rope_row] for positions first, first + 1, ...
void rope_table(const Cpu& q, const RopeTurns& turns, std::int64_t dims, RopeLayout layout, std::int64_t first,
                std::int64_t length, float* table);

/// Turns one token's heads; sign -1 turns back, which is the backward pass.
void rotate(Isa isa, RopeShape s, float sign, const float* angles, float* x);

/// Turns x [B,T,heads] by the table of positions; a token's position counts from the start of its document.
void rope(const Cpu& q, RopeShape s, const Batch& batch, float sign, const float* table, float* x);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// cos and sin of angles that are given in quarters of a circle, whole ones apart: at most 1/2 is left. Polynomials as
/// in Cephes (Moshier), error below 2e-7.
struct QuarterTurns {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* left, const std::int32_t* whole, float factor, float* cos,
                                 float* sin) {
    for (std::int64_t i = 0; i < n; i += W) {
      const Vec<W> a = Vec<W>::load(left + i) * Vec<W>(1.57079632679489662f), z = a * a;
      Vec<W> s = fma<W>(z, Vec<W>(-1.9515295891e-4f), Vec<W>(8.3321608736e-3f));
      s = fma<W>(fma<W>(s, z, Vec<W>(-1.6666654611e-1f)) * z, a, a) * Vec<W>(factor);
      Vec<W> c = fma<W>(z, Vec<W>(2.443315711809948e-5f), Vec<W>(-1.388731625493765e-3f));
      c = fma<W>(fma<W>(c, z, Vec<W>(4.166664568298827e-2f)), z * z, fma<W>(z, Vec<W>(-0.5f), Vec<W>(1.f))) *
          Vec<W>(factor);
      const auto* turns = reinterpret_cast<const std::byte*>(whole + i);
      const Ints<W> k = Ints<W>::template load<std::int32_t>(turns), odd(-(k & 1).v);
      const Ints<W> cos_sign = ((k + 1) & 2) << 30, sin_sign = (k & 2) << 30;
      const Ints<W> cos_bits(odd.v ? bits_of<W>(s).v : bits_of<W>(c).v),
          sin_bits(odd.v ? bits_of<W>(c).v : bits_of<W>(s).v);
      from_bits<W>(Ints<W>(cos_bits.v ^ cos_sign.v)).store(cos + i);
      from_bits<W>(Ints<W>(sin_bits.v ^ sin_sign.v)).store(sin + i);
    }
  }
};

CHIMERA_FUNCTION void rope_angles(Isa isa, const RopeTurns& turns, std::int64_t dims, RopeLayout layout,
                                  std::int64_t position, float* angles) {
  constexpr double quarters = 2 / 3.14159265358979323846;
  alignas(64) float left[Rope::most_pairs], cos[Rope::most_pairs], sin[Rope::most_pairs];
  alignas(64) std::int32_t whole[Rope::most_pairs];
  const std::int64_t pairs = dims / 2, padded = (pairs + 15) / 16 * 16;
  const auto& by = position < turns.kept ? turns.unscaled : turns.inverse;
  for (std::int64_t i = 0; i < padded; ++i) {
    const double inverse = i < pairs ? by[static_cast<std::size_t>(i)] : 0.f;
    const double angle = static_cast<double>(position) * inverse * quarters;
    const std::int64_t nearest = std::llround(angle);
    left[i] = static_cast<float>(angle - static_cast<double>(nearest));
    whole[i] = static_cast<std::int32_t>(nearest & 3);
  }
  dispatch<QuarterTurns>(isa, padded, left, whole, turns.factor, cos, sin);
  for (std::int64_t i = 0; i < pairs; ++i) {
    if (layout == RopeLayout::halves) {
      angles[i] = cos[i], angles[pairs + i] = sin[i];
    } else {
      angles[2 * i] = angles[2 * i + 1] = cos[i];
      angles[dims + 2 * i] = -sin[i], angles[dims + 2 * i + 1] = sin[i];
    }
  }
}

CHIMERA_FUNCTION void rope_table(const Cpu& q, const RopeTurns& turns, std::int64_t dims, RopeLayout layout,
                                 std::int64_t first, std::int64_t length, float* table) {
  const std::int64_t row = rope_row(dims, layout);
  parallel(q, length,
           [&](std::int64_t t, int) { rope_angles(q.isa(), turns, dims, layout, first + t, table + t * row); });
}

struct Rotate {
  template <int W>
  CHIMERA_INLINE static void run(RopeShape s, float sign, const float* angles, float* x) {
    const Vec<W> turn(sign);
    if (s.layout == RopeLayout::halves) {
      const std::int64_t half = s.dims / 2;
      for (std::int64_t h = 0; h < s.heads; ++h, x += s.head_dim)
        lanes<W>(half, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> a = io.load(x + i), b = io.load(x + half + i);
          const Vec<W> c = io.load(angles + i), d = io.load(angles + half + i) * turn;
          io.store(x + i, a * c - b * d);
          io.store(x + half + i, b * c + a * d);
        });
      return;
    }
    for (std::int64_t h = 0; h < s.heads; ++h, x += s.head_dim)
      lanes<W>(s.dims, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> a = io.load(x + i);
        io.store(x + i, fma<W>(a, io.load(angles + i), swap_pairs<W>(a) * io.load(angles + s.dims + i) * turn));
      });
  }
};

CHIMERA_FUNCTION void rotate(Isa isa, RopeShape s, float sign, const float* angles, float* x) {
  dispatch<Rotate>(isa, s, sign, angles, x);
}

CHIMERA_FUNCTION void rope(const Cpu& q, RopeShape s, const Batch& batch, float sign, const float* table, float* x) {
  const std::int64_t row = rope_row(s.dims, s.layout);
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t) {
      const std::int64_t start = batch.document_start ? batch.document_start[t] : 0;
      rotate(q.isa(), s, sign, table + (t % batch.length - start) * row, x + t * s.stride);
    }
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
