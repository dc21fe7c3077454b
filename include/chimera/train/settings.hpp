// What a training run is told, and its form as text: lines of "name value", so that a checkpoint can hold settings of
// another version and a person can read them.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/optim/schedule.hpp>
#include <chimera/train/windows.hpp>

#include <algorithm>
#include <cstdint>
#include <string>

namespace chimera::inline CHIMERA_ABI {

struct TrainerSettings {
  std::int64_t steps = 1'000;     // optimizer steps of the whole run
  std::int64_t batch = 8;         // sequences of one micro-batch
  std::int64_t context = 256;     // tokens of one sequence
  std::int64_t accumulation = 1;  // micro-batches of one step
  std::uint64_t seed = 1;         // of the weights, of the data's order and of dropout
  WindowOrder order = WindowOrder::random;

  double learning_rate = 1e-3;  // at the peak of the schedule
  ScheduleShape schedule = ScheduleShape::cosine;
  std::int64_t warmup = -1;  // steps; -1: a hundredth of the run, at most 2,000
  std::int64_t decay = -1;   // steps (WSD); -1: a fifth of the run
  double floor = 0.1;        // last learning rate / peak

  AdamWSettings adamw = {};
  double clip = 1.0;           // largest global norm of the gradient; 0: no limit
  double label_smoothing = 0;  // of the training loss: what every token of the vocabulary gets of the target's share
  double z_loss = 0;           // of the training loss: times the squared log of the softmax's sum

  Precision precision = Precision::f32;  // of large products; bf16 is for processors that have it (avx512_bf16)

  std::int64_t validation_interval = 100;  // steps; 0: only at the end
  std::int64_t validation_tokens = 0;      // of the validation split that are evaluated; 0: all
  std::int64_t checkpoint_interval = 500;  // steps; 0: only at the end
  std::int64_t keep = 2;                   // checkpoints that stay

  double spike_factor = 2.0;      // a loss this many times its running mean is a spike; 0: never
  std::int64_t spike_after = 20;  // accepted steps before a spike can be told
  std::int64_t skip_limit = 50;   // skipped steps in a row that end the run

  Schedule resolved_schedule() const;
  std::int64_t tokens_per_step() const { return batch * context * accumulation; }

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("steps", s.steps), f("batch", s.batch), f("context", s.context), f("accumulation", s.accumulation);
    f("seed", s.seed), f("sampling", s.order);
    f("learning_rate", s.learning_rate), f("schedule", s.schedule), f("warmup", s.warmup), f("decay", s.decay);
    f("floor", s.floor);
    AdamWSettings::each_field(s.adamw, f);
    f("clip", s.clip), f("label_smoothing", s.label_smoothing), f("z_loss", s.z_loss);
    f("precision", s.precision);
    f("validation_interval", s.validation_interval), f("validation_tokens", s.validation_tokens);
    f("checkpoint_interval", s.checkpoint_interval), f("keep", s.keep);
    f("spike_factor", s.spike_factor), f("spike_after", s.spike_after), f("skip_limit", s.skip_limit);
  }

  /// The first setting that no run can have.
  Result<void> validate() const;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Schedule TrainerSettings::resolved_schedule() const {
  return {.shape = schedule,
          .steps = steps,
          .warmup = warmup >= 0 ? warmup : std::min<std::int64_t>(2'000, steps / 100),
          .decay = decay >= 0 ? decay : steps / 5,
          .floor = floor};
}

CHIMERA_FUNCTION Result<void> TrainerSettings::validate() const {
  const auto wrong = [](std::string_view rule, auto found) {
    return Error{std::string(rule) + ", found " + to_text(found)};
  };
  constexpr std::int64_t most = std::int64_t{1} << 24;
  if (steps < 1) return wrong("steps must be at least 1", steps);
  if (batch < 1 || batch > most) return wrong("batch must be between 1 and 16777216", batch);
  if (context < 1 || context > most) return wrong("context must be between 1 and 16777216", context);
  if (accumulation < 1 || accumulation > most)
    return wrong("accumulation must be between 1 and 16777216", accumulation);
  if (batch * context > most || batch * context * accumulation > 64 * most)
    return wrong("batch * context must be at most 16777216 tokens, and a step at most 1073741824", tokens_per_step());
  if (!(learning_rate > 0) || learning_rate > 1e6) return wrong("learning_rate must be positive", learning_rate);
  if (!(floor >= 0 && floor <= 1)) return wrong("floor must be between 0 and 1", floor);
  if (!(adamw.beta1 >= 0 && adamw.beta1 < 1)) return wrong("beta1 must be at least 0 and below 1", adamw.beta1);
  if (!(adamw.beta2 >= 0 && adamw.beta2 < 1)) return wrong("beta2 must be at least 0 and below 1", adamw.beta2);
  if (!(adamw.epsilon > 0)) return wrong("epsilon must be positive", adamw.epsilon);
  if (!(adamw.weight_decay >= 0)) return wrong("weight_decay must not be negative", adamw.weight_decay);
  if (!(clip >= 0)) return wrong("clip must not be negative", clip);
  if (!(label_smoothing >= 0 && label_smoothing < 1))
    return wrong("label_smoothing must be at least 0 and below 1", label_smoothing);
  if (!(z_loss >= 0)) return wrong("z_loss must not be negative", z_loss);
  if (warmup < -1) return wrong("warmup must be -1 or more", warmup);
  if (decay < -1) return wrong("decay must be -1 or more", decay);
  if (validation_interval < 0) return wrong("validation_interval must not be negative", validation_interval);
  if (validation_tokens < 0) return wrong("validation_tokens must not be negative", validation_tokens);
  if (checkpoint_interval < 0) return wrong("checkpoint_interval must not be negative", checkpoint_interval);
  if (keep < 1) return wrong("keep must be at least 1", keep);
  if (!(spike_factor >= 0)) return wrong("spike_factor must not be negative", spike_factor);
  if (skip_limit < 1) return wrong("skip_limit must be at least 1", skip_limit);
  if (precision > Precision::bf16) return wrong("precision must be 0 or 1", precision);
  if (schedule > ScheduleShape::wsd_sqrt) return wrong("schedule must be 0, 1 or 2", schedule);
  if (order > WindowOrder::shuffled) return wrong("sampling must be 0 or 1", order);
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
