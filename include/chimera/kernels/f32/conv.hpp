// Short causal convolution of each channel over time, with SiLU or without, that respects documents.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

namespace chimera::inline CHIMERA_ABI {

/// y_t = b + sum_k w[k] x_{t-K+1+k}, channel by channel; w [channels, taps], oldest tap first.
/// Rows of x and y lie x_stride and y_stride apart. Taps before the token's document, or before the batch's row, count
/// as zero.
struct ConvShape {
  std::int64_t channels, taps, x_stride, y_stride;
  bool silu;
};

namespace conv_parts {

/// Input of tap k for token t of row b, or null where it counts as zero.
inline const float* conv_input(const ConvShape& s, const Batch& batch, const float* x, std::int64_t b, std::int64_t t,
                               std::int64_t k) {
  const std::int64_t from = t - s.taps + 1 + k;
  const std::int64_t start = batch.document_start ? batch.document_start[b * batch.length + t] : 0;
  return from >= start ? x + (b * batch.length + from) * s.x_stride : nullptr;
}

/// The convolution before SiLU at channels i..; taps[k] null counts as zero. w is transposed: [taps, channels].
template <int W, class Io>
CHIMERA_INLINE Vec<W> conv_sum(std::int64_t taps, std::int64_t channels, const float* const* input, const float* w,
                               const float* bias, std::int64_t i, Io io) {
  Vec<W> sum = bias ? io.load(bias + i) : Vec<W>();
  for (std::int64_t k = 0; k < taps; ++k)
    if (input[k]) sum = fma<W>(io.load(w + k * channels + i), io.load(input[k] + i), sum);
  return sum;
}

struct ConvRow {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, const float* const* input, const float* w, const float* bias, float* y) {
    lanes<W>(s.channels, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> sum = conv_sum<W>(s.taps, s.channels, input, w, bias, i, io);
      io.store(y + i, s.silu ? silu<W>(sum) : sum);
    });
  }
};

/// A run of `count` tokens, its window of inputs in registers; past[k] is the input taps-1-k tokens before the first.
template <std::int64_t taps>
struct ConvRun {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, std::int64_t n, std::int64_t count, const float* const* past,
                                 const float* x, const float* w, const float* bias, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      Vec<W> weight[taps], window[taps];
#pragma GCC unroll 8
      for (std::int64_t k = 0; k < taps; ++k) weight[k] = io.load(w + k * s.channels + i);
#pragma GCC unroll 8
      for (std::int64_t k = 1; k < taps; ++k) window[k] = io.load(past[k - 1] + i);
      const Vec<W> start = io.load(bias + i);
      for (std::int64_t t = 0; t < count; ++t) {
#pragma GCC unroll 8
        for (std::int64_t k = 1; k < taps; ++k) window[k - 1] = window[k];
        window[taps - 1] = io.load(x + t * s.x_stride + i);
        Vec<W> sum = start;
#pragma GCC unroll 8
        for (std::int64_t k = 0; k < taps; ++k) sum = fma<W>(weight[k], window[k], sum);
        io.store(y + t * s.y_stride + i, s.silu ? silu<W>(sum) : sum);
      }
    });
  }
};

struct ConvRowSlope {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, const float* const* input, const float* w, const float* bias, float* dy) {
    lanes<W>(s.channels, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dy + i, io.load(dy + i) * silu_slope<W>(conv_sum<W>(s.taps, s.channels, input, w, bias, i, io)));
    });
  }
};

struct ConvRowInput {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, const float* const* dy, const float* w, float* dx) {
    lanes<W>(s.channels, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dx + i, conv_sum<W>(s.taps, s.channels, dy, w, nullptr, i, io));
    });
  }
};

struct ConvRowWeight {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, const float* const* input, const float* dy, float* dw, float* db) {
    lanes<W>(s.channels, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> d = io.load(dy + i);
      for (std::int64_t k = 0; k < s.taps; ++k)
        if (input[k])
          io.store(dw + k * s.channels + i, fma<W>(d, io.load(input[k] + i), io.load(dw + k * s.channels + i)));
      io.store(db + i, io.load(db + i) + d);
    });
  }
};

}  // namespace conv_parts

inline constexpr std::int64_t conv_max_taps = 8;
inline constexpr std::int64_t conv_rows = 64;  // tokens of one partial sum of the weights' gradient

/// Floats of `temp`.
inline std::int64_t conv_temp(const ConvShape& s) { return s.taps * s.channels; }
inline std::int64_t conv_backward_temp(const ConvShape& s, const Batch& batch) {
  const std::int64_t parts = (batch.tokens() + conv_rows - 1) / conv_rows;
  return floats_of({conv_temp(s), conv_temp(s), parts * (s.taps + 1) * s.channels});
}

inline void transpose_taps(const ConvShape& s, const float* w, float* transposed) {
  for (std::int64_t c = 0; c < s.channels; ++c)
    for (std::int64_t k = 0; k < s.taps; ++k) transposed[k * s.channels + c] = w[c * s.taps + k];
}

/// bias may be null.
inline void causal_conv(const Cpu& q, ConvShape s, const Batch& batch, const float* x, const float* w,
                        const float* bias, float* y, Bump temp) {
  float* taps = temp.take(conv_temp(s));
  transpose_taps(s, w, taps);
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t at = first; at < first + n; ++at) {
      const float* input[conv_max_taps];
      for (std::int64_t k = 0; k < s.taps; ++k)
        input[k] = conv_parts::conv_input(s, batch, x, at / batch.length, at % batch.length, k);
      const float* const* in = input;
      dispatch<conv_parts::ConvRow>(q.isa(), s, in, static_cast<const float*>(taps), bias, y + at * s.y_stride);
    }
  });
}

/// What decoding carries is a ring [taps, channels]: the input of the token at position p lies in slot p mod taps, zeros
/// where there was none yet. It has one slot more than is read, so that whoever owns a channel may write the newest
/// input while others still read that channel's past.
///
/// The convolution of n channels, the first where the pointers are, over a run of `count` tokens, the first at `position`.
/// w is transposed: [taps, channels]; taps is s.taps. Serial.
template <std::int64_t taps>
void conv_run(Isa isa, const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position, const float* x,
              const float* ring, const float* w, const float* bias, float* y) {
  const float* input[taps] = {};
  for (std::int64_t k = 0; k + 1 < taps; ++k) input[k] = ring + (position + 1 + k) % taps * s.channels;
  const float* const* past = input;
  dispatch<conv_parts::ConvRun<taps>>(isa, s, n, count, past, x, w, bias, y);
}

/// Leaves the run's newest inputs in the ring.
inline void conv_remember(const ConvShape& s, std::int64_t n, std::int64_t count, std::int64_t position, const float* x,
                          float* ring) {
  for (std::int64_t t = std::max<std::int64_t>(0, count - s.taps); t < count; ++t)
    std::copy_n(x + t * s.x_stride, n, ring + (position + t) % s.taps * s.channels);
}

/// dy [rows y_stride apart] is overwritten by the gradient before SiLU; dx =, dw +=, db += (null without bias).
inline void causal_conv_backward(const Cpu& q, ConvShape s, const Batch& batch, const float* x, const float* w,
                                 const float* bias, float* dy, float* dx, float* dw, float* db, Bump temp) {
  float* taps = temp.take(conv_temp(s));
  float* dtaps = temp.take(conv_temp(s));
  const std::int64_t parts = (batch.tokens() + conv_rows - 1) / conv_rows, part = (s.taps + 1) * s.channels;
  float* partial = temp.take(parts * part);
  transpose_taps(s, w, taps);
  const float* const t = taps;
  parallel(q, parts, [&](std::int64_t p, int) {
    float* sums = partial + p * part;
    std::fill(sums, sums + part, 0.f);
    for (std::int64_t at = p * conv_rows; at < std::min((p + 1) * conv_rows, batch.tokens()); ++at) {
      const float* input[conv_max_taps];
      for (std::int64_t k = 0; k < s.taps; ++k)
        input[k] = conv_parts::conv_input(s, batch, x, at / batch.length, at % batch.length, k);
      const float* const* in = input;
      float* d = dy + at * s.y_stride;
      if (s.silu) dispatch<conv_parts::ConvRowSlope>(q.isa(), s, in, t, bias, d);
      dispatch<conv_parts::ConvRowWeight>(q.isa(), s, in, static_cast<const float*>(d), sums,
                                          sums + s.taps * s.channels);
    }
  });
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t at = first; at < first + n; ++at) {
      const std::int64_t b = at / batch.length, time = at % batch.length;
      const float* later[conv_max_taps];
      for (std::int64_t k = 0; k < s.taps; ++k) {
        const std::int64_t to = time + s.taps - 1 - k;  // the output whose tap k reads this token
        const bool seen =
            to < batch.length && (!batch.document_start || batch.document_start[b * batch.length + to] <= time);
        later[k] = seen ? dy + (b * batch.length + to) * s.y_stride : nullptr;
      }
      const float* const* in = later;
      dispatch<conv_parts::ConvRowInput>(q.isa(), s, in, t, dx + at * s.x_stride);
    }
  });
  std::fill(dtaps, dtaps + s.taps * s.channels, 0.f);
  sum_rows(q, parts, part, s.taps * s.channels, partial, dtaps);
  if (db) sum_rows(q, parts, part, s.channels, partial + s.taps * s.channels, db);
  for (std::int64_t c = 0; c < s.channels; ++c)
    for (std::int64_t k = 0; k < s.taps; ++k) dw[c * s.taps + k] += dtaps[k * s.channels + c];
}

}  // namespace chimera::inline CHIMERA_ABI
