// Rotary position embedding: the frequencies of every extension, tables of angles, and the rotation.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/elementwise.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Writes the dims/2 inverse frequencies (radians per token) and returns the factor on cos and sin.
/// `context` is the trained context when rope.original_context is 0; `length` the longest sequence to come.
/// Linear: Chen et al. 2306.15595. NTK-aware: base f^(d/(d-2)); dynamic: the factor grows with the length. YaRN:
/// Peng et al. 2309.00071, equations 17 to 22. LongRoPE: Ding et al. 2402.13753.
inline float rope_frequencies(const Rope& rope, int dims, int context, int length, float* inverse) {
  constexpr double pi = 3.14159265358979323846;
  const double d = dims, factor = rope.factor, base0 = rope.base;
  const double original = rope.original_context ? rope.original_context : context;
  double base = base0;
  if (rope.scaling == RopeScaling::ntk) base *= std::pow(factor, d / (d - 2));
  if (rope.scaling == RopeScaling::dynamic_ntk && length > original)
    base *= std::pow(factor * length / original - (factor - 1), d / (d - 2));

  // YaRN's ramp between the dimension that turns beta_fast times in the trained context and the one that turns beta_slow.
  const auto dimension_of = [&](double turns) {
    return d * std::log(original / (turns * 2 * pi)) / (2 * std::log(base0));
  };
  const double low = std::max(std::floor(dimension_of(rope.beta_fast)), 0.0);
  const double high = std::min(std::ceil(dimension_of(rope.beta_slow)), d - 1);

  for (int i = 0; i < dims / 2; ++i) {
    const double theta = std::pow(base, -2.0 * i / d);
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
  const auto temperature = [&](double m) { return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1.0; };
  if (rope.scaling == RopeScaling::yarn)
    return static_cast<float>(rope.mscale != 0.f && rope.mscale_all_dim != 0.f
                                  ? temperature(rope.mscale) / temperature(rope.mscale_all_dim)
                                  : temperature(1));
  if (rope.scaling == RopeScaling::longrope && factor > 1)
    return static_cast<float>(std::sqrt(1 + std::log(factor) / std::log(original)));
  return 1.f;
}

/// How heads lie in memory: token t's head h is x[t * stride + h * head_dim ...]; its first `dims` channels turn.
struct RopeShape {
  std::int64_t heads, head_dim, dims, stride;
  RopeLayout layout;
};

/// cos and sin of one position, dims each. Adjacent layout: the pair's cosine twice; its sine as (-s, s).
/// Halves: dims/2 cosines, dims/2 sines, unsigned.
inline void rope_angles(const float* inverse, float factor, std::int64_t dims, RopeLayout layout, std::int64_t position,
                        float* angles) {
  for (std::int64_t i = 0; i < dims / 2; ++i) {
    const double angle = static_cast<double>(position) * inverse[i];
    const float c = static_cast<float>(std::cos(angle)) * factor, s = static_cast<float>(std::sin(angle)) * factor;
    if (layout == RopeLayout::halves) {
      angles[i] = c, angles[dims / 2 + i] = s;
    } else {
      angles[2 * i] = angles[2 * i + 1] = c;
      angles[dims + 2 * i] = -s, angles[dims + 2 * i + 1] = s;
    }
  }
}

/// Floats of one position in a table.
constexpr std::int64_t rope_row(std::int64_t dims, RopeLayout layout) {
  return layout == RopeLayout::halves ? dims : 2 * dims;
}

/// The table [length, rope_row] for positions first, first + 1, ...
inline void rope_table(const Cpu& q, const float* inverse, float factor, std::int64_t dims, RopeLayout layout,
                       std::int64_t first, std::int64_t length, float* table) {
  const std::int64_t row = rope_row(dims, layout);
  parallel(q, length,
           [&](std::int64_t t, int) { rope_angles(inverse, factor, dims, layout, first + t, table + t * row); });
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

/// Turns one token's heads; sign -1 turns back, which is the backward pass.
inline void rotate(Isa isa, RopeShape s, float sign, const float* angles, float* x) {
  dispatch<Rotate>(isa, s, sign, angles, x);
}

/// Turns x [B,T,heads] by the table of positions; a token's position counts from the start of its document.
inline void rope(const Cpu& q, RopeShape s, const Batch& batch, float sign, const float* table, float* x) {
  const std::int64_t row = rope_row(s.dims, s.layout);
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t) {
      const std::int64_t start = batch.document_start ? batch.document_start[t] : 0;
      rotate(q.isa(), s, sign, table + (t % batch.length - start) * row, x + t * s.stride);
    }
  });
}

}  // namespace chimera::inline CHIMERA_ABI
