// AdamW (Loshchilov and Hutter, 2019) over a model's flat arena.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/simd.hpp>
#include <chimera/model/weights_table.hpp>
#include <chimera/optim/gradient.hpp>
#include <chimera/optim/optimizer.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// The numbers of one step, worked out once for all weights; k scales the gradient.
struct AdamWStep {
  float beta1, beta2;
  float gradient1, gradient2;  // (1 - beta1) k,  (1 - beta2) k^2
  float keep;                  // 1 - learning rate * weight decay
  float rate, epsilon;         // learning rate / (1 - beta1^t) and epsilon, both times c = sqrt(1 - beta2^t)
};

/// One update of an arena: weights of tensors that decay are also multiplied by `step.keep`; the gradient becomes zero.
void adamw_update(const Cpu& q, std::span<const NamedTensor> tensors, const AdamWStep& step, std::int64_t floats,
                  float* weights, float* gradient, float* moment1, float* moment2);

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0.1;  // of tensors whose row in the table says so

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("adamw.beta1", s.beta1), f("adamw.beta2", s.beta2);
    f("adamw.epsilon", s.epsilon), f("adamw.weight_decay", s.weight_decay);
    if constexpr (!std::is_const_v<Self>)  // to be read: their names in files of earlier versions
      f("beta1", s.beta1), f("beta2", s.beta2), f("epsilon", s.epsilon), f("weight_decay", s.weight_decay);
  }
};

/// Moments of every weight, and the update that uses them. `tensors` must outlive it.
template <Device D>
class AdamWOn : public OptimizerOn<D> {
 public:
  AdamWOn() = default;

  static Result<AdamWOn> create(const D& q, std::span<const NamedTensor> tensors, std::size_t arena_floats,
                                const AdamWSettings& settings);

  /// Running means of the gradient and of its square, [arena].
  float* first_moment() { return moments_.data(); }
  float* second_moment() { return moments_.data() + aligned_floats(static_cast<std::size_t>(floats_)); }

  std::span<const Section> state() override { return state_; }

  void update(const D& q, float* weights, float* gradient, const Update& update) override;

 private:
  std::span<const NamedTensor> tensors_;
  std::int64_t floats_ = 0;
  AdamWSettings settings_;
  typename D::Memory moments_;  // m, then v
  std::array<Section, 2> state_;
};
using AdamW = AdamWOn<Cpu>;

template <Device D>
Result<AdamWOn<D>> AdamWOn<D>::create(const D& q, std::span<const NamedTensor> tensors, std::size_t arena_floats,
                                      const AdamWSettings& settings) {
  AdamWOn a;
  a.tensors_ = tensors, a.floats_ = static_cast<std::int64_t>(arena_floats), a.settings_ = settings;
  auto moments = q.allocate(2 * aligned_floats(arena_floats) * sizeof(float));
  if (!moments) return moments.error();
  a.moments_ = std::move(*moments);
  a.state_ = {Section::of("moment1", a.first_moment(), arena_floats),
              Section::of("moment2", a.second_moment(), arena_floats)};
  return a;
}

template <Device D>
void AdamWOn<D>::update(const D& q, float* weights, float* gradient, const Update& update) {
  const double beta1 = settings_.beta1, beta2 = settings_.beta2, k = update.scale;
  const double t = static_cast<double>(update.number), second = std::sqrt(1 - std::pow(beta2, t));
  const double rate = update.rate * second / (1 - std::pow(beta1, t));
  const AdamWStep step{.beta1 = static_cast<float>(beta1),
                       .beta2 = static_cast<float>(beta2),
                       .gradient1 = static_cast<float>((1 - beta1) * k),
                       .gradient2 = static_cast<float>((1 - beta2) * k * k),
                       .keep = static_cast<float>(1 - update.rate * settings_.weight_decay),
                       .rate = static_cast<float>(rate),
                       .epsilon = static_cast<float>(settings_.epsilon * second)};
  adamw_update(q, tensors_, step, floats_, weights, gradient, first_moment(), second_moment());
}
CHIMERA_CPU_FORM(class AdamWOn<Cpu>)

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

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

CHIMERA_FUNCTION void adamw_update(const Cpu& q, std::span<const NamedTensor> tensors, const AdamWStep& step,
                                   std::int64_t floats, float* weights, float* gradient, float* moment1,
                                   float* moment2) {
  AdamWStep plain = step;
  plain.keep = 1.f;
  parallel(q, arena_blocks(floats), [&](std::int64_t block, int) {
    const std::int64_t end = std::min((block + 1) * arena_block, floats);
    std::int64_t at = block * arena_block;
    auto tensor = std::upper_bound(tensors.begin(), tensors.end(), at, [](std::int64_t x, const NamedTensor& n) {
      return x < static_cast<std::int64_t>(n.offset);
    });
    for (; at < end; ++tensor) {  // `tensor` is the first that starts after `at`
      const std::int64_t next = tensor == tensors.end() ? floats : static_cast<std::int64_t>(tensor->offset);
      const bool decay = tensor != tensors.begin() && (tensor - 1)->decays();
      const std::int64_t n = std::min(next, end) - at;
      dispatch<AdamWKernel>(q.isa(), decay ? step : plain, weights + at, gradient + at, moment1 + at, moment2 + at, n);
      at += n;
      if (tensor == tensors.end()) break;
    }
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
