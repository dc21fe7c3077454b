// The head, which turns the last activations into logits or a loss.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/kernels/f32/cross_entropy.hpp>
#include <chimera/kernels/f32/embedding.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// logits = u W^T / divisor, softly capped where there is a cap, a block of rows at a time: [tokens, vocab] never exists
/// as a whole.
struct Head {
  std::int64_t vocab, width;
  float divisor;
  float cap = 0.f;

  constexpr Linear shape() const { return {vocab, width}; }
  /// Rows whose logits are held at once: 64 MiB of them, at least one row tile.
  std::int64_t rows(std::int64_t tokens) const {
    return std::min(tokens, std::clamp<std::int64_t>((std::int64_t{16} << 20) / vocab, 64, 4096));
  }
  std::int64_t temp_bytes(std::int64_t tokens) const {
    const std::int64_t block = rows(tokens) * vocab;
    return bytes_of({block, cap > 0 ? block : 0, tokens, tokens}) + bytes_of<double>({tokens});
  }

  void logits(const Device auto& q, std::int64_t n, const float* u, Matrix w, float* out) const {
    linear(q, shape(), w, n, 1.f / divisor, u, width, 0.f, out, vocab);
    if (cap > 0) soft_cap(q, n * vocab, cap, out);
  }

  /// *sum += the batch's loss and, when du is given, du [tokens, width] = and dw += scale times its gradient. du may be
  /// u. `targets`: the batch's, where the device reads them; the batch itself is the host's.
  /// Logits are computed once for cross-entropy, twice for an objective of its own: all log-probabilities, then the
  /// gradient.
  template <Device D>
  void loss(const D& q, const Objective& objective, const TokenBatch& batch, const std::int32_t* targets,
            const float* u, Matrix w, float scale, float* du, MatrixGradient dw, double* sum, Bump temp) const {
    const std::int64_t n = batch.tokens();
    double* losses = temp.take<double>(n);
    float* capped = temp.take(cap > 0 ? rows(n) * vocab : 0);
    const auto learn = [&](CrossEntropy s, const float* coefficients) {
      each_block(q, n, u, w, temp, [&](std::int64_t t, std::int64_t count, float* x) {
        if (cap > 0 && du) copy(q, count * vocab, x, capped);
        cross_entropy(q, s, count, vocab, targets + t, scale, du != nullptr, x, losses + t,
                      coefficients ? coefficients + t : nullptr);
        if (cap > 0 && du) soft_cap_backward(q, count * vocab, cap, capped, x);
        if (du)
          linear_backward(q, shape(), w, dw, count, 1.f / divisor, x, vocab, u + t * width, width, 0.f, du + t * width);
      });
    };
    if (!objective.weigh) {
      learn({objective.label_smoothing, objective.z_loss}, nullptr);
      return add_losses(q, n, losses, sum);
    }
    float* log_probs = temp.take(n);
    float* coefficients = temp.take(n);
    each_block(q, n, u, w, temp, [&](std::int64_t t, std::int64_t count, float* x) {
      target_log_probs(q, count, vocab, targets + t, x, log_probs + t);
    });
    const double found = weigh(q, objective, batch, log_probs, coefficients);
    q.upload(losses, &found, sizeof found);
    add_losses(q, 1, losses, sum);
    if (du) learn({}, coefficients);
  }

 private:
  /// What the objective makes of log-probabilities, which the device has; so has it the coefficients afterwards.
  template <Device D>
  static double weigh(const D& q, const Objective& objective, const TokenBatch& batch, const float* log_probs,
                      float* coefficients) {
    if constexpr (D::shares_memory) {
      return objective.weigh(objective.self, batch, log_probs, coefficients);
    } else {
      const std::int64_t n = batch.tokens();
      const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(n);
      q.download(objective.room, log_probs, bytes);
      (void)q.finish();  // an error stays until the trainer asks
      const double loss = objective.weigh(objective.self, batch, objective.room, objective.room + n);
      q.upload(coefficients, objective.room + n, bytes);
      return loss;
    }
  }

  /// Calls f(first row, rows, their logits).
  template <class F>
  void each_block(const Device auto& q, std::int64_t n, const float* u, Matrix w, Bump temp, F&& f) const {
    const std::int64_t block = rows(n);
    float* x = temp.take(block * vocab);
    for (std::int64_t t = 0; t < n; t += block) {
      const std::int64_t count = std::min(block, n - t);
      logits(q, count, u + t * width, w, x);
      f(t, count, x);
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
