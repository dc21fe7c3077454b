// AdamW (Loshchilov and Hutter, 2019) over a model's flat arena, and the gradient's global norm.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/simd.hpp>
#include <chimera/model/weights_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
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
  typedef float Floats __attribute__((vector_size(16)));
  typedef double Doubles __attribute__((vector_size(32)));

  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, double* result) {
    Doubles a{}, b{}, c{}, d{};
    std::int64_t i = 0;
    for (; i + 16 <= n; i += 16) add(a, x + i), add(b, x + i + 4), add(c, x + i + 8), add(d, x + i + 12);
    float rest[16] = {};
    for (std::int64_t j = 0; i + j < n; ++j) rest[j] = x[i + j];
    add(a, rest), add(b, rest + 4), add(c, rest + 8), add(d, rest + 12);
    a += b, c += d, a += c;
    *result = (a[0] + a[1]) + (a[2] + a[3]);
  }

 private:
  CHIMERA_INLINE static void add(Doubles& sums, const float* x) {
    Floats part;
    std::memcpy(&part, x, sizeof part);
    const Doubles wide = __builtin_convertvector(part, Doubles);
    sums += wide * wide;
  }
};

/// The numbers of one step, worked out once for all weights; k scales the gradient.
struct AdamWStep {
  float beta1, beta2;
  float gradient1, gradient2;  // (1 - beta1) k,  (1 - beta2) k^2
  float keep;                  // 1 - learning rate * weight decay
  float rate, epsilon;         // learning rate / (1 - beta1^t) and epsilon, both times c = sqrt(1 - beta2^t)
};

/// m = b1 m + (1 - b1) k g;  v = b2 v + (1 - b2) (k g)^2;  w = keep w - rate m / (sqrt(v) + epsilon);  g = 0.
struct AdamWKernel {
  /// AdamWStep in all lanes: made before the loop, since g++ does not take broadcasts out of one.
  template <int W>
  struct Lanes {
    Vec<W> beta1, beta2, gradient1, gradient2, keep, rate, epsilon;

    CHIMERA_INLINE explicit Lanes(const AdamWStep& s)
        : beta1(s.beta1),
          beta2(s.beta2),
          gradient1(s.gradient1),
          gradient2(s.gradient2),
          keep(s.keep),
          rate(s.rate),
          epsilon(s.epsilon) {}

    CHIMERA_INLINE void update(Vec<W>& w, const Vec<W>& g, Vec<W>& m, Vec<W>& v) const {
      m = fma<W>(beta1, m, gradient1 * g);
      v = fma<W>(beta2, v, gradient2 * g * g);
      w = keep * w - rate * m / (sqrt<W>(v) + epsilon);
    }
  };

  template <int W>
  CHIMERA_INLINE static void run(AdamWStep step, float* w, float* g, float* m, float* v, std::int64_t n) {
    using V = Vec<W>;
    const Lanes<W> lanes(step);
    std::int64_t i = 0;
    for (; i + W <= n; i += W) {
      V wi = V::load(w + i), mi = V::load(m + i), vi = V::load(v + i);
      lanes.update(wi, V::load(g + i), mi, vi);
      wi.store(w + i), mi.store(m + i), vi.store(v + i), V().store(g + i);
    }
    if (const std::int64_t left = n - i; left > 0) {
      V wi = V::load(w + i, left), mi = V::load(m + i, left), vi = V::load(v + i, left);
      lanes.update(wi, V::load(g + i, left), mi, vi);
      wi.store(w + i, left), mi.store(m + i, left), vi.store(v + i, left), V().store(g + i, left);
    }
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
      dispatch<SumOfSquares>(q.isa(), gradient + begin, std::min(arena_block, floats_ - begin),
                             &sums_[static_cast<std::size_t>(block)]);
    });
    double sum = 0;
    for (std::int64_t i = 0; i < blocks(); ++i) sum += sums_[static_cast<std::size_t>(i)];
    return std::sqrt(sum);
  }

  /// What a gradient of that norm is multiplied by so that its norm is at most `clip` (0: no limit).
  static double clip_factor(double norm, double clip) { return clip > 0 ? std::min(1.0, clip / (norm + 1e-6)) : 1.0; }

  /// Update number `t` (1 is the first). The gradient is multiplied by `gradient_scale`, used, and set to zero.
  void step(const Cpu& q, float* weights, float* gradient, std::int64_t t, double learning_rate,
            double gradient_scale) {
    const double beta1 = settings_.beta1, beta2 = settings_.beta2, k = gradient_scale;
    const double second = std::sqrt(1 - std::pow(beta2, static_cast<double>(t)));
    const double rate = learning_rate * second / (1 - std::pow(beta1, static_cast<double>(t)));
    const AdamWStep decayed{.beta1 = static_cast<float>(beta1),
                            .beta2 = static_cast<float>(beta2),
                            .gradient1 = static_cast<float>((1 - beta1) * k),
                            .gradient2 = static_cast<float>((1 - beta2) * k * k),
                            .keep = static_cast<float>(1 - learning_rate * settings_.weight_decay),
                            .rate = static_cast<float>(rate),
                            .epsilon = static_cast<float>(settings_.epsilon * second)};
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
        const bool decay = tensor != tensors_.begin() && (tensor - 1)->decays();
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
  Buffer moments_;                  // m, then v
  std::unique_ptr<double[]> sums_;  // one for each block
};

}  // namespace chimera::inline CHIMERA_ABI
