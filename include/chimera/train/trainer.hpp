// The training loop over any model: batches, gradient accumulation, clipping, AdamW, validation, checkpoints.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/train/checkpoint.hpp>
#include <chimera/train/data.hpp>
#include <chimera/train/settings.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

enum class Skip : std::uint8_t { none, loss_not_finite, gradient_not_finite, spike };

constexpr std::string_view name(Skip skip) {
  switch (skip) {
    case Skip::none: return "none";
    case Skip::loss_not_finite: return "the loss is not finite";
    case Skip::gradient_not_finite: return "the gradient is not finite";
    case Skip::spike: return "the loss is a spike";
  }
  return "";
}

/// One step, told after it.
struct StepReport {
  std::int64_t step = 0, steps = 0;  // this one, counted from 1, of how many
  double loss = 0;                   // nats per target, before the step
  double gradient_norm = 0;          // before clipping
  double learning_rate = 0;
  std::int64_t tokens = 0;  // read since the run began
  double tokens_per_second = 0;
  double flops_per_second = 0;  // floating-point operations of the model's matrices (training_flops)
  double seconds = 0;           // of training since the run began, resumed parts included
  double seconds_left = 0;
  Skip skip = Skip::none;         // why the weights were left as they were
  std::int64_t skipped = 0;  // steps skipped since the run began
};

struct ValidationReport {
  std::int64_t step = 0;  // steps done
  double loss = 0;        // nats per target
  std::int64_t targets = 0;
  double seconds = 0;
};

/// What a program hears of a run and how it stops one. Calls come from the thread that called `run`.
struct TrainingHost {
  virtual ~TrainingHost() = default;
  virtual void on_step(const StepReport&) {}
  virtual void on_validation(const ValidationReport&) {}
  virtual void on_checkpoint(const std::string& /*path*/) {}
  /// Asked before each micro-batch. On true the unfinished step is dropped, a checkpoint is saved, and `run` returns.
  virtual bool should_stop() { return false; }
};

enum class Ended : std::uint8_t { finished, stopped };

struct Resumed {
  std::string path;     // of the checkpoint; empty if the folder has none and the run starts at the beginning
  std::int64_t step = 0;
  std::string note;     // for the user: checkpoints that could not be read, settings that changed; may be empty
};

/// Floating-point operations of training on one token: 6 for each weight that multiplies it, and in each attention
/// layer 12 for each channel and each key it sees on average (Kaplan et al. 2020, table 1, causal mask counted).
/// Recomputation by checkpointing does not count, nor do scans and elementwise work.
double training_flops_per_token(const AnyModel& model, std::int64_t context);

/// A run: weights, gradients, moments and working memory, all allocated by `create`. Every number that decides the
/// next step is in a checkpoint: n steps, save, load and n steps give the bits of 2n steps.
class Trainer {
 public:
  /// Weights are drawn from settings.seed. Checkpoints go to `folder`, made if need be; empty: none are saved.
  /// `q`, the model's tables and the corpus of `data` must outlive the trainer. With a validation split of fewer than
  /// two tokens there is no validation.
  static Result<Trainer> create(const Cpu& q, const AnyModel& model, const Split& data,
                                const TrainerSettings& settings, const std::string& folder = "");

  /// Continues from the newest checkpoint of the folder that can be read.
  Result<Resumed> resume();
  /// Trains until settings.steps are done or the host stops it, validates at the end, and saves.
  Result<Ended> run(TrainingHost& host);

  /// Mean loss over the whole validation split (or its first settings.validation_tokens), in windows side by side.
  ValidationReport validate();
  /// Seconds that one step takes, measured on the first data; changes nothing. For choosing settings.steps by time.
  double measure_step();
  /// A new length, before or after part of a run; the schedule follows.
  Status set_steps(std::int64_t steps);

  Status save(const std::string& path) const;
  /// On any mismatch nothing is changed.
  Status load(const std::string& path);

  const AnyModel& model() const { return model_; }
  const TrainerSettings& settings() const { return settings_; }
  const Progress& progress() const { return progress_; }
  float* weights() { return weights_.data(); }
  const float* weights() const { return weights_.data(); }
  bool validates() const { return data_.validation.size() >= 2; }

 private:
  Trainer() = default;

  const Cpu* q_ = nullptr;
  AnyModel model_;
  Split data_;
  TrainerSettings settings_;
  std::string folder_;
  Progress progress_;
  Buffer weights_, gradient_, memory_;
  AdamW optimizer_;
  BatchBuffer batch_;
};

}  // namespace chimera::inline CHIMERA_ABI
