// The training loop over any model: batches, gradient accumulation, clipping, AdamW, validation, checkpoints.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/train/checkpoint.hpp>
#include <chimera/train/data.hpp>
#include <chimera/train/settings.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>

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
  Skip skip = Skip::none;    // why the weights were left as they were
  std::int64_t skipped = 0;  // steps skipped since the run began
};

struct ValidationReport {
  std::int64_t step = 0;  // steps done
  double loss = 0;        // nats per target
  std::int64_t targets = 0;
  double seconds = 0;
  bool stopped = false;  // by the host, before the end: the loss means nothing
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
  std::string path;  // of the checkpoint; empty if the folder has none and the run starts at the beginning
  std::int64_t step = 0;
  std::string note;  // for the user: checkpoints that could not be read, settings that changed; may be empty
};

/// Floating-point operations of training on one token: 6 for each weight that multiplies it, and in each attention
/// layer 12 for each channel and each key it sees on average (Kaplan et al. 2020, table 1, with the causal mask).
/// Scans, elementwise work and what checkpointing computes again are not counted.
inline double training_flops_per_token(const AnyModel& model, std::int64_t context) {
  const Config& c = *model.config;
  double weights = static_cast<double>(model.parameters);
  if (!c.tied) weights -= static_cast<double>(c.vocab) * c.width;  // the embedding is looked up, not multiplied
  const double window =
      static_cast<double>(c.attention.window ? std::min<std::int64_t>(c.attention.window, context) : context);
  const double keys = window - window * (window - 1) / (2 * static_cast<double>(context));
  const double channels = static_cast<double>(c.attention.heads * c.head_dim());
  return 6 * weights + 12 * c.layers.count_of(Kind::attention) * channels * keys;
}

/// A run: weights, gradients, moments and working memory, all allocated by `create`. Every number that decides the
/// next step is in a checkpoint: n steps, save, load and n steps give the bits of 2n steps.
class Trainer {
 public:
  /// Weights are drawn from settings.seed. Checkpoints go to `folder`, made if need be; empty: none are saved.
  /// `q`, the model's tables and the corpus of `data` must outlive the trainer. With a validation split of fewer than
  /// two tokens there is no validation.
  static Result<Trainer> create(const Cpu& q, const AnyModel& model, const Split& data, const TrainerSettings& settings,
                                const std::string& folder = "");

  /// Continues from the newest checkpoint of the folder that can be read.
  Result<Resumed> resume();
  /// Trains until settings.steps are done or the host stops it, validates at the end, and saves.
  Result<Ended> run(TrainingHost& host);

  /// Mean loss over the whole validation split (or its first settings.validation_tokens), in windows side by side.
  /// A host may stop it.
  ValidationReport validate(TrainingHost* host = nullptr);
  /// Seconds that one step takes; changes nothing. Before the first step: for choosing settings.steps by time.
  double measure_step();
  /// A new length of the run; the schedule follows. The host may call it from on_step.
  Status set_steps(std::int64_t steps);

  Status save(const std::string& path);
  /// Returns what the file says of itself; the settings stay those of `create`. On any mismatch nothing is changed.
  Result<CheckpointHeader> load(const std::string& path);

  const AnyModel& model() const { return model_; }
  const TrainerSettings& settings() const { return settings_; }
  const Progress& progress() const { return progress_; }
  float* weights() { return weights_.data(); }
  const float* weights() const { return weights_.data(); }
  bool validates() const { return data_.validation.size() >= 2; }

 private:
  Trainer() = default;

  static double now() { return platform::seconds(); }
  Arenas arenas() { return {weights_.data(), optimizer_.first_moment(), optimizer_.second_moment()}; }
  void clear_gradient() { std::memset(gradient_.data(), 0, gradient_.size() * sizeof(float)); }
  bool accumulate(TrainingHost& host, Loss& loss);
  Skip judge(double loss, double norm) const;
  bool step(TrainingHost& host, StepReport& report);
  bool validated(TrainingHost& host);
  Status checkpoint(TrainingHost& host);

  const Cpu* q_ = nullptr;
  AnyModel model_;
  Split data_;
  TrainerSettings settings_;
  std::string folder_;
  bool fresh_ = true;  // neither trained nor loaded
  std::int64_t saved_step_ = 0;
  Progress progress_;
  Buffer weights_, gradient_, memory_;  // the gradient is zero between steps
  AdamW optimizer_;
  BatchBuffer batch_;  // all micro-batches of one step
};

inline Result<Trainer> Trainer::create(const Cpu& q, const AnyModel& model, const Split& data,
                                       const TrainerSettings& settings, const std::string& folder) {
  if (Status s = settings.check(); !s) return s.error();
  if (settings.context > model.config->context)
    return Error{"context must be at most the model's " + std::to_string(model.config->context) + " tokens, found " +
                 std::to_string(settings.context)};
  if (data.train.size() <= settings.context)
    return Error{"a context of " + std::to_string(settings.context) + " tokens needs at least " +
                 std::to_string(settings.context + 1) + " tokens to train on, found " +
                 std::to_string(data.train.size()) + " in " + data.train.corpus->path()};
  for (const TokenRange& range : {data.train, data.validation})
    if (range.corpus && range.corpus->vocab() > model.config->vocab)
      return Error{"the data was read for a vocabulary of " + std::to_string(range.corpus->vocab()) +
                   ", the model has " + std::to_string(model.config->vocab)};
  if (!folder.empty())
    if (Status s = make_folder(folder); !s) return s.error();

  Trainer t;
  t.q_ = &q, t.model_ = model, t.data_ = data, t.settings_ = settings, t.folder_ = folder;
  t.progress_.data_tokens = data.train.size();
  const std::size_t memory = std::max(model.train_floats(settings.batch, settings.context),
                                      model.loss_floats(settings.batch, settings.context));
  for (auto& [buffer, floats] : {std::pair{&t.weights_, model.arena_floats},
                                 std::pair{&t.gradient_, model.arena_floats}, std::pair{&t.memory_, memory}}) {
    auto made = Buffer::create(floats);
    if (!made) return made.error();
    *buffer = std::move(*made);
  }
  auto optimizer = AdamW::create(model.tensors, model.arena_floats,
                                 {settings.beta1, settings.beta2, settings.epsilon, settings.weight_decay});
  if (!optimizer) return optimizer.error();
  t.optimizer_ = std::move(*optimizer);
  auto batch = BatchBuffer::create(settings.batch * settings.accumulation, settings.context);
  if (!batch) return batch.error();
  t.batch_ = std::move(*batch);
  model.initialize(t.weights_.data(), settings.seed);
  return t;
}

/// The micro-batches' losses, and their gradient added up, each scaled by all targets of the step.
inline bool Trainer::accumulate(TrainingHost& host, Loss& loss) {
  const std::int64_t targets = batch_.batch(0, settings_.batch * settings_.accumulation).counted();
  TrainingStep step{.scale = targets > 0 ? 1.f / static_cast<float>(targets) : 0.f, .seed = settings_.seed};
  for (std::int64_t micro = 0; micro < settings_.accumulation; ++micro) {
    if (host.should_stop()) return false;
    step.step = static_cast<std::uint64_t>(progress_.step * settings_.accumulation + micro);
    const TokenBatch batch = batch_.batch(micro * settings_.batch, settings_.batch);
    const Loss part = model_.train(*q_, weights_.data(), batch, step, memory_.data(), gradient_.data());
    loss.sum += part.sum, loss.count += part.count;
  }
  return true;
}

inline Skip Trainer::judge(double loss, double gradient_norm) const {
  // A spike is far above what was usual: by a factor, and by a nat, so that small losses may waver.
  const double usual = progress_.loss_mean;
  if (!std::isfinite(loss)) return Skip::loss_not_finite;
  if (!std::isfinite(gradient_norm)) return Skip::gradient_not_finite;
  const bool known = settings_.spike_factor > 0 && progress_.updates >= settings_.spike_after;
  return known && loss > settings_.spike_factor * usual && loss > usual + 1 ? Skip::spike : Skip::none;
}

/// One step, told in `report`. False if the host stopped it: then nothing has changed.
inline bool Trainer::step(TrainingHost& host, StepReport& report) {
  const double start = now();
  Sampler sampler{data_.train, settings_.context, settings_.sampling, settings_.seed, progress_.data_drawn};
  for (std::int64_t row = 0; row < settings_.batch * settings_.accumulation; ++row)
    batch_.fill(row, data_.train, sampler.next());
  Loss loss;
  if (!accumulate(host, loss)) {
    clear_gradient();
    return false;
  }
  const double norm = optimizer_.norm(*q_, gradient_.data());
  const double rate = settings_.learning_rate * settings_.resolved_schedule().factor(progress_.step + 1);
  const Skip skip = judge(loss.mean(), norm);

  Progress& p = progress_;
  ++p.step;
  p.tokens += settings_.tokens_per_step();
  p.data_drawn = sampler.drawn;
  if (skip == Skip::none) {
    ++p.updates, p.skipped_in_a_row = 0;
    optimizer_.step(*q_, weights_.data(), gradient_.data(), p.updates, rate, AdamW::clip_factor(norm, settings_.clip));
  } else {
    ++p.skipped, ++p.skipped_in_a_row;
    clear_gradient();
  }
  if (std::isfinite(loss.mean())) {
    // A spike counts as the least loss that is one: if the loss stays that high, it is soon what is usual.
    const double heard = skip == Skip::spike ? settings_.spike_factor * p.loss_mean : loss.mean();
    p.loss_mean = p.loss_mean == 0 ? heard : p.loss_mean + 0.05 * (heard - p.loss_mean);
  }
  const double seconds = now() - start;
  p.seconds += seconds;

  report = {
      .step = p.step, .steps = settings_.steps, .loss = loss.mean(), .gradient_norm = norm, .learning_rate = rate};
  report.tokens = p.tokens;
  report.tokens_per_second = static_cast<double>(settings_.tokens_per_step()) / seconds;
  report.flops_per_second = report.tokens_per_second * training_flops_per_token(model_, settings_.context);
  report.seconds = p.seconds;
  report.skip = skip, report.skipped = p.skipped;
  return true;
}

inline Result<Ended> Trainer::run(TrainingHost& host) {
  if (fresh_ && !folder_.empty()) {
    const auto steps = list_checkpoints(folder_);
    if (!steps) return steps.error();
    if (!steps->empty())
      return Error{"the folder " + folder_ + " holds checkpoints of an earlier run: resume it or name another folder"};
  }
  fresh_ = false;
  const auto end = [&](Ended how) -> Result<Ended> {
    if (Status s = checkpoint(host); !s) return s.error();
    return how;
  };
  const auto due = [&](std::int64_t interval) { return interval > 0 && progress_.step % interval == 0; };
  const double start = now();
  const std::int64_t first = progress_.step;
  while (progress_.step < settings_.steps) {
    StepReport report;
    if (!step(host, report)) return end(Ended::stopped);
    const std::int64_t done = progress_.step - first, left = settings_.steps - progress_.step;
    report.seconds_left = (now() - start) / static_cast<double>(done) * static_cast<double>(left);
    host.on_step(report);
    if (progress_.skipped_in_a_row >= settings_.skip_limit)
      return Error{"training ended at step " + std::to_string(progress_.step) + ": " +
                   std::to_string(progress_.skipped_in_a_row) + " steps in a row were skipped, the last because " +
                   std::string(name(report.skip))};
    if (progress_.step >= settings_.steps) break;
    if (due(settings_.validation_interval) && !validated(host)) return end(Ended::stopped);
    if (due(settings_.checkpoint_interval))
      if (Status s = checkpoint(host); !s) return s.error();
  }
  return end(validated(host) ? Ended::finished : Ended::stopped);
}

/// Validates, unless that was done at this step. False if the host stopped it.
inline bool Trainer::validated(TrainingHost& host) {
  if (!validates() || progress_.validation_step == progress_.step) return true;
  const ValidationReport report = validate(&host);
  if (report.stopped) return false;
  progress_.validation_loss = report.loss, progress_.validation_step = report.step;
  host.on_validation(report);
  return true;
}

inline ValidationReport Trainer::validate(TrainingHost* host) {
  const double start = now();
  TokenRange range = data_.validation;
  if (settings_.validation_tokens > 0) range.end = std::min(range.end, range.begin + settings_.validation_tokens + 1);
  Loss loss;
  for (std::int64_t at = range.begin; at < range.end - 1;) {
    if (host && host->should_stop()) return {.step = progress_.step, .stopped = true};
    for (std::int64_t row = 0; row < settings_.batch; ++row, at += settings_.context) batch_.fill(row, range, at);
    const Loss part = model_.loss(*q_, weights_.data(), batch_.batch(0, settings_.batch), memory_.data());
    loss.sum += part.sum, loss.count += part.count;
  }
  return {.step = progress_.step, .loss = loss.mean(), .targets = loss.count, .seconds = now() - start};
}

inline double Trainer::measure_step() {
  TrainingHost host;
  double seconds = 0;
  for (int repeat = 0; repeat < 2; ++repeat) {  // the first touches all memory
    const double start = now();
    for (std::int64_t row = 0; row < settings_.batch * settings_.accumulation; ++row)
      batch_.fill(row, data_.train, data_.train.begin);
    Loss loss;
    (void)accumulate(host, loss);
    (void)optimizer_.norm(*q_, gradient_.data());
    clear_gradient();
    if (progress_.updates == 0)  // all moments are zero, and with a rate of zero all stays as it is
      optimizer_.step(*q_, weights_.data(), gradient_.data(), 1, 0, 1);
    seconds = now() - start;
  }
  return seconds;
}

inline Status Trainer::set_steps(std::int64_t steps) {
  TrainerSettings changed = settings_;
  changed.steps = steps;
  if (Status s = changed.check(); !s) return s;
  settings_ = changed;
  return {};
}

inline Status Trainer::save(const std::string& path) {
  return save_checkpoint(path, model_, progress_, settings_, arenas());
}

inline Result<CheckpointHeader> Trainer::load(const std::string& path) {
  auto header = load_checkpoint(path, model_, arenas());
  if (!header) return header;
  const std::int64_t data_tokens = progress_.data_tokens;
  progress_ = header->progress;
  progress_.data_tokens = data_tokens;
  saved_step_ = progress_.step;
  fresh_ = false;
  return header;
}

/// Saves to the folder, unless that was done at this step.
inline Status Trainer::checkpoint(TrainingHost& host) {
  if (folder_.empty() || progress_.step == saved_step_) return {};
  const std::string path = checkpoint_path(folder_, progress_.step);
  if (Status s = save(path); !s) return s;
  saved_step_ = progress_.step;
  host.on_checkpoint(path);
  return remove_old_checkpoints(folder_, progress_.step, settings_.keep);
}

inline Result<Resumed> Trainer::resume() {
  const auto steps = list_checkpoints(folder_);
  if (!steps) return steps.error();
  Resumed resumed;
  const auto tell = [&](const std::string& text) { resumed.note += (resumed.note.empty() ? "" : "; ") + text; };
  for (std::int64_t step : *steps) {
    const std::string path = checkpoint_path(folder_, step);
    const auto header = load(path);
    if (!header) {
      tell(header.error().message);
      continue;
    }
    if (const std::string changed = differences(header->settings, settings_); !changed.empty()) tell(changed);
    if (header->progress.data_tokens != progress_.data_tokens)
      tell("the training data had " + std::to_string(header->progress.data_tokens) + " tokens and now has " +
           std::to_string(progress_.data_tokens));
    resumed.path = path, resumed.step = progress_.step;
    return resumed;
  }
  if (!steps->empty()) return Error{resumed.note};
  return resumed;
}

}  // namespace chimera::inline CHIMERA_ABI
