// Softmax cross-entropy over rows of logits, with its gradient in place.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

#include <cmath>
#include <cstdint>
#include <limits>

namespace chimera {

/// loss = (1 - smoothing) nll - smoothing mean_v log p_v + z logsumexp^2
struct CrossEntropy {
  float smoothing = 0.f;
  float z = 0.f;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// logits [rows, vocab]; a negative target is not counted and gets no gradient; losses [rows] is written (0 if not
/// counted). With `gradient`, logits become scale * dloss/dlogits, of each row times its coefficient where
/// `coefficients` [rows] are given. Targets must be below vocab.
void cross_entropy(const Cpu& q, CrossEntropy s, std::int64_t rows, std::int64_t vocab, const std::int32_t* targets,
                   float scale, bool gradient, float* logits, double* losses, const float* coefficients = nullptr);

/// *sum += the losses, which are added up first to last.
void add_losses(const Cpu& q, std::int64_t n, const double* losses, double* sum);

/// log p of each row's target, [rows]; 0 where the target is negative. logits [rows, vocab] stay as they are.
void target_log_probs(const Cpu& q, std::int64_t rows, std::int64_t vocab, const std::int32_t* targets, float* logits,
                      float* log_probs);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace cross_entropy_parts {

struct CrossEntropyRow {
  template <int W>
  CHIMERA_INLINE static void run(CrossEntropy s, std::int64_t vocab, std::int32_t target, float scale, bool gradient,
                                 float* x, double* loss) {
    Vec<W> tops(-std::numeric_limits<float>::infinity());
    lanes<W>(vocab - vocab % W, [&](std::int64_t i, auto io) CHIMERA_LAMBDA { tops = max<W>(tops, io.load(x + i)); });
    float top = largest<W>(tops);
    for (std::int64_t i = vocab - vocab % W; i < vocab; ++i) top = x[i] > top ? x[i] : top;
    const float chosen = x[target];
    Vec<W> exps, values;
    lanes<W>(vocab - vocab % W, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> v = io.load(x + i), e = exp<W>(v - Vec<W>(top));
      values += v;
      exps += e;
      if (gradient) io.store(x + i, e);
    });
    double total = sum<W>(exps), plain = sum<W>(values);
    for (std::int64_t i = vocab - vocab % W; i < vocab; ++i) {
      plain += x[i];
      const float e = std::exp(x[i] - top);
      total += e;
      if (gradient) x[i] = e;
    }
    const double lse = top + std::log(total), mean = plain / static_cast<double>(vocab);
    *loss = (1 - s.smoothing) * (lse - chosen) + s.smoothing * (lse - mean) + s.z * lse * lse;
    if (!gradient) return;
    const float share = scale * static_cast<float>((1 + 2 * s.z * lse) / total);
    const float floor = scale * s.smoothing / static_cast<float>(vocab);
    lanes<W>(vocab, [&](std::int64_t i, auto io)
                        CHIMERA_LAMBDA { io.store(x + i, fma<W>(io.load(x + i), Vec<W>(share), Vec<W>(-floor))); });
    x[target] -= scale * (1 - s.smoothing);
  }
};

}  // namespace cross_entropy_parts

CHIMERA_FUNCTION void cross_entropy(const Cpu& q, CrossEntropy s, std::int64_t rows, std::int64_t vocab,
                                    const std::int32_t* targets, float scale, bool gradient, float* logits,
                                    double* losses, const float* coefficients) {
  parallel(q, rows, [&](std::int64_t r, int) {
    float* x = logits + r * vocab;
    losses[r] = 0;
    if (targets[r] >= 0)
      dispatch<cross_entropy_parts::CrossEntropyRow>(
          q.isa(), s, vocab, targets[r], coefficients ? scale * coefficients[r] : scale, gradient, x, losses + r);
    else if (gradient)
      std::fill(x, x + vocab, 0.f);
  });
}

CHIMERA_FUNCTION void add_losses(const Cpu&, std::int64_t n, const double* losses, double* sum) {
  double all = 0;
  for (std::int64_t i = 0; i < n; ++i) all += losses[i];
  *sum += all;
}

CHIMERA_FUNCTION void target_log_probs(const Cpu& q, std::int64_t rows, std::int64_t vocab, const std::int32_t* targets,
                                       float* logits, float* log_probs) {
  parallel(q, rows, [&](std::int64_t r, int) {
    double loss = 0;
    if (targets[r] >= 0)
      dispatch<cross_entropy_parts::CrossEntropyRow>(q.isa(), CrossEntropy{}, vocab, targets[r], 0.f, false,
                                                     logits + r * vocab, &loss);
    log_probs[r] = static_cast<float>(0 - loss);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
