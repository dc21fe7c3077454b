// AdamW (Loshchilov and Hutter, 2019) over a model's flat arena, and the gradient's global norm.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/simd.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// Floats of one task of a walk over an arena. Fixed, so that sums are the same for every number of threads.
inline constexpr std::int64_t arena_block = 16'384;

/// Sum of squares of n floats, in double. Sixteen running sums at every level; the product of two floats is exact in
/// double, so the result is the same on every machine.
struct SumOfSquares {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, double* result) {
    double sums[16] = {};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16)
      for (int j = 0; j < 16; ++j) {
        const double v = static_cast<double>(x[i + j]);
        sums[j] += v * v;
      }
    for (int j = 0; i + j < n; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
    for (int width = 8; width > 0; width /= 2)
      for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
    *result = sums[0];
  }
};

/// The numbers of one step, worked out once for all weights.
struct AdamWStep {
  float gradient_scale;              // clipping
  float beta1, beta2;
  float keep;                        // 1 - learning rate * weight decay
  float rate;                        // learning rate / (1 - beta1^t)
  float second_scale;                // 1 / sqrt(1 - beta2^t)
  float epsilon;
};

/// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w = keep w - rate m / (sqrt(v) / sqrt(1 - b2^t) + eps);  g = 0.
struct AdamWKernel {
  template <int W>
  CHIMERA_INLINE static void run(AdamWStep s, float* w, float* g, float* m, float* v, std::int64_t n) {
    using V = Vec<W>;
    std::int64_t i = 0;
    for (; i + W <= n; i += W) {
      V wi = V::load(w + i), mi = V::load(m + i), vi = V::load(v + i);
      update<W>(s, wi, V::load(g + i), mi, vi);
      wi.store(w + i), mi.store(m + i), vi.store(v + i), V(0.f).store(g + i);
    }
    if (const std::int64_t left = n - i; left > 0) {
      V wi = V::load(w + i, left), mi = V::load(m + i, left), vi = V::load(v + i, left);
      update<W>(s, wi, V::load(g + i, left), mi, vi);
      wi.store(w + i, left), mi.store(m + i, left), vi.store(v + i, left), V(0.f).store(g + i, left);
    }
  }

  template <int W>
  CHIMERA_INLINE static void update(const AdamWStep& s, Vec<W>& w, const Vec<W>& gradient, Vec<W>& m, Vec<W>& v) {
    using V = Vec<W>;
    const V g = gradient * V(s.gradient_scale);
    m = fma<W>(V(s.beta1), m, V(1.f - s.beta1) * g);
    v = fma<W>(V(s.beta2), v, V(1.f - s.beta2) * g * g);
    w = V(s.keep) * w - V(s.rate) * m / fma<W>(sqrt<W>(v), V(s.second_scale), V(s.epsilon));
  }
};

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  // of tensors whose row in the table says so
};

/// Moments of every weight, and the step that uses them. `tensors` must outlive it.
class AdamW {
 public:
  AdamW() = default;

  static Result<AdamW> create(std::span<const NamedTensor> tensors, std::size_t arena_floats,
                              const AdamWSettings& settings) {
    AdamW a;
    a.tensors_ = tensors, a.floats_ = static_cast<std::int64_t>(arena_floats), a.settings_ = settings;
    auto moments = Buffer::create(2 * aligned_floats(arena_floats));
    if (!moments) return moments.error();
    a.moments_ = std::move(*moments);
    a.sums_.reset(new (std::nothrow) double[static_cast<std::size_t>(a.blocks())]);
    if (!a.sums_) return Error{"out of memory for the gradient norm of " + std::to_string(arena_floats) + " weights"};
    return a;
  }

  /// Running means of the gradient and of its square, [arena].
  float* first_moment() { return moments_.data(); }
  float* second_moment() { return moments_.data() + aligned_floats(static_cast<std::size_t>(floats_)); }

  /// Global L2 norm of a gradient arena; not finite if any element is not.
  double norm(const Cpu& q, const float* gradient) {
    parallel(q, blocks(), [&](std::int64_t block, int) {
      const std::int64_t begin = block * arena_block;
      dispatch<SumOfSquares>(q.isa(), gradient + begin, std::min(arena_block, floats_ - begin), &sums_[static_cast<std::size_t>(block)]);
    });
    double sum = 0;
    for (std::int64_t i = 0; i < blocks(); ++i) sum += sums_[static_cast<std::size_t>(i)];
    return std::sqrt(sum);
  }

  /// What a gradient of that norm is multiplied by so that its norm is at most `clip` (0: no limit).
  static double clip_factor(double norm, double clip) { return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0; }

  /// Update number `t` (1 is the first). The gradient is multiplied by `gradient_scale`, used, and set to zero.
  void step(const Cpu& q, float* weights, float* gradient, std::int64_t t, double learning_rate, double gradient_scale) {
    const double rate = learning_rate / (1 - std::pow(settings_.beta1, static_cast<double>(t)));
    const double second = 1 / std::sqrt(1 - std::pow(settings_.beta2, static_cast<double>(t)));
    AdamWStep decayed{.gradient_scale = static_cast<float>(gradient_scale),
                      .beta1 = static_cast<float>(settings_.beta1),
                      .beta2 = static_cast<float>(settings_.beta2),
                      .keep = static_cast<float>(1 - learning_rate * settings_.weight_decay),
                      .rate = static_cast<float>(rate),
                      .second_scale = static_cast<float>(second),
                      .epsilon = static_cast<float>(settings_.epsilon)};
    AdamWStep plain = decayed;
    plain.keep = 1.f;
    parallel(q, blocks(), [&](std::int64_t block, int) {
      const std::int64_t end = std::min((block + 1) * arena_block, floats_);
      std::int64_t at = block * arena_block;
      auto tensor = std::upper_bound(tensors_.begin(), tensors_.end(), at, [](std::int64_t x, const NamedTensor& n) {
        return x < static_cast<std::int64_t>(n.offset);
      });
      for (; at < end; ++tensor) {  // `tensor` is the first that starts after `at`
        const std::int64_t next = tensor == tensors_.end() ? floats_ : static_cast<std::int64_t>(tensor->offset);
        const bool decay = tensor != tensors_.begin() && (tensor - 1)->decay;
        const std::int64_t n = std::min(next, end) - at;
        dispatch<AdamWKernel>(q.isa(), decay ? decayed : plain, weights + at, gradient + at, first_moment() + at,
                              second_moment() + at, n);
        at += n;
        if (tensor == tensors_.end()) break;
      }
    });
  }

 private:
  std::int64_t blocks() const { return (floats_ + arena_block - 1) / arena_block; }

  std::span<const NamedTensor> tensors_;
  std::int64_t floats_ = 0;
  AdamWSettings settings_;
  Buffer moments_;                   // m, then v
  std::unique_ptr<double[]> sums_;  // one for each block
};

}  // namespace chimera::inline CHIMERA_ABI
