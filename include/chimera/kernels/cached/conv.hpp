// The convolution of conv.hpp as decoding does it: over a run of consecutive tokens of one sequence.
//
// What decoding carries is a ring [taps, channels]: the input of the token at position p lies in slot p mod taps, zeros
// where there was none yet. It has one slot more than is read, so that whoever owns a channel may write the newest
// input while others still read that channel's past.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/conv.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// The convolution of n channels, the first where the pointers are, over a run of `count` tokens, the first at
/// `position`. w is transposed: [taps, channels]; bias may be null. More than four taps, which no known model has, go
/// token by token.
/// Serial.
void conv_run(Isa isa, const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position, const float* x,
              const float* ring, const float* w, const float* bias, float* y);

/// Leaves the run's newest inputs in the ring.
void conv_remember(const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position, const float* x,
                   float* ring);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cached_conv_parts {

/// The window of inputs stays in registers: four of them, of which the newest s.taps count. past[k] is the input
/// s.taps-1-k tokens before the first.
struct ConvRun {
  static constexpr std::int64_t most = 4;

  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, std::int64_t n, std::int64_t count, const float* const* past,
                                 const float* x, const float* w, const float* bias, float* y) {
    const std::int64_t none = most - s.taps;  // taps that are not there: zeros
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      Vec<W> weight[most], window[most];
#pragma GCC unroll 4
      for (std::int64_t k = 0; k < most; ++k)
        if (k >= none) weight[k] = io.load(w + (k - none) * s.channels + i);
#pragma GCC unroll 4
      for (std::int64_t k = 1; k < most; ++k)
        if (k > none) window[k] = io.load(past[k - none - 1] + i);
      const Vec<W> start = bias ? io.load(bias + i) : Vec<W>();
      for (std::int64_t t = 0; t < count; ++t) {
#pragma GCC unroll 4
        for (std::int64_t k = 1; k < most; ++k) window[k - 1] = window[k];
        window[most - 1] = io.load(x + t * s.x_stride + i);
        Vec<W> sum = start;
#pragma GCC unroll 4
        for (std::int64_t k = 0; k < most; ++k) sum = fma<W>(weight[k], window[k], sum);
        io.store(y + t * s.y_stride + i, s.silu ? silu<W>(sum) : sum);
      }
    });
  }
};

}  // namespace cached_conv_parts

CHIMERA_FUNCTION void conv_run(Isa isa, const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position,
                               const float* x, const float* ring, const float* w, const float* bias, float* y) {
  using namespace cached_conv_parts;
  const float* input[conv_max_taps] = {};
  for (std::int64_t k = 0; k + 1 < s.taps; ++k) input[k] = ring + (position + 1 + k) % s.taps * s.channels;
  if (s.taps <= ConvRun::most) return dispatch<ConvRun>(isa, s, n, count, input, x, w, bias, y);
  for (std::int64_t t = 0; t < count; ++t) {
    input[s.taps - 1] = x + t * s.x_stride;
    dispatch<conv_parts::ConvRow>(isa, s, n, input, w, bias, y + t * s.y_stride);
    std::copy(input + 1, input + s.taps, input);
  }
}

CHIMERA_FUNCTION void conv_remember(const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position,
                                    const float* x, float* ring) {
  for (std::int64_t t = std::max<std::int64_t>(0, count - s.taps); t < count; ++t)
    std::copy_n(x + t * s.x_stride, n, ring + (position + t) % s.taps * s.channels);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
