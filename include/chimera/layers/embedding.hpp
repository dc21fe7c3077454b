// The head, which turns the last activations into logits or a loss.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/kernels/f32/cross_entropy.hpp>
#include <chimera/kernels/f32/embedding.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// logits = u W^T / divisor, a block of rows at a time: [tokens, vocab] never exists as a whole.
struct Head {
  std::int64_t vocab, width;
  float divisor;

  constexpr Linear shape() const { return {vocab, width}; }
  /// Rows whose logits are held at once: 64 MiB of them, at least one row tile.
  std::int64_t rows(std::int64_t tokens) const {
    return std::min(tokens, std::clamp<std::int64_t>((std::int64_t{16} << 20) / vocab, 64, 4096));
  }
  std::int64_t temp_bytes(std::int64_t tokens) const {
    return bytes_of({rows(tokens) * vocab, tokens, tokens}) + bytes_of<double>({rows(tokens)});
  }

  void logits(const Device auto& q, std::int64_t n, const float* u, Matrix w, float* out) const {
    linear(q, shape(), w, n, 1.f / divisor, u, width, 0.f, out, vocab);
  }

  /// The batch's loss and, when du is given, du [tokens, width] = and dw += scale times its gradient. du may be u.
  /// Logits are computed once for cross-entropy, twice for an objective of its own: all log-probabilities, then the
  /// gradient.
  Loss loss(const Device auto& q, const Objective& objective, const TokenBatch& batch, const float* u, Matrix w,
            float scale, float* du, MatrixGradient dw, Bump temp) const {
    const std::int64_t n = batch.tokens(), count = objective.counted(batch);
    const CrossEntropy s{objective.label_smoothing, objective.z_loss};
    if (!objective.weigh) return {cross_entropy_loss(q, s, batch, nullptr, u, w, scale, du, dw, temp), count};
    float* log_probs = temp.take(n);
    float* coefficients = temp.take(n);
    each_block(q, n, u, w, temp, [&](std::int64_t t, std::int64_t some, float* x, double*) {
      target_log_probs(q, some, vocab, batch.targets + t, x, log_probs + t);
    });
    const double sum = objective.weigh(objective.self, batch, log_probs, coefficients);
    if (du) (void)cross_entropy_loss(q, {}, batch, coefficients, u, w, scale, du, dw, temp);
    return {sum, count};
  }

 private:
  double cross_entropy_loss(const Device auto& q, CrossEntropy s, const TokenBatch& batch, const float* coefficients,
                            const float* u, Matrix w, float scale, float* du, MatrixGradient dw, Bump temp) const {
    double sum = 0;
    each_block(q, batch.tokens(), u, w, temp, [&](std::int64_t t, std::int64_t count, float* x, double* losses) {
      cross_entropy(q, s, count, vocab, batch.targets + t, scale, du != nullptr, x, losses, &sum,
                    coefficients ? coefficients + t : nullptr);
      if (du)
        linear_backward(q, shape(), w, dw, count, 1.f / divisor, x, vocab, u + t * width, width, 0.f, du + t * width);
    });
    return sum;
  }

  /// Calls f(first row, rows, their logits, room for their losses).
  template <class F>
  void each_block(const Device auto& q, std::int64_t n, const float* u, Matrix w, Bump temp, F&& f) const {
    const std::int64_t block = rows(n);
    float* x = temp.take(block * vocab);
    double* losses = temp.take<double>(block);
    for (std::int64_t t = 0; t < n; t += block) {
      const std::int64_t count = std::min(block, n - t);
      logits(q, count, u + t * width, w, x);
      f(t, count, x, losses);
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
