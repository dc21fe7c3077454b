// The training loop over any model and any way to learn: schedule, judging of steps, validation, checkpoints.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/float_bits.hpp>
#include <chimera/core/host_view.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/platform/platform.hpp>
#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/train/batch_source.hpp>
#include <chimera/train/checkpoint.hpp>
#include <chimera/train/learner.hpp>
#include <chimera/train/settings.hpp>
#include <chimera/train/training_host.hpp>
#include <chimera/train/windows.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

enum class Ended : std::uint8_t { finished, stopped };

struct Resumed {
  std::string path;  // of the checkpoint; empty if the folder has none and the run starts at the beginning
  std::int64_t step = 0;
  std::string note;  // for the user: checkpoints that could not be read, settings that changed; may be empty
};

/// What a run is put together from. What its objective's `self` points to must outlive the trainer.
template <Device D>
struct TrainingPartsOn {
  std::unique_ptr<BatchSource> train;
  std::unique_ptr<BatchSource> validation;  // null, or without rows: there is no validation
  std::unique_ptr<LearnerOn<D>> learner;
  Objective objective = {};
};
using TrainingParts = TrainingPartsOn<Cpu>;

/// A run: weights, what learns, and working memory, all allocated by `create`. Every number that decides the next step
/// is in a checkpoint: n steps, save, load and n steps give the bits of 2n steps.
template <Device D>
class TrainerOn {
 public:
  /// Weights are drawn from settings.seed. Checkpoints go to `folder`, made if need be; empty: none are saved.
  /// `q`, the model's tables and the corpus of `data` must outlive the trainer. With a validation split of fewer than
  /// two tokens there is no validation. AdamW learns to predict the next token of windows of the data.
  static Result<TrainerOn> create(const D& q, const ModelTable<D>& model, const Split& data,
                                  const TrainerSettings& settings, const std::string& folder = "");
  /// A run of other parts: its settings of window order, AdamW, clipping and validation_tokens are then not read.
  static Result<TrainerOn> create(const D& q, const ModelTable<D>& model, TrainingPartsOn<D> parts,
                                  const TrainerSettings& settings, const std::string& folder = "");

  /// Continues from the newest checkpoint of the folder that can be read.
  Result<Resumed> resume();
  /// Trains until settings.steps are done or the host stops it, validates at the end, and saves.
  Result<Ended> run(TrainingHost& host);

  /// Mean loss over the whole validation split (or its first settings.validation_tokens), in windows side by side.
  /// A host may stop it.
  Result<ValidationReport> validate(TrainingHost* host = nullptr);
  /// Seconds that one step takes; changes nothing. Before the first step: for choosing settings.steps by time.
  Result<double> measure_step();
  /// A new length of the run; the schedule follows. The host may call it from on_step.
  Result<void> set_steps(std::int64_t steps);

  Result<void> save(const std::string& path);
  /// Returns what the file says of itself; the settings stay those of `create`. On any mismatch nothing is changed.
  Result<CheckpointHeader> load(const std::string& path);

  const ModelTable<D>& model() const { return model_; }
  const TrainerSettings& settings() const { return settings_; }
  const Progress& progress() const { return progress_; }
  /// In the device's memory; a host sees them by HostView.
  float* weights() { return weights_.data(); }
  const float* weights() const { return weights_.data(); }
  bool validates() const { return parts_.validation && parts_.validation->rows(settings_.context) > 0; }

 private:
  /// The weights, and what the learner remembers, where the host sees it.
  struct HostState {
    std::vector<HostView<D>> views;
    std::vector<Section> sections;  // of the views, in their order
  };

  TrainerOn() = default;

  static constexpr std::size_t validation_sum = alignment;  // bytes, of the sum of losses

  static double now() { return platform::seconds(); }
  Result<HostState> state();
  Result<Lesson> draw(BatchSource& source, std::uint64_t first);
  Skip judge(double loss, double norm) const;
  Result<bool> step(TrainingHost& host, StepReport& report);
  Result<bool> validated(TrainingHost& host);
  Result<void> checkpoint(TrainingHost& host);

  std::optional<D> q_;  // the host's, with the precision of the settings
  ModelTable<D> model_;
  TrainingPartsOn<D> parts_;
  TrainerSettings settings_;
  std::string folder_;
  bool fresh_ = true;                                   // neither trained nor loaded
  std::int64_t saved_step_ = 0, saved_validation_ = 0;  // of the newest checkpoint, and of the validation in it
  Progress progress_;
  typename D::Memory weights_, memory_;
  Buffer room_;                      // of an objective
  BatchBuffer rows_;                 // of one step
  std::vector<TokenBatch> batches_;  // its micro-batches
};
using Trainer = TrainerOn<Cpu>;

template <Device D>
Result<TrainerOn<D>> TrainerOn<D>::create(const D& q, const ModelTable<D>& model, const Split& data,
                                          const TrainerSettings& settings, const std::string& folder) {
  if (Result<void> s = settings.validate(); !s) return s.error();
  TokenRange validation = data.validation;
  if (settings.validation_tokens > 0)
    validation.end = std::min(validation.end, validation.begin + settings.validation_tokens + 1);
  auto optimizer = AdamWOn<D>::create(q, model.tensors, model.arena_floats, settings.adamw);
  if (!optimizer) return optimizer.error();
  auto learner = GradientOn<D>::create(q, model, std::make_unique<AdamWOn<D>>(std::move(*optimizer)), settings.clip);
  if (!learner) return learner.error();
  return create(q, model,
                {.train = std::make_unique<Windows>(data.train, settings.order, settings.seed),
                 .validation = std::make_unique<Windows>(validation, WindowOrder::in_order),
                 .learner = std::make_unique<GradientOn<D>>(std::move(*learner))},
                settings, folder);
}

template <Device D>
Result<TrainerOn<D>> TrainerOn<D>::create(const D& q, const ModelTable<D>& model, TrainingPartsOn<D> parts,
                                          const TrainerSettings& settings, const std::string& folder) {
  if (Result<void> s = settings.validate(); !s) return s.error();
  if (settings.context > model.config->context)
    return Error{"context must be at most the model's " + std::to_string(model.config->context) + " tokens, found " +
                 std::to_string(settings.context)};
  if (parts.objective.weigh && (settings.label_smoothing > 0 || settings.z_loss > 0))
    return Error{"label_smoothing and z_loss are of cross-entropy, and this run has an objective of its own"};
  if (!parts.objective.weigh)
    parts.objective.label_smoothing = static_cast<float>(settings.label_smoothing),
    parts.objective.z_loss = static_cast<float>(settings.z_loss);

  TrainerOn t;
  t.q_ = q.with(settings.precision), t.model_ = model, t.parts_ = std::move(parts), t.settings_ = settings,
  t.folder_ = folder;
  for (const BatchSource* source : {t.parts_.train.get(), t.validates() ? t.parts_.validation.get() : nullptr})
    if (source)
      if (Result<void> s = source->validate(settings.context, model.config->vocab); !s) return s.error();
  if (!folder.empty())
    if (Result<void> s = make_folder(folder); !s) return s.error();
  t.progress_.data_tokens = t.parts_.train->tokens(), t.progress_.data_checksum = t.parts_.train->checksum();
  const std::size_t memory = std::max(t.parts_.learner->bytes(settings.batch, settings.context),
                                      validation_sum + model.loss_bytes(settings.batch, settings.context));
  const std::size_t weights = sizeof(float) * model.arena_floats;
  for (auto& [place, bytes] : {std::pair{&t.weights_, weights}, std::pair{&t.memory_, memory}}) {
    auto made = q.allocate(bytes);
    if (!made) return made.error();
    *place = std::move(*made);
  }
  if (!D::shares_memory && t.parts_.objective.weigh) {
    auto room = Buffer::create(static_cast<std::size_t>(2 * settings.batch * settings.context));
    if (!room) return room.error();
    t.room_ = std::move(*room);
    t.parts_.objective.room = t.room_.data();
  }
  auto rows = BatchBuffer::create(settings.batch * settings.accumulation, settings.context);
  if (!rows) return rows.error();
  t.rows_ = std::move(*rows);
  t.batches_.resize(static_cast<std::size_t>(settings.accumulation));
  auto drawn = HostView<D>::create(t.weights_.data(), weights);
  if (!drawn) return drawn.error();
  model.initialize(drawn->floats(), settings.seed);
  drawn->send(q);
  if (Result<void> s = q.finish(); !s) return s.error();
  return t;
}

template <Device D>
Result<typename TrainerOn<D>::HostState> TrainerOn<D>::state() {
  HostState all;
  std::vector<Section> there{Section::of("weights", weights_.data(), model_.arena_floats)};
  const auto learner = parts_.learner->state();
  there.insert(there.end(), learner.begin(), learner.end());
  for (const Section& s : there) {
    auto view = HostView<D>::create(s.bytes.data(), s.bytes.size());
    if (!view) return view.error();
    all.views.push_back(std::move(*view));
    all.sections.push_back({s.name, all.views.back().bytes()});
  }
  return all;
}

/// The rows of a step, from number `first` on.
template <Device D>
Result<Lesson> TrainerOn<D>::draw(BatchSource& source, std::uint64_t first) {
  if (Result<void> s = source.fill(first, rows_); !s) return s.error();
  for (std::size_t i = 0; i < batches_.size(); ++i)
    batches_[i] = rows_.batch(static_cast<std::int64_t>(i) * settings_.batch, settings_.batch);
  return Lesson{.batches = batches_,
                .objective = parts_.objective,
                .seed = settings_.seed,
                .first = static_cast<std::uint64_t>(progress_.step * settings_.accumulation)};
}

template <Device D>
Skip TrainerOn<D>::judge(double loss, double gradient_norm) const {
  // A spike is far above what was usual: by a factor, and by a nat, so that small losses may waver.
  const double usual = progress_.loss_mean;
  if (!is_finite(loss)) return Skip::loss_not_finite;
  if (!is_finite(gradient_norm)) return Skip::gradient_not_finite;
  const bool known = settings_.spike_factor > 0 && progress_.updates >= settings_.spike_after;
  return known && loss > settings_.spike_factor * usual && loss > usual + 1 ? Skip::spike : Skip::none;
}

/// One step, told in `report`. False if the host stopped it: then nothing has changed.
template <Device D>
Result<bool> TrainerOn<D>::step(TrainingHost& host, StepReport& report) {
  const double start = now();
  const auto lesson = draw(*parts_.train, progress_.data_drawn);
  if (!lesson) return lesson.error();
  const auto learned = parts_.learner->measure(*q_, weights_.data(), *lesson, memory_.bytes(), host);
  if (Result<void> s = q_->finish(); !s) return s.error();
  if (!learned) return false;
  const bool counts = learned->loss.count > 0;
  const double loss = counts ? learned->loss.mean() : std::numeric_limits<double>::quiet_NaN();
  const double rate = settings_.learning_rate * settings_.resolved_schedule().factor(progress_.step + 1);
  const Skip skip = counts ? judge(loss, learned->norm) : Skip::no_targets;

  Progress& p = progress_;
  ++p.step;
  p.tokens += settings_.tokens_per_step();
  p.data_drawn += static_cast<std::uint64_t>(rows_.rows());
  if (skip == Skip::none) {
    ++p.updates, p.skipped_in_a_row = 0;
    parts_.learner->update(*q_, weights_.data(), {.number = p.updates, .rate = rate});
  } else {
    ++p.skipped, ++p.skipped_in_a_row;
    parts_.learner->drop(*q_);
  }
  if (is_finite(loss)) {
    // A spike counts as the least loss that is one: if the loss stays that high, it is soon what is usual.
    const double heard = skip == Skip::spike ? settings_.spike_factor * p.loss_mean : loss;
    p.loss_mean = p.loss_mean == 0 ? heard : p.loss_mean + 0.05 * (heard - p.loss_mean);
  }
  const double seconds = now() - start;
  p.seconds += seconds;

  report = {
      .step = p.step, .steps = settings_.steps, .loss = loss, .gradient_norm = learned->norm, .learning_rate = rate};
  report.tokens = p.tokens;
  report.tokens_per_second = static_cast<double>(settings_.tokens_per_step()) / seconds;
  report.flops_per_second = report.tokens_per_second * 3 * model_.flops(settings_.context);
  report.seconds = p.seconds;
  report.skip = skip, report.skipped = p.skipped;
  return true;
}

template <Device D>
Result<Ended> TrainerOn<D>::run(TrainingHost& host) {
  if (fresh_ && !folder_.empty()) {
    const auto steps = list_checkpoints(folder_);
    if (!steps) return steps.error();
    if (!steps->empty())
      return Error{"the folder " + folder_ + " holds checkpoints of an earlier run: resume it or name another folder"};
  }
  fresh_ = false;
  const auto end = [&](Ended how) -> Result<Ended> {
    if (Result<void> s = checkpoint(host); !s) return s.error();
    return how;
  };
  const auto due = [&](std::int64_t interval) { return interval > 0 && progress_.step % interval == 0; };
  // What is due after a step. What was learned is saved before a validation that may take long: a run which is killed
  // in its midst goes on from here.
  const auto pause = [&]() -> Result<bool> {
    if (due(settings_.checkpoint_interval))
      if (Result<void> s = checkpoint(host); !s) return s.error();
    return due(settings_.validation_interval) ? validated(host) : true;
  };
  const double start = now();
  const std::int64_t first = progress_.step;
  if (first > 0 && first < settings_.steps) {
    const auto whole = pause();
    if (!whole) return whole.error();
    if (!*whole) return end(Ended::stopped);
  }
  while (progress_.step < settings_.steps) {
    StepReport report;
    const auto stepped = step(host, report);
    if (!stepped) return stepped.error();
    if (!*stepped) return end(Ended::stopped);
    const std::int64_t done = progress_.step - first, left = settings_.steps - progress_.step;
    report.seconds_left = (now() - start) / static_cast<double>(done) * static_cast<double>(left);
    host.on_step(report);
    if (progress_.skipped_in_a_row >= settings_.skip_limit)
      return Error{"training ended at step " + std::to_string(progress_.step) + ": " +
                   std::to_string(progress_.skipped_in_a_row) + " steps in a row were skipped, the last because " +
                   std::string(name(report.skip))};
    if (progress_.step >= settings_.steps) break;
    const auto whole = pause();
    if (!whole) return whole.error();
    if (!*whole) return end(Ended::stopped);
  }
  if (Result<void> s = checkpoint(host); !s) return s.error();
  const auto whole = validated(host);
  if (!whole) return whole.error();
  return end(*whole ? Ended::finished : Ended::stopped);
}

/// Validates, unless that was done at this step. False if the host stopped it.
template <Device D>
Result<bool> TrainerOn<D>::validated(TrainingHost& host) {
  if (!validates() || progress_.validation_step == progress_.step) return true;
  const auto report = validate(&host);
  if (!report) return report.error();
  if (report->stopped) return false;
  if (report->targets > 0) progress_.validation_loss = report->loss, progress_.validation_step = report->step;
  host.on_validation(*report);
  return true;
}

template <Device D>
Result<ValidationReport> TrainerOn<D>::validate(TrainingHost* host) {
  const double start = now();
  const std::uint64_t rows = validates() ? parts_.validation->rows(settings_.context) : 0;
  Loss loss;
  Bump rest{memory_.bytes()};
  auto* const sum = rest.take<double>(1);
  std::byte* const working = rest.take<std::byte>(0);
  q_->upload(sum, &loss.sum, sizeof loss.sum);
  for (std::uint64_t row = 0; row < rows;) {
    auto lesson = draw(*parts_.validation, row);
    if (!lesson) return lesson.error();
    lesson->objective.label_smoothing = lesson->objective.z_loss = 0;
    for (TokenBatch batch : lesson->batches) {
      if (row >= rows) break;
      batch.sequences = std::min(batch.sequences, static_cast<std::int64_t>(rows - row));
      if (host && host->should_stop()) return ValidationReport{.step = progress_.step, .stopped = true};
      model_.loss(*q_, weights_.data(), batch, lesson->objective, working, sum);
      loss.count += lesson->objective.counted(batch);
      row += static_cast<std::uint64_t>(settings_.batch);
    }
  }
  q_->download(&loss.sum, sum, sizeof loss.sum);
  if (Result<void> s = q_->finish(); !s) return s.error();
  return ValidationReport{.step = progress_.step, .loss = loss.mean(), .targets = loss.count, .seconds = now() - start};
}

template <Device D>
Result<double> TrainerOn<D>::measure_step() {
  TrainingHost host;
  double seconds = 0;
  for (int repeat = 0; repeat < 2; ++repeat) {  // the first touches all memory
    const double start = now();
    const auto lesson = draw(*parts_.train, progress_.data_drawn);
    if (!lesson) return lesson.error();
    (void)parts_.learner->measure(*q_, weights_.data(), *lesson, memory_.bytes(), host);
    parts_.learner->drop(*q_);
    if (progress_.updates == 0) parts_.learner->update(*q_, weights_.data(), {});  // of nothing, with a rate of zero
    if (Result<void> s = q_->finish(); !s) return s.error();
    seconds = now() - start;
  }
  return seconds;
}

template <Device D>
Result<void> TrainerOn<D>::set_steps(std::int64_t steps) {
  TrainerSettings changed = settings_;
  changed.steps = steps;
  if (Result<void> s = changed.validate(); !s) return s;
  settings_ = changed;
  return {};
}

template <Device D>
Result<void> TrainerOn<D>::save(const std::string& path) {
  auto now = state();
  if (!now) return now.error();
  for (HostView<D>& view : now->views)
    if (Result<void> s = view.fetch(*q_); !s) return s;
  return save_checkpoint(path, model_, progress_, settings_, now->sections);
}

template <Device D>
Result<CheckpointHeader> TrainerOn<D>::load(const std::string& path) {
  auto saved = state();
  if (!saved) return saved.error();
  auto header = load_checkpoint(path, model_, saved->sections);
  if (!header) return header;
  for (HostView<D>& view : saved->views) view.send(*q_);
  if (Result<void> s = q_->finish(); !s) return s.error();
  const Progress now = progress_;
  progress_ = header->progress;
  progress_.data_tokens = now.data_tokens, progress_.data_checksum = now.data_checksum;
  saved_step_ = progress_.step, saved_validation_ = progress_.validation_step;
  fresh_ = false;
  return header;
}

/// Saves to the folder, unless that was done at this step; once more if it was validated since.
template <Device D>
Result<void> TrainerOn<D>::checkpoint(TrainingHost& host) {
  const bool again = progress_.step == saved_step_;
  if (folder_.empty() || (again && progress_.validation_step == saved_validation_)) return {};
  const std::string path = checkpoint_path(folder_, progress_.step);
  if (Result<void> s = save(path); !s) return s;
  saved_step_ = progress_.step, saved_validation_ = progress_.validation_step;
  if (again) return {};
  host.on_checkpoint(path);
  return remove_old_checkpoints(folder_, progress_.step, settings_.keep);
}

template <Device D>
Result<Resumed> TrainerOn<D>::resume() {
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
    else if (header->progress.data_checksum != 0 && header->progress.data_checksum != progress_.data_checksum)
      tell("the training data is not the same: as many tokens, and others");
    resumed.path = path, resumed.step = progress_.step;
    return resumed;
  }
  if (!steps->empty()) return Error{resumed.note};
  return resumed;
}

CHIMERA_CPU_FORM(class TrainerOn<Cpu>)

}  // namespace chimera::inline CHIMERA_ABI
