// What a loop does before each pass (config/loop.hpp): it forgets a share of what it holds and takes in again what
// entered it.
//   x = kept h + added e,   kept = e^{-Delta A},   added = Delta B,   A = e^{A_log},   Delta = softplus(delta)
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace chimera {

/// One number for each channel.
struct InjectionWeights {
  const float* a_log;
  const float* delta;
  const float* input;  // B
};

/// All +=.
struct InjectionGradients {
  float* a_log;
  float* delta;
  float* input;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// h, e, x [rows, width]. h null: zero. x may be h.
void inject(const Cpu& q, std::int64_t rows, std::int64_t width, const InjectionWeights& w, const float* h,
            const float* e, float* x);

/// dx becomes dh; de +=.
void inject_backward(const Cpu& q, std::int64_t rows, std::int64_t width, const InjectionWeights& w, const float* h,
                     const float* e, float* dx, float* de, const InjectionGradients& dw);

/// x = draws of N(0, deviation) that lie within 3 deviations, each a function of (key, stream, index).
void truncated_normal(const Cpu& q, std::int64_t n, float deviation, std::uint64_t key, std::uint64_t stream, float* x);

/// *change = the mean of |x - y|; the same bits for any number of threads.
void mean_change(const Cpu& q, std::int64_t n, const float* x, const float* y, double* change);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace injection_parts {

inline constexpr std::int64_t strip = 64;  // channels of one task

/// Of one channel.
struct Channel {
  float rate, step, kept, added;  // A, Delta, e^{-Delta A}, Delta B

  Channel(const InjectionWeights& w, std::int64_t c)
      : rate(std::exp(std::min(w.a_log[c], 80.f))),  // finite, so that times 0 it is 0
        step(w.delta[c] > 20.f ? w.delta[c] : std::log1p(std::exp(w.delta[c]))),
        kept(std::min(std::exp(-step * rate), 0x1.fffffep-1f)),  // below 1 where rounding would make it 1
        added(step * w.input[c]) {}
};

struct Inject {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t stride, std::int64_t n, const float* kept,
                                 const float* added, const float* h, const float* e, float* x) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> keep = io.load(kept + i), add = io.load(added + i);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t at = r * stride + i;
        const Vec<W> in = add * io.load(e + at);
        io.store(x + at, h ? fma<W>(keep, io.load(h + at), in) : in);
      }
    });
  }
};

/// to_h and to_e [n] += sum_rows dx h and sum_rows dx e.
struct InjectBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t stride, std::int64_t n, const float* kept,
                                 const float* added, const float* h, const float* e, float* dx, float* de, float* to_h,
                                 float* to_e) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> keep = io.load(kept + i), add = io.load(added + i);
      Vec<W> sum_h, sum_e;
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t at = r * stride + i;
        const Vec<W> d = io.load(dx + at);
        sum_h = fma<W>(d, io.load(h + at), sum_h);
        sum_e = fma<W>(d, io.load(e + at), sum_e);
        io.store(de + at, fma<W>(add, d, io.load(de + at)));
        io.store(dx + at, keep * d);
      }
      io.store(to_h + i, io.load(to_h + i) + sum_h);
      io.store(to_e + i, io.load(to_e + i) + sum_e);
    });
  }
};

struct Change {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* y, float* result) {
    Vec<W> total;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> d = io.load(x + i) - io.load(y + i);
      total += max<W>(d, Vec<W>() - d);
    });
    *result = sum<W>(total);
  }
};

}  // namespace injection_parts

CHIMERA_FUNCTION void inject(const Cpu& q, std::int64_t rows, std::int64_t width, const InjectionWeights& w,
                             const float* h, const float* e, float* x) {
  using namespace injection_parts;
  parallel(q, (width + strip - 1) / strip, [&](std::int64_t index, int) {
    const std::int64_t first = index * strip, n = std::min(strip, width - first);
    float kept[strip], added[strip];
    for (std::int64_t c = 0; c < n; ++c) {
      const Channel channel(w, first + c);
      kept[c] = channel.kept, added[c] = channel.added;
    }
    dispatch<Inject>(q.isa(), rows, width, n, kept, added, h ? h + first : nullptr, e + first, x + first);
  });
}

CHIMERA_FUNCTION void inject_backward(const Cpu& q, std::int64_t rows, std::int64_t width, const InjectionWeights& w,
                                      const float* h, const float* e, float* dx, float* de,
                                      const InjectionGradients& dw) {
  using namespace injection_parts;
  constexpr std::int64_t together = 128;  // rows of one sum in registers
  parallel(q, (width + strip - 1) / strip, [&](std::int64_t index, int) {
    const std::int64_t first = index * strip, n = std::min(strip, width - first);
    float kept[strip], added[strip], to_h[strip]{}, to_e[strip]{};
    for (std::int64_t c = 0; c < n; ++c) {
      const Channel channel(w, first + c);
      kept[c] = channel.kept, added[c] = channel.added;
    }
    for (std::int64_t r = 0; r < rows; r += together) {
      const std::int64_t at = r * width + first;
      dispatch<InjectBackward>(q.isa(), std::min(together, rows - r), width, n, kept, added, h + at, e + at, dx + at,
                               de + at, to_h, to_e);
    }
    for (std::int64_t c = 0; c < n; ++c) {
      const Channel channel(w, first + c);
      const float dkept = to_h[c] * channel.kept, slope = 1.f / (1.f + std::exp(-w.delta[first + c]));
      dw.a_log[first + c] -= dkept * channel.step * channel.rate;
      dw.delta[first + c] += slope * (to_e[c] * w.input[first + c] - dkept * channel.rate);
      dw.input[first + c] += to_e[c] * channel.step;
    }
  });
}

CHIMERA_FUNCTION void truncated_normal(const Cpu& q, std::int64_t n, float deviation, std::uint64_t key,
                                       std::uint64_t stream, float* x) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t count) {
    for (std::int64_t i = at; i < at + count; ++i) {
      float drawn = 0.f;  // all four of a counter lie outside once in 10^10 times
      for (const float z : Random{key, stream, static_cast<std::uint64_t>(i)}.normals())
        if (std::fabs(z) <= 3.f) {
          drawn = z;
          break;
        }
      x[i] = deviation * drawn;
    }
  });
}

CHIMERA_FUNCTION void mean_change(const Cpu& q, std::int64_t n, const float* x, const float* y, double* change) {
  constexpr std::int64_t together = 1024;
  double sum = 0;
  for (std::int64_t i = 0; i < n; i += together) {
    float part = 0.f;
    dispatch<injection_parts::Change>(q.isa(), std::min(together, n - i), x + i, y + i, &part);
    sum += static_cast<double>(part);
  }
  *change = sum / static_cast<double>(n);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
