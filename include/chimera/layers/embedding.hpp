// The head, which turns the last activations into logits or a loss.
#pragma once

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

  constexpr Linear matrix() const { return {vocab, width}; }
  /// Rows whose logits are held at once: 64 MiB of them, at least one row tile.
  std::int64_t rows(std::int64_t tokens) const {
    return std::min(tokens, std::clamp<std::int64_t>((std::int64_t{16} << 20) / vocab, 64, 4096));
  }
  std::int64_t temp_floats(std::int64_t tokens) const { return floats_of({rows(tokens) * vocab, 2 * rows(tokens)}); }

  void logits(const Device auto& q, std::int64_t n, const float* u, const float* w, float* out) const {
    linear(q, matrix(), n, 1.f / divisor, u, width, w, 0.f, out, vocab);
  }

  /// Sum of the losses and, when du is given, du [tokens, width] = and dw += scale times its gradient. du may be u.
  double loss(const Device auto& q, std::int64_t n, const float* u, const std::int32_t* targets, const float* w,
              float scale, float* du, float* dw, Bump temp) const {
    const std::int64_t block = rows(n);
    float* x = temp.take(block * vocab);
    double* losses = reinterpret_cast<double*>(temp.take(2 * block));
    double sum = 0;
    for (std::int64_t t = 0; t < n; t += block) {
      const std::int64_t count = std::min(block, n - t);
      logits(q, count, u + t * width, w, x);
      cross_entropy(q, CrossEntropy{}, count, vocab, targets + t, scale, du != nullptr, x, losses, &sum);
      if (du)
        linear_backward(q, matrix(), count, 1.f / divisor, x, vocab, u + t * width, width, w, 0.f, du + t * width, dw);
    }
    return sum;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
