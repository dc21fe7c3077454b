// How one step learns: by the gradient of all weights and an optimizer.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/optim/expert_balance.hpp>
#include <chimera/optim/gradient.hpp>
#include <chimera/optim/optimizer.hpp>
#include <chimera/train/training_host.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// What one step learns from.
struct Lesson {
  std::span<const TokenBatch> batches;  // its micro-batches
  Objective objective = {};
  std::uint64_t seed = 0;   // of dropout
  std::uint64_t first = 0;  // number of the first micro-batch in the run, for dropout
};

/// What a step found out before it changes anything.
struct Learned {
  Loss loss;        // of all micro-batches
  double norm = 0;  // of the gradient, or of what stands for it
};

/// One step in two halves, so that the trainer can judge between them: `measure`, then `update` or `drop`. Weights and
/// `memory` are the device's.
template <Device D>
struct LearnerOn {
  virtual ~LearnerOn() = default;
  /// All that it remembers from step to step.
  virtual std::span<const Section> state() = 0;
  /// Bytes of working memory of `measure` for micro-batches of this shape.
  virtual std::size_t bytes(std::int64_t sequences, std::int64_t length) const = 0;
  /// Leaves the weights as they were. The host is asked before each micro-batch; nothing if it stopped: all is dropped.
  virtual std::optional<Learned> measure(const D& q, float* weights, const Lesson& lesson, std::byte* memory,
                                         TrainingHost& host) = 0;
  /// Changes the weights by what was measured.
  virtual void update(const D& q, float* weights, const Update& update) = 0;
  /// Forgets what was measured. An update after it with a rate of zero changes nothing.
  virtual void drop(const D& q) = 0;
};
using Learner = LearnerOn<Cpu>;

/// The gradient of the mean loss, added up over micro-batches, clipped, and handed to an optimizer.
template <Device D>
class GradientOn : public LearnerOn<D> {
 public:
  /// `clip`: the largest norm of a gradient; 0: no limit.
  static Result<GradientOn> create(const D& q, const ModelTable<D>& model, std::unique_ptr<OptimizerOn<D>> optimizer,
                                   double clip);

  std::span<const Section> state() override { return optimizer_->state(); }
  std::size_t bytes(std::int64_t sequences, std::int64_t length) const override;
  std::optional<Learned> measure(const D& q, float* weights, const Lesson& lesson, std::byte* memory,
                                 TrainingHost& host) override;
  void update(const D& q, float* weights, const Update& update) override;
  void drop(const D& q) override;

 private:
  /// What a step is judged by, where the device writes it.
  struct Found {
    double loss = 0, norm = 0;
  };

  GradientOn() = default;
  std::int64_t arena() const { return static_cast<std::int64_t>(model_.arena_floats); }

  ModelTable<D> model_;
  std::unique_ptr<OptimizerOn<D>> optimizer_;
  double clip_ = 0, norm_ = 0;
  typename D::Memory gradient_;  // zero between steps
  ExpertBalanceOn<D> balance_;
};
using Gradient = GradientOn<Cpu>;

template <Device D>
Result<GradientOn<D>> GradientOn<D>::create(const D& q, const ModelTable<D>& model,
                                            std::unique_ptr<OptimizerOn<D>> optimizer, double clip) {
  auto memory = q.allocate(model.arena_floats * sizeof(float));
  if (!memory) return memory.error();
  auto balance = ExpertBalanceOn<D>::create(q, model.tensors);
  if (!balance) return balance.error();
  GradientOn g;
  g.model_ = model, g.optimizer_ = std::move(optimizer), g.clip_ = clip;
  g.gradient_ = std::move(*memory), g.balance_ = std::move(*balance);
  return g;
}

template <Device D>
std::size_t GradientOn<D>::bytes(std::int64_t sequences, std::int64_t length) const {
  return aligned_bytes(sizeof(Found)) +
         std::max(model_.train_bytes(sequences, length), static_cast<std::size_t>(gradient_norm_bytes(arena())));
}

template <Device D>
std::optional<Learned> GradientOn<D>::measure(const D& q, float* weights, const Lesson& lesson, std::byte* memory,
                                              TrainingHost& host) {
  Bump rest{memory};
  auto* const there = rest.take<Found>(1);
  std::byte* const working = rest.take<std::byte>(0);
  Found found;
  q.upload(there, &found, sizeof found);
  std::int64_t count = 0;
  for (const TokenBatch& batch : lesson.batches) count += lesson.objective.counted(batch);
  TrainingStep step{.scale = count > 0 ? 1.f / static_cast<float>(count) : 0.f,
                    .seed = lesson.seed,
                    .step = lesson.first,
                    .objective = lesson.objective};
  for (const TokenBatch& batch : lesson.batches) {
    if (host.should_stop()) return drop(q), std::nullopt;
    model_.train(q, weights, batch, step, working, gradient_.data(), &there->loss);
    ++step.step;
  }
  balance_.take(q, gradient_.data());
  gradient_norm(q, arena(), gradient_.data(), &there->norm, rest);
  q.download(&found, there, sizeof found);
  (void)q.finish();  // an error stays until the trainer asks
  norm_ = found.norm;
  return Learned{{found.loss, count}, norm_};
}

template <Device D>
void GradientOn<D>::update(const D& q, float* weights, const Update& update) {
  Update clipped = update;
  clipped.scale *= clip_factor(norm_, clip_);
  optimizer_->update(q, weights, gradient_.data(), clipped);
  balance_.update(q, model_.config->moe.balance_rate, weights);
}

template <Device D>
void GradientOn<D>::drop(const D& q) {
  zero(q, arena(), gradient_.data());
  balance_.drop(q);
  norm_ = 0;
}
CHIMERA_CPU_FORM(class GradientOn<Cpu>)

}  // namespace chimera::inline CHIMERA_ABI
