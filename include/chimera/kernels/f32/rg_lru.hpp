// The real-gated linear recurrent unit of Griffin (De et al., 2402.19427, equations 1 to 4).
//
//   r = sigma(r'), i = sigma(i'),   ln a = -8 softplus(Lambda) r,   h_t = a h_{t-1} + sqrt(1 - a^2) (i x)
// A document's first token starts afresh: no decay, and 1 in place of the root.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera {

/// Gradients of `rg_lru`: dx, dr, di [B,T,channels] =, dlambda [channels] +=.
struct RgLruGradients {
  float* dx;
  float* dr;
  float* di;
  float* dlambda;
  const float* dlast = nullptr;  // [B,channels], null: zero
  float* dinitial = nullptr;     // =, if asked for
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace rg_lru_parts {

inline constexpr std::int64_t rg_lru_strip = 64;  // channels of one task

}  // namespace rg_lru_parts

/// x, r', i' and h [B,T,channels]; lambda [channels]; initial and last [B,channels] may be null or the same memory.
void rg_lru(const Cpu& q, std::int64_t channels, const Batch& batch, const float* x, const float* r, const float* i,
            const float* lambda, const float* initial, float* h, float* last);

/// Bytes of `temp`.
std::int64_t rg_lru_backward_bytes(std::int64_t channels, const Batch& batch);

void rg_lru_backward(const Cpu& q, std::int64_t channels, const Batch& batch, const float* x, const float* r,
                     const float* i, const float* lambda, const float* initial, const float* h, const float* dh,
                     const RgLruGradients& out, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace rg_lru_parts {

/// 1 - e^{2 y} for y <= 0, through tanh, which keeps its digits near 0.
template <int W>
CHIMERA_INLINE Vec<W> one_minus_exp2(const Vec<W>& y) {
  const Vec<W> t = tanh<W>(y);
  return Vec<W>(-2.f) * t / (Vec<W>(1.f) - t);
}

inline bool starts_document(const Batch& batch, std::int64_t b, std::int64_t t) {
  return batch.document_start ? batch.document_start[b * batch.length + t] == t : t == 0 && batch.position == 0;
}

struct RgLruStep {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, bool fresh, const float* x, const float* r, const float* i,
                                 const float* lambda, const float* before, float* h) {
    lanes<W>(n, [=](std::int64_t c, auto io) CHIMERA_LAMBDA {
      const Vec<W> in = sigmoid<W>(io.load(i + c)) * io.load(x + c);
      if (fresh) {
        io.store(h + c, in);
      } else {
        const Vec<W> log_a = Vec<W>(-8.f) * softplus<W>(io.load(lambda + c)) * sigmoid<W>(io.load(r + c));
        const Vec<W> past = before ? io.load(before + c) : Vec<W>();
        io.store(h + c, fma<W>(exp<W>(log_a), past, sqrt<W>(one_minus_exp2<W>(log_a)) * in));
      }
    });
  }
};

/// g holds dL/dh_t and leaves as a_t g, what h_{t-1} receives.
struct RgLruStepBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, bool fresh, const float* x, const float* r, const float* i,
                                 const float* lambda, const float* before, float* g, float* dx, float* dr, float* di,
                                 float* dlambda) {
    lanes<W>(n, [=](std::int64_t c, auto io) CHIMERA_LAMBDA {
      const Vec<W> one = 1.f, xc = io.load(x + c), gc = io.load(g + c), gate = sigmoid<W>(io.load(i + c));
      Vec<W> root = one, zero;
      if (fresh) {
        io.store(dr + c, zero);
        io.store(g + c, zero);
      } else {
        const Vec<W> decay = sigmoid<W>(io.load(r + c)), l = io.load(lambda + c), rate = softplus<W>(l);
        const Vec<W> log_a = Vec<W>(-8.f) * rate * decay, a = exp<W>(log_a), rest = one_minus_exp2<W>(log_a);
        root = sqrt<W>(rest);
        // The root's slope is bounded by 1000, as in the reference implementation.
        const Vec<W> slope = one / sqrt<W>(max<W>(Vec<W>(4.f) * rest, Vec<W>(1e-6f)));
        const Vec<W> past = before ? io.load(before + c) : zero;
        const Vec<W> dlog = gc * (a * past - Vec<W>(2.f) * a * a * slope * gate * xc);
        io.store(dr + c, Vec<W>(-8.f) * rate * dlog * decay * (one - decay));
        io.store(dlambda + c, fma<W>(Vec<W>(-8.f) * decay * sigmoid<W>(l), dlog, io.load(dlambda + c)));
        io.store(g + c, a * gc);
      }
      const Vec<W> din = root * gc;
      io.store(dx + c, din * gate);
      io.store(di + c, din * xc * gate * (one - gate));
    });
  }
};

}  // namespace rg_lru_parts

CHIMERA_FUNCTION void rg_lru(const Cpu& q, std::int64_t channels, const Batch& batch, const float* x, const float* r,
                             const float* i, const float* lambda, const float* initial, float* h, float* last) {
  constexpr std::int64_t strip = rg_lru_parts::rg_lru_strip;
  const std::int64_t strips = (channels + strip - 1) / strip;
  parallel(q, batch.sequences * strips, [&](std::int64_t index, int) {
    const std::int64_t b = index / strips, c = index % strips * strip, n = std::min(strip, channels - c);
    const float* before = initial ? initial + b * channels + c : nullptr;
    for (std::int64_t t = 0; t < batch.length; ++t) {
      const std::int64_t at = (b * batch.length + t) * channels + c;
      dispatch<rg_lru_parts::RgLruStep>(q.isa(), n, rg_lru_parts::starts_document(batch, b, t), x + at, r + at, i + at,
                                        lambda + c, before, h + at);
      before = h + at;
    }
    if (last) std::copy(before, before + n, last + b * channels + c);
  });
}

CHIMERA_FUNCTION std::int64_t rg_lru_backward_bytes(std::int64_t channels, const Batch& batch) {
  return bytes_of({batch.sequences * channels, batch.sequences * channels});
}

CHIMERA_FUNCTION void rg_lru_backward(const Cpu& q, std::int64_t channels, const Batch& batch, const float* x,
                                      const float* r, const float* i, const float* lambda, const float* initial,
                                      const float* h, const float* dh, const RgLruGradients& out, Bump temp) {
  constexpr std::int64_t strip = rg_lru_parts::rg_lru_strip;
  const std::int64_t strips = (channels + strip - 1) / strip;
  float* carried = temp.take(batch.sequences * channels);
  float* sums = temp.take(batch.sequences * channels);
  parallel(q, batch.sequences * strips, [&](std::int64_t index, int) {
    const std::int64_t b = index / strips, c = index % strips * strip, n = std::min(strip, channels - c);
    float* g = carried + b * channels + c;
    float* dlambda = sums + b * channels + c;
    std::fill(dlambda, dlambda + n, 0.f);
    if (out.dlast)
      std::copy(out.dlast + b * channels + c, out.dlast + b * channels + c + n, g);
    else
      std::fill(g, g + n, 0.f);
    for (std::int64_t t = batch.length - 1; t >= 0; --t) {
      const std::int64_t at = (b * batch.length + t) * channels + c;
      const float* before = t > 0 ? h + at - channels : initial ? initial + b * channels + c : nullptr;
      dispatch<AddScaled>(q.isa(), n, 1.f, dh + at, g);
      dispatch<rg_lru_parts::RgLruStepBackward>(q.isa(), n, rg_lru_parts::starts_document(batch, b, t), x + at, r + at,
                                                i + at, lambda + c, before, g, out.dx + at, out.dr + at, out.di + at,
                                                dlambda);
    }
    if (out.dinitial) std::copy(g, g + n, out.dinitial + b * channels + c);
  });
  sum_rows(q, batch.sequences, channels, channels, sums, out.dlambda);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
