// What a program hears of a training run, and how it stops one.
#pragma once

#include <chimera/core/namespace.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

enum class Skip : std::uint8_t { none, loss_not_finite, gradient_not_finite, spike, no_targets };

constexpr std::string_view name(Skip skip) {
  switch (skip) {
    case Skip::none: return "none";
    case Skip::loss_not_finite: return "the loss is not finite";
    case Skip::gradient_not_finite: return "the gradient is not finite";
    case Skip::spike: return "the loss is a spike";
    case Skip::no_targets: return "no target counts";
  }
  return "";
}

/// One step, told after it.
struct StepReport {
  std::int64_t step = 0, steps = 0;  // this one, counted from 1, of how many
  double loss = 0;                   // nats per target, before the step; or what the objective says; NaN without any
  double gradient_norm = 0;          // before clipping
  double learning_rate = 0;
  std::int64_t tokens = 0;  // read since the run began
  double tokens_per_second = 0;
  double flops_per_second = 0;  // floating-point operations: three times AnyModel::flops
  double seconds = 0;           // of training since the run began, resumed parts included
  double seconds_left = 0;
  Skip skip = Skip::none;    // why the weights were left as they were
  std::int64_t skipped = 0;  // steps skipped since the run began
};

struct ValidationReport {
  std::int64_t step = 0;     // steps done
  double loss = 0;           // nats per target; or what the objective says
  std::int64_t targets = 0;  // that count; 0: the loss means nothing
  double seconds = 0;
  bool stopped = false;  // by the host, before the end: the loss means nothing
};

/// Calls come from the thread that called `run`.
struct TrainingHost {
  virtual ~TrainingHost() = default;
  virtual void on_step(const StepReport&) {}
  virtual void on_validation(const ValidationReport&) {}
  virtual void on_checkpoint(const std::string& /*path*/) {}
  /// Asked before each micro-batch. On true the unfinished step is dropped, a checkpoint is saved, and `run` returns.
  virtual bool should_stop() { return false; }
};

}  // namespace chimera::inline CHIMERA_ABI
