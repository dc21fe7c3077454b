// Keeps the loads of experts alike without a loss: after each step the bias of an expert that was chosen less than the
// mean grows, and that of others shrinks, by the same small number (Wang et al., 2408.15664, algorithm 1).
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/experts.hpp>
#include <chimera/model/weights_table.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// Of all tensors with Role::balance in a model's table, which must outlive it.
template <Device D>
class ExpertBalanceOn {
 public:
  ExpertBalanceOn() = default;

  static Result<ExpertBalanceOn> create(const D& q, std::span<const NamedTensor> tensors) {
    ExpertBalanceOn b;
    for (const NamedTensor& t : tensors) b.size_ += t.role == Role::balance ? t.size() : 0;
    auto choices = q.allocate(static_cast<std::size_t>(b.size_) * sizeof(float));
    if (!choices) return choices.error();
    b.tensors_ = tensors, b.choices_ = std::move(*choices);
    return b;
  }

  /// Takes the numbers of choices out of a gradient, where they are no gradient of the loss.
  void take(const D& q, float* gradient) {
    each([&](const NamedTensor& t, float* choices) {
      copy(q, t.size(), gradient + t.offset, choices);
      zero(q, t.size(), gradient + t.offset);
    });
  }
  /// Moves the biases by `rate`, and forgets the choices.
  void update(const D& q, float rate, float* weights) {
    each([&](const NamedTensor& t, const float* choices) {
      balance_experts(q, t.size(), rate, choices, weights + t.offset);
    });
    drop(q);
  }
  void drop(const D& q) { zero(q, size_, choices_.data()); }

 private:
  /// Calls f(tensor, its choices).
  template <class F>
  void each(F f) {
    float* at = choices_.data();
    for (const NamedTensor& t : tensors_)
      if (t.role == Role::balance) f(t, std::exchange(at, at + t.size()));
  }

  std::span<const NamedTensor> tensors_;
  std::int64_t size_ = 0;
  typename D::Memory choices_;
};
using ExpertBalance = ExpertBalanceOn<Cpu>;

}  // namespace chimera::inline CHIMERA_ABI
