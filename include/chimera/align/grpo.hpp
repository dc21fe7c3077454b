// Group relative policy optimization: of several completions of one prompt those that earned more than the others
// become likelier, each token by no more than a clipped ratio to what it was when it was drawn.
// DeepSeekMath (2402.03300), equations 3 and 4; DAPO (2503.14476); Dr. GRPO (2503.20783).
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/train/learner.hpp>
#include <chimera/train/training_host.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace chimera {

/// What the tokens' losses become.
enum class GrpoReduction : std::uint8_t {
  dapo,     // the mean over all tokens of a step
  grpo,     // the mean over completions of the mean over each one's tokens
  dr_grpo,  // the sum over completions times the tokens that one may have: its length does not count
};

/// What there is to know of some targets, summed.
struct GrpoSeen {
  double targets = 0, clipped = 0;  // clipped: those that no longer count in the gradient
  double moved = 0, farthest = 0;   // of d = log pi - log old: e^d - 1 - d, and the largest |d|
  double drift = 0;                 // the same as `moved` of log ref - log pi

  double clipped_share() const { return targets > 0 ? clipped / targets : 0; }
  /// KL(old || pi) and KL(pi || ref) a token (Schulman's third estimator).
  double moved_kl() const { return targets > 0 ? moved / targets : 0; }
  double reference_kl() const { return targets > 0 ? drift / targets : 0; }
};

/// What each of a group's completions earned, less their mean; with `deviation` divided by their deviation (of n - 1),
/// too. `out` [rewards].
inline void group_advantages(std::span<const double> rewards, bool deviation, std::span<float> out) {
  const double n = static_cast<double>(rewards.size());
  double mean = 0, squares = 0;
  for (const double r : rewards) mean += r / n;
  for (const double r : rewards) squares += (r - mean) * (r - mean);
  const double scale = deviation ? 1 / ((n > 1 ? std::sqrt(squares / (n - 1)) : 0) + 1e-4) : 1;
  for (std::size_t i = 0; i < rewards.size(); ++i) out[i] = static_cast<float>((rewards[i] - mean) * scale);
}

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// An objective over batches whose rows are completions, with log-probabilities of when they were drawn and advantages
/// (TokenBatch::old and advantages), and a reference where `kl` is above 0. It must stay where it is while a trainer has
/// its objective. With r = pi / old, A the advantage, and d = log ref - log pi a token's loss is
///   -min(r A, clip(r, 1 - clip, 1 + clip_high) A) + kl (e^d - d - 1)
struct Grpo {
  GrpoReduction reduction = GrpoReduction::dapo;
  double clip = 0.2, clip_high = 0.28;  // DAPO's clip-higher; equal: as in DeepSeekMath
  double kl = 0;
  std::int64_t longest = 1;  // tokens that a completion may have, for dr_grpo
  GrpoSeen seen = {};        // of all batches since the caller cleared it

  Objective objective() { return {.self = this, .weigh = weigh, .count = count}; }

 private:
  CHIMERA_FUNCTION static std::int64_t count(void* self, const TokenBatch& batch);
  CHIMERA_FUNCTION static double weigh(void* self, const TokenBatch& batch, const float* log_probs,
                                       float* coefficients);
};

/// A step that learns several times from the same completions, by a learner that takes each as an update of its own.
class GrpoUpdates : public Learner {
 public:
  /// `grpo` must outlive it.
  GrpoUpdates(Grpo& grpo, std::unique_ptr<Learner> learner, std::int64_t updates)
      : grpo_(&grpo), learner_(std::move(learner)), updates_(updates) {}

  /// Of the step's first pass: how far training is from what drew the completions, before anything was learned.
  const GrpoSeen& before() const { return before_; }

  std::span<const Section> state() override { return learner_->state(); }
  std::size_t bytes(std::int64_t sequences, std::int64_t length) const override {
    return learner_->bytes(sequences, length);
  }
  CHIMERA_FUNCTION std::optional<Learned> measure(const Cpu& q, float* weights, const Lesson& lesson, std::byte* memory,
                                                  TrainingHost& host) override;
  /// An update whose loss or gradient is not finite is left out, and those behind it.
  CHIMERA_FUNCTION void update(const Cpu& q, float* weights, const Update& update) override;
  void drop(const Cpu& q) override { learner_->drop(q); }

 private:
  Grpo* grpo_;
  std::unique_ptr<Learner> learner_;
  std::int64_t updates_;
  GrpoSeen before_;
  Lesson lesson_;  // of the step at hand, and where it is measured
  std::byte* memory_ = nullptr;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace grpo_parts {

inline std::int64_t counted(const TokenBatch& batch, std::int64_t row) {
  const std::int32_t* const targets = batch.targets + row * batch.length;
  return std::count_if(targets, targets + batch.length, [](std::int32_t t) { return t >= 0; });
}

}  // namespace grpo_parts

CHIMERA_FUNCTION std::int64_t Grpo::count(void* self, const TokenBatch& batch) {
  const Grpo& grpo = *static_cast<const Grpo*>(self);
  if (grpo.reduction == GrpoReduction::dapo) return batch.counted();
  std::int64_t completions = 0;
  for (std::int64_t row = 0; row < batch.sequences; ++row) completions += grpo_parts::counted(batch, row) > 0;
  return grpo.reduction == GrpoReduction::grpo ? completions : completions * grpo.longest;
}

CHIMERA_FUNCTION double Grpo::weigh(void* self, const TokenBatch& batch, const float* log_probs, float* coefficients) {
  Grpo& grpo = *static_cast<Grpo*>(self);
  GrpoSeen& seen = grpo.seen;
  double all = 0;
  for (std::int64_t row = 0; row < batch.sequences; ++row) {
    const std::int64_t targets = grpo_parts::counted(batch, row);
    if (targets == 0) continue;
    const double share = grpo.reduction == GrpoReduction::grpo ? 1 / static_cast<double>(targets) : 1;
    for (std::int64_t t = row * batch.length; t < (row + 1) * batch.length; ++t) {
      if (batch.targets[t] < 0) continue;
      const double p = double{log_probs[t]}, d = p - (batch.old ? double{batch.old[t]} : p);
      const double advantage = batch.advantages ? double{batch.advantages[t]} : 0;
      const double gain = std::exp(d) * advantage,
                   most = std::clamp(std::exp(d), 1 - grpo.clip, 1 + grpo.clip_high) * advantage;
      double loss = -std::min(gain, most), coefficient = gain <= most ? gain : 0;
      ++seen.targets, seen.clipped += gain > most;
      seen.moved += std::expm1(d) - d, seen.farthest = std::max(seen.farthest, std::fabs(d));
      if (batch.reference) {
        const double k = double{batch.reference[t]} - p, drift = std::expm1(k) - k;
        loss += grpo.kl * drift, coefficient += grpo.kl * std::expm1(k);
        seen.drift += drift;
      }
      all += share * loss;
      coefficients[t] = static_cast<float>(share * coefficient);
    }
  }
  return all;
}

CHIMERA_FUNCTION std::optional<Learned> GrpoUpdates::measure(const Cpu& q, float* weights, const Lesson& lesson,
                                                             std::byte* memory, TrainingHost& host) {
  lesson_ = lesson, memory_ = memory;
  grpo_->seen = {};
  const auto learned = learner_->measure(q, weights, lesson, memory, host);
  before_ = grpo_->seen;
  return learned;
}

CHIMERA_FUNCTION void GrpoUpdates::update(const Cpu& q, float* weights, const Update& update) {
  Update own = update;
  own.number = (update.number - 1) * updates_ + 1;
  learner_->update(q, weights, own);
  TrainingHost nobody;
  for (++own.number; own.number <= update.number * updates_; ++own.number) {
    grpo_->seen = {};
    const auto learned = learner_->measure(q, weights, lesson_, memory_, nobody);
    if (!learned || !is_finite(learned->loss.sum) || !is_finite(learned->norm)) return learner_->drop(q);
    learner_->update(q, weights, own);
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
