// The two ends of a model: the embedding of tokens, and the head that turns the last activations into logits or a loss.
#pragma once

#include <chimera/kernels/f32/cross_entropy.hpp>
#include <chimera/layers/layer.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// x [tokens, width] = scale table[token]; table [vocab, width]. Every token must be in [0, vocab).
inline void embed(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens, float scale,
                  const float* table, float* x) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      dispatch<Scaled>(q.isa(), width, scale, table + tokens[t] * width, x + t * width);
  });
}

/// dtable[token] += scale dx, token after token: tasks split the channels, so the order of additions is fixed.
inline void embed_backward(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* tokens, float scale,
                           const float* dx, float* dtable) {
  constexpr std::int64_t strip = 64;
  parallel(q, (width + strip - 1) / strip, [&](std::int64_t index, int) {
    const std::int64_t c = index * strip, count = std::min(strip, width - c);
    for (std::int64_t t = 0; t < n; ++t)
      dispatch<AddScaled>(q.isa(), count, scale, dx + t * width + c, dtable + tokens[t] * width + c);
  });
}

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

  void logits(const Cpu& q, std::int64_t n, const float* u, const float* w, float* out) const {
    linear(q, matrix(), n, 1.f / divisor, u, width, w, 0.f, out, vocab);
  }

  /// Sum of the losses and, when du is given, du [tokens, width] = and dw += scale times its gradient. du may be u.
  double loss(const Cpu& q, std::int64_t n, const float* u, const std::int32_t* targets, const float* w, float scale,
              float* du, float* dw, Bump temp) const {
    const std::int64_t block = rows(n);
    float* x = temp.take(block * vocab);
    double* losses = reinterpret_cast<double*>(temp.take(2 * block));
    double sum = 0;
    for (std::int64_t t = 0; t < n; t += block) {
      const std::int64_t count = std::min(block, n - t);
      logits(q, count, u + t * width, w, x);
      cross_entropy(q, {}, count, vocab, targets + t, scale, du != nullptr, x, losses);
      for (std::int64_t i = 0; i < count; ++i) sum += losses[i];
      if (!du) continue;
      linear_weight_gradient(q, matrix(), count, 1.f / divisor, x, vocab, u + t * width, width, dw);
      linear_input_gradient(q, matrix(), count, 1.f / divisor, x, vocab, w, 0.f, du + t * width, width);
    }
    return sum;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
