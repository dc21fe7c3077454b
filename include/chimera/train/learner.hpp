// How one step learns: by the gradient of all weights and an optimizer.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/model/any_model.hpp>
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

/// One step in two halves, so that the trainer can judge between them: `measure`, then `update` or `drop`.
struct Learner {
  virtual ~Learner() = default;
  /// All that it remembers from step to step.
  virtual std::span<const Section> state() = 0;
  /// Bytes of working memory of `measure` for micro-batches of this shape.
  virtual std::size_t bytes(std::int64_t sequences, std::int64_t length) const = 0;
  /// Leaves the weights as they were. The host is asked before each micro-batch; nothing if it stopped: all is dropped.
  virtual std::optional<Learned> measure(const Cpu& q, float* weights, const Lesson& lesson, std::byte* memory,
                                         TrainingHost& host) = 0;
  /// Changes the weights by what was measured.
  virtual void update(const Cpu& q, float* weights, const Update& update) = 0;
  /// Forgets what was measured. An update after it with a rate of zero changes nothing.
  virtual void drop(const Cpu& q) = 0;
};

/// The gradient of the mean loss, added up over micro-batches, clipped, and handed to an optimizer.
class Gradient : public Learner {
 public:
  /// `clip`: the largest norm of a gradient; 0: no limit.
  static Result<Gradient> create(const AnyModel& model, std::unique_ptr<Optimizer> optimizer, double clip);

  std::span<const Section> state() override { return optimizer_->state(); }

  CHIMERA_FUNCTION std::size_t bytes(std::int64_t sequences, std::int64_t length) const override;

  CHIMERA_FUNCTION std::optional<Learned> measure(const Cpu& q, float* weights, const Lesson& lesson, std::byte* memory,
                                                  TrainingHost& host) override;

  CHIMERA_FUNCTION void update(const Cpu& q, float* weights, const Update& update) override;

  CHIMERA_FUNCTION void drop(const Cpu& q) override;

 private:
  Gradient() = default;
  std::int64_t arena() const { return static_cast<std::int64_t>(gradient_.size()); }

  AnyModel model_;
  std::unique_ptr<Optimizer> optimizer_;
  double clip_ = 0, norm_ = 0;
  Buffer gradient_;  // zero between steps
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Gradient> Gradient::create(const AnyModel& model, std::unique_ptr<Optimizer> optimizer,
                                                   double clip) {
  auto buffer = Buffer::create(model.arena_floats);
  if (!buffer) return buffer.error();
  Gradient g;
  g.model_ = model, g.optimizer_ = std::move(optimizer), g.clip_ = clip;
  g.gradient_ = std::move(*buffer);
  return g;
}

CHIMERA_FUNCTION std::size_t Gradient::bytes(std::int64_t sequences, std::int64_t length) const {
  return std::max(model_.train_bytes(sequences, length), static_cast<std::size_t>(gradient_norm_bytes(arena())));
}

CHIMERA_FUNCTION std::optional<Learned> Gradient::measure(const Cpu& q, float* weights, const Lesson& lesson,
                                                          std::byte* memory, TrainingHost& host) {
  std::int64_t count = 0;
  for (const TokenBatch& batch : lesson.batches) count += lesson.objective.counted(batch);
  TrainingStep step{.scale = count > 0 ? 1.f / static_cast<float>(count) : 0.f,
                    .seed = lesson.seed,
                    .step = lesson.first,
                    .objective = lesson.objective};
  Learned learned;
  for (const TokenBatch& batch : lesson.batches) {
    if (host.should_stop()) return drop(q), std::nullopt;
    const Loss part = model_.train(q, weights, batch, step, memory, gradient_.data());
    learned.loss.sum += part.sum, learned.loss.count += part.count;
    ++step.step;
  }
  learned.norm = norm_ = gradient_norm(q, arena(), gradient_.data(), Bump{memory});
  return learned;
}

CHIMERA_FUNCTION void Gradient::update(const Cpu& q, float* weights, const Update& update) {
  Update clipped = update;
  clipped.scale *= clip_factor(norm_, clip_);
  optimizer_->update(q, weights, gradient_.data(), clipped);
}

CHIMERA_FUNCTION void Gradient::drop(const Cpu& q) {
  zero(q, arena(), gradient_.data());
  norm_ = 0;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
