// Short causal convolution of each channel over time, with SiLU or without, that respects documents.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

namespace chimera {

/// y_t = b + sum_k w[k] x_{t-K+1+k}, channel by channel; w [channels, taps], oldest tap first.
/// Rows of x and y lie x_stride and y_stride apart. Taps before the token's document, or before the batch's row, count
/// as zero.
struct ConvShape {
  std::int64_t channels, taps, x_stride, y_stride;
  bool silu;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

inline constexpr std::int64_t conv_max_taps = 8;

inline constexpr std::int64_t conv_rows = 64;  // tokens of one partial sum of the weights' gradient

/// Bytes of `temp`.
std::int64_t conv_bytes(const ConvShape& s);

std::int64_t conv_backward_bytes(const ConvShape& s, const Batch& batch);

void transpose_taps(const ConvShape& s, const float* w, float* transposed);

/// bias may be null.
void causal_conv(const Cpu& q, ConvShape s, const Batch& batch, const float* x, const float* w, const float* bias,
                 float* y, Bump temp);

/// dy [rows y_stride apart] is overwritten by the gradient before SiLU; dx =, dw +=, db += (null without bias).
void causal_conv_backward(const Cpu& q, ConvShape s, const Batch& batch, const float* x, const float* w,
                          const float* bias, float* dy, float* dx, float* dw, float* db, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

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

/// One token's n channels.
struct ConvRow {
  template <int W>
  CHIMERA_INLINE static void run(ConvShape s, std::int64_t n, const float* const* input, const float* w,
                                 const float* bias, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> sum = conv_sum<W>(s.taps, s.channels, input, w, bias, i, io);
      io.store(y + i, s.silu ? silu<W>(sum) : sum);
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

CHIMERA_FUNCTION std::int64_t conv_bytes(const ConvShape& s) { return bytes_of({s.taps * s.channels}); }

CHIMERA_FUNCTION std::int64_t conv_backward_bytes(const ConvShape& s, const Batch& batch) {
  const std::int64_t parts = (batch.tokens() + conv_rows - 1) / conv_rows;
  return bytes_of({s.taps * s.channels, s.taps * s.channels, parts * (s.taps + 1) * s.channels});
}

CHIMERA_FUNCTION void transpose_taps(const ConvShape& s, const float* w, float* transposed) {
  for (std::int64_t c = 0; c < s.channels; ++c)
    for (std::int64_t k = 0; k < s.taps; ++k) transposed[k * s.channels + c] = w[c * s.taps + k];
}

CHIMERA_FUNCTION void causal_conv(const Cpu& q, ConvShape s, const Batch& batch, const float* x, const float* w,
                                  const float* bias, float* y, Bump temp) {
  float* taps = temp.take(s.taps * s.channels);
  transpose_taps(s, w, taps);
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t at = first; at < first + n; ++at) {
      const float* input[conv_max_taps];
      for (std::int64_t k = 0; k < s.taps; ++k)
        input[k] = conv_parts::conv_input(s, batch, x, at / batch.length, at % batch.length, k);
      dispatch<conv_parts::ConvRow>(q.isa(), s, s.channels, input, taps, bias, y + at * s.y_stride);
    }
  });
}

CHIMERA_FUNCTION void causal_conv_backward(const Cpu& q, ConvShape s, const Batch& batch, const float* x,
                                           const float* w, const float* bias, float* dy, float* dx, float* dw,
                                           float* db, Bump temp) {
  float* taps = temp.take(s.taps * s.channels);
  float* dtaps = temp.take(s.taps * s.channels);
  const std::int64_t parts = (batch.tokens() + conv_rows - 1) / conv_rows, part = (s.taps + 1) * s.channels;
  float* partial = temp.take(parts * part);
  transpose_taps(s, w, taps);
  parallel(q, parts, [&](std::int64_t p, int) {
    float* sums = partial + p * part;
    std::fill(sums, sums + part, 0.f);
    for (std::int64_t at = p * conv_rows; at < std::min((p + 1) * conv_rows, batch.tokens()); ++at) {
      const float* input[conv_max_taps];
      for (std::int64_t k = 0; k < s.taps; ++k)
        input[k] = conv_parts::conv_input(s, batch, x, at / batch.length, at % batch.length, k);
      float* d = dy + at * s.y_stride;
      if (s.silu) dispatch<conv_parts::ConvRowSlope>(q.isa(), s, input, taps, bias, d);
      dispatch<conv_parts::ConvRowWeight>(q.isa(), s, input, d, sums, sums + s.taps * s.channels);
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
      dispatch<conv_parts::ConvRowInput>(q.isa(), s, later, taps, dx + at * s.x_stride);
    }
  });
  std::fill(dtaps, dtaps + s.taps * s.channels, 0.f);
  sum_rows(q, parts, part, s.taps * s.channels, partial, dtaps);
  if (db) sum_rows(q, parts, part, s.channels, partial + s.taps * s.channels, db);
  for (std::int64_t c = 0; c < s.channels; ++c)
    for (std::int64_t k = 0; k < s.taps; ++k) dw[c * s.taps + k] += dtaps[k * s.channels + c];
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
