// A training run as a program does it: its flags, what it says, its folder of settings (run.txt), checkpoints,
// metrics.jsonl, TensorBoard event files and the curve loss.svg; and how it is stopped.
#pragma once

#include "curve.hpp"
#include "memory.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "run_options.hpp"
#include "shell_word.hpp"

#include <chimera/core/device.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/tensorboard.hpp>
#include <chimera/kernels/roofline.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/train/metrics.hpp>
#include <chimera/train/trainer.hpp>

#include <unistd.h>
#include <algorithm>
#include <csignal>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

inline volatile std::sig_atomic_t stop_asked = 0;

/// SIGINT and SIGTERM ask the run to stop; a second one ends the program at once.
inline void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// What every program that trains is told.
struct TrainingOptions {
  RunOptions run;
  std::string out;
  bool resume = false;
  double sample_every = 0;  // seconds; 0: never
  std::string sample_prompt;
};

/// The flags of those; --steps, which ends a run by updates where it is given.
inline const CLI::Option* add_training_flags(CLI::App& app, TrainingOptions& options) {
  RunOptions& run = options.run;
  chimera::TrainerSettings& s = run.settings;
  CLI::Option* steps = app.add_option("--steps", s.steps, "length of the run, in updates");
  app.add_option("--minutes", run.minutes, "length of the run, by the clock; validation not counted")
      ->check(non_negative())
      ->excludes(steps);
  app.add_option("-b,--batch", s.batch, "sequences computed at once");
  app.add_option("-c,--ctx-size,--context", s.context, "tokens of a sequence");
  app.add_option("--accumulation", s.accumulation, "batches of one update");
  app.add_option("-s,--seed", s.seed, "of the first weights, the order of the data, and dropout");

  app.add_option("--lr", s.learning_rate, "learning rate at its peak");
  add_choice(app, "--schedule", s.schedule,
             {{"cosine", chimera::ScheduleShape::cosine},
              {"wsd", chimera::ScheduleShape::wsd_linear},
              {"wsd-sqrt", chimera::ScheduleShape::wsd_sqrt}},
             "of the learning rate");
  app.add_option("--warmup", s.warmup, "updates in which the rate grows; -1: a hundredth of the run");
  app.add_option("--decay", s.decay, "last updates, in which it falls (wsd); -1: a fifth of the run");
  app.add_option("--floor", s.floor, "the last learning rate, as a part of the peak");
  app.add_option("--beta1", s.adamw.beta1, "of AdamW: decay of the mean gradient");
  app.add_option("--beta2", s.adamw.beta2, "of AdamW: decay of the mean square");
  app.add_option("--weight-decay", s.adamw.weight_decay, "of AdamW");
  app.add_option("--clip", s.clip, "largest norm of the gradient; 0: no limit");
  app.add_option("--label-smoothing", s.label_smoothing, "share of each target that all tokens get, in training");
  app.add_option("--z-loss", s.z_loss, "weight of log(sum of exp(logits))^2 in the training loss");
  add_choice(app, "--precision", s.precision, {{"f32", chimera::Precision::f32}, {"bf16", chimera::Precision::bf16}},
             "what large products round their inputs to; bf16 is faster on processors with AVX-512 BF16, and slow on\n"
             "all others");
  app.add_flag_callback(
      "--bf16", [&s] { s.precision = chimera::Precision::bf16; }, "the same as --precision bf16");

  app.add_option("--validation-fraction", run.validation_fraction, "of the data, at its end")->check(between(0, 1));
  app.add_option("--validation-interval", s.validation_interval, "updates between validations; 0: only at the end");
  app.add_option("--validation-tokens", s.validation_tokens, "tokens of each validation; 0: all");
  app.add_option("--checkpoint-interval", s.checkpoint_interval, "updates between checkpoints; 0: only at the end");
  app.add_option("--keep", s.keep, "newest checkpoints to keep");
  app.add_option("--sample-every", options.sample_every, "seconds between samples of what the model writes; 0: none")
      ->check(non_negative());
  app.add_option("-p,--sample-prompt", options.sample_prompt, "the text that the samples continue")->default_str("");
  return steps;
}

/// The last part of a path.
inline std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

/// Linux promises more memory than it has and kills who believes it: better to say so before. `work`: bytes besides
/// weights, gradients and moments.
inline chimera::Status check_memory(const std::string& name, std::int64_t floats, double work) {
  const double state = 16. * static_cast<double>(floats);
  const double available = available_memory();
  if (available == 0 || state + work <= available) return {};
  return chimera::Error{
      "training " + name + " needs " + size_text(state) + " for weights, gradients and moments" +
      (work > 0 ? " and " + size_text(work) + " for activations" : "") + ", and " + size_text(available) +
      " are free: " + (state < 0.9 * available ? "use a smaller --batch or --context" : "use a smaller --config")};
}

/// What the model writes now: some words after the prompt, up to the end of a text.
inline chimera::Result<std::string> sample_text(const chimera::Cpu& cpu, const chimera::Trainer& trainer,
                                                const chimera::Tokenizer& tokenizer, const std::string& prompt) {
  const auto packed = chimera::PackedModel::create(cpu, trainer.model(), trainer.weights());
  if (!packed) return packed.error();
  auto session = chimera::Session::create(cpu, *packed);
  if (!session) return session.error();
  auto sampler = chimera::TokenSampler::create(trainer.model().config->vocab, {.seed = 1});
  if (!sampler) return sampler.error();
  std::vector<std::int32_t> tokens = tokenizer.encode(prompt.empty() ? "\n" : prompt);
  if (const chimera::Vocabulary& v = tokenizer.vocabulary(); v.add_bos && v.bos >= 0)
    tokens.insert(tokens.begin(), v.bos);
  auto logits = session->prefill(tokens);
  sampler->accept(tokens);
  chimera::TokenDecoder decoder(tokenizer);
  std::string text = prompt;
  while (logits && text.size() < 300 && session->position() < session->context()) {
    const auto token = sampler->draw(*logits);
    if (!token) return token.error();
    if (tokenizer.ends_text(*token)) break;
    text += decoder.push(*token);
    logits = session->step(*token);
  }
  if (!logits) return logits.error();
  return text + decoder.flush();
}

/// Prints a run's progress, writes its metrics and curve, and lets a signal or the clock end it.
class RunHost : public chimera::TrainingHost {
 public:
  RunHost(const chimera::Cpu& cpu, chimera::Trainer& trainer, const TrainingOptions& options,
          chimera::MetricsLog metrics, chimera::EventFile events, Curve curve, double peak)
      : cpu_(cpu),
        trainer_(trainer),
        options_(options),
        metrics_(std::move(metrics)),
        events_(std::move(events)),
        curve_(std::move(curve)),
        peak_(peak),
        first_step_(trainer.progress().step) {}

  /// Sets the number of steps from the time that is left and the seconds that one takes.
  chimera::Status fit_to_clock(double seconds_per_step) {
    const double left = std::max(0., 60 * options_.run.minutes - trainer_.progress().seconds) / seconds_per_step;
    return trainer_.set_steps(std::max<std::int64_t>(1, trainer_.progress().step + static_cast<std::int64_t>(left)));
  }

  void on_step(const chimera::StepReport& r) override {
    const double share = r.flops_per_second / peak_;
    curve_.train.push_back({r.step, shown(r)});
    record(metrics_.write(r.step, {{"loss", r.loss},
                                   {"gradient_norm", r.gradient_norm},
                                   {"learning_rate", r.learning_rate},
                                   {"tokens", static_cast<double>(r.tokens)},
                                   {"tokens_per_second", r.tokens_per_second},
                                   {"share_of_peak", share},
                                   {"seconds", r.seconds},
                                   {"skipped", static_cast<double>(r.skipped)}}));
    record(events_.write(r.step, {{"loss/train", r.loss},
                                  {"optimizer/gradient_norm", r.gradient_norm},
                                  {"optimizer/learning_rate", r.learning_rate},
                                  {"speed/tokens_per_second", r.tokens_per_second},
                                  {"speed/share_of_peak", share}}));
    if (r.skip != chimera::Skip::none)
      say(formatted("step %lld: %s (loss %.4g, gradient norm %.4g); update skipped, %lld so far",
                    static_cast<long long>(r.step), std::string(chimera::name(r.skip)).c_str(), r.loss, r.gradient_norm,
                    static_cast<long long>(r.skipped)));
    seconds_per_token_ += (1 / r.tokens_per_second - seconds_per_token_) * (r.step == first_step_ + 1 ? 1 : 0.1);
    const bool last = r.step == r.steps;
    if (last || r.step == first_step_ + 1 || line_.due()) line_.show(line(r));
    if (options_.run.minutes > 0)
      record(fit_to_clock(seconds_per_token_ * static_cast<double>(trainer_.settings().tokens_per_step())));
    if (!last && options_.sample_every > 0 && seconds_since(sampled_) >= options_.sample_every) sample(r.step);
  }

  void on_validation(const chimera::ValidationReport& r) override {
    if (r.targets == 0)
      return say(formatted("step %lld: nothing in the validation data counts, so there is no validation loss",
                           static_cast<long long>(r.step)));
    curve_.validation.push_back({r.step, r.loss});
    record(
        metrics_.write(r.step, {{"validation_loss", r.loss}, {"validation_targets", static_cast<double>(r.targets)}}));
    record(events_.write(r.step, {{"loss/validation", r.loss}}));
    say(formatted("step %lld: validation loss %.4f", static_cast<long long>(r.step), r.loss));
    draw();
  }

  void on_checkpoint(const std::string& path) override {
    say("saved " + path);
    draw();
    RunOptions run = options_.run;
    run.settings = trainer_.settings();
    record(run.save(options_.out));
  }

  bool should_stop() override { return stop_asked != 0; }

  /// Before the first step of this part of the run, of which so many are done.
  virtual void on_begin(std::int64_t /*step*/) {}

  /// What the run's curve is of.
  static Curve new_curve() { return {}; }

  /// Ends the progress line, so that what follows starts on its own.
  void finish_line() { line_.end(); }

  const Curve& curve() const { return curve_; }

 protected:
  void say(const std::string& line) {
    line_.clear();
    std::fprintf(stderr, "%s\n", line.c_str());
  }

  /// One more line of metrics, in both files. They must not end a run: the first failure is told.
  void write(std::int64_t step, std::initializer_list<chimera::Metric> metrics) {
    record(metrics_.write(step, metrics)), record(events_.write(step, metrics));
  }

  /// What the curve has of a step, and what the progress line says of it.
  virtual double shown(const chimera::StepReport& r) const { return r.loss; }
  virtual std::string line(const chimera::StepReport& r) const {
    const double usual_share = r.flops_per_second / r.tokens_per_second / seconds_per_token_ / peak_;
    return formatted("step %lld/%lld  loss %.4f  norm %.2f  %s tok/s  %.0f %% of peak  %s left",
                     static_cast<long long>(r.step), static_cast<long long>(r.steps), r.loss, r.gradient_norm,
                     grouped(static_cast<std::int64_t>(1 / seconds_per_token_)).c_str(), 100 * usual_share,
                     duration(r.seconds_left).c_str());
  }

  double step_seconds(const chimera::StepReport& r) const {
    return static_cast<double>(trainer_.settings().tokens_per_step()) / r.tokens_per_second;
  }
  std::int64_t validation_interval() const { return trainer_.settings().validation_interval; }

  /// A point of the curve of what is held out.
  void point_held_out(std::int64_t step, double value) {
    curve_.validation.push_back({step, value});
    draw();
  }

  /// Metrics and curves must not end a run: the first failure is told.
  void record(const chimera::Status& status) {
    if (status || told_) return;
    told_ = true;
    say("warning: " + status.error().message + "; training goes on");
  }

 private:
  void sample(std::int64_t step) {
    const auto tokenizer = chimera::tokenizer_of(options_.out, trainer_.model().config->vocab);
    const auto text = tokenizer ? sample_text(cpu_, trainer_, *tokenizer, options_.sample_prompt) : tokenizer.error();
    if (!text) return record(text.error());
    say(formatted("after %lld steps it writes:", static_cast<long long>(step)));
    std::fprintf(stderr, "\n%s\n\n", text->c_str());
    sampled_ = Clock::now();
  }

  void draw() {
    const chimera::Progress& p = trainer_.progress();
    std::string subtitle = rounded(static_cast<double>(trainer_.model().parameters)) + " weights, " +
                           rounded(static_cast<double>(p.tokens)) + " tokens";
    if (p.skipped > 0) subtitle += ", " + grouped(p.skipped) + " updates skipped";
    const std::string svg = loss_svg(
        curve_, std::string(trainer_.model().name) + " on " + std::string(name_of(options_.run.data)), subtitle);
    auto file = chimera::AtomicFile::create(options_.out + "/loss.svg");
    if (!file) return record(file.error());
    if (chimera::Status s = file->write(svg); !s) return record(s);
    record(file->commit());
  }

  const chimera::Cpu& cpu_;
  chimera::Trainer& trainer_;
  const TrainingOptions& options_;
  chimera::MetricsLog metrics_;
  chimera::EventFile events_;
  Curve curve_;
  double peak_;
  std::int64_t first_step_;
  bool told_ = false;
  ProgressLine line_;
  double seconds_per_token_ = 0;
  Clock::time_point sampled_ = Clock::now();
};

/// An error if a new run's folder holds one already.
inline chimera::Status check_folder(const char* program, const TrainingOptions& options) {
  if (options.resume || !chimera::is_folder(options.out)) return {};
  const auto steps = chimera::list_checkpoints(options.out);
  if (!steps) return steps.error();
  if (steps->empty()) return {};
  return chimera::Error{"the folder " + options.out + " holds a run: continue it with " + program + " --resume --out " +
                        shell_word(options.out) + ", or name another folder"};
}

/// An error if this machine has no memory to train the model with those settings.
inline chimera::Status check_memory(const RunOptions& run, const chimera::AnyModel& model) {
  const std::int64_t batch = run.settings.batch, context = run.settings.context;
  const std::size_t work = std::max(model.train_bytes(batch, context), model.loss_bytes(batch, context));
  return check_memory(run.config, static_cast<std::int64_t>(model.arena_floats), static_cast<double>(work));
}

/// A run that is about to begin.
struct ReadyRun {
  const char* program;
  const chimera::Cpu& cpu;
  chimera::Trainer& trainer;
  TrainingOptions& options;
  std::string data;    // what it learns from, in words
  std::string base{};  // of adapters: the model that they are for
};

/// Goes on with it if it is to, and does it. `Host` is a RunHost, or what a program makes of one: `more` is what its
/// constructor wants first.
template <class Host = RunHost, class... More>
chimera::Status run_training(const ReadyRun& ready, More&... more) {
  const auto& [program, cpu, trainer, options, data, base] = ready;
  RunOptions& run = options.run;
  const std::string again = std::string(program) + " --resume --out " + shell_word(options.out);
  if (options.resume) {
    const auto resumed = trainer.resume();
    if (!resumed) return resumed.error();
    if (!resumed->note.empty()) std::fprintf(stderr, "note: %s\n", resumed->note.c_str());
    std::fprintf(stderr, "%s\n",
                 resumed->path.empty() ? "no checkpoint yet: starting at the beginning"
                                       : ("resumed from " + resumed->path).c_str());
  }
  if (chimera::Status s = run.save(options.out); !s) return s;
  const std::int64_t done = trainer.progress().step;
  const std::string metrics_path = options.out + "/metrics.jsonl";
  auto metrics = chimera::MetricsLog::open(metrics_path, done);
  if (!metrics) return metrics.error();
  auto events = chimera::EventFile::create(options.out, done);
  if (!events) return events.error();
  const auto before = chimera::MappedFile::open(metrics_path);
  Curve curve = Host::new_curve();
  if (before) curve.read(before->text());
  const double peak = chimera::roofline::measure_peak_f32(cpu);
  std::fprintf(stderr, "%s: %s weights; %s; %s threads, %.0f GFLOP/s at most\n", run.config.c_str(),
               grouped(trainer.model().parameters).c_str(), data.c_str(), grouped(cpu.threads()).c_str(), peak * 1e-9);

  const auto seconds = run.minutes > 0 ? trainer.measure_step() : 0.;
  if (!seconds) return seconds.error();
  Host host(more..., cpu, trainer, options, std::move(*metrics), std::move(*events), curve, peak);
  if (run.minutes > 0)
    if (chimera::Status s = host.fit_to_clock(*seconds); !s) return s;
  catch_signals();
  host.on_begin(done);
  const auto ended = trainer.run(host);
  host.finish_line();
  const chimera::Progress& progress = trainer.progress();
  if (progress.skipped > 0) std::fprintf(stderr, "%s updates were skipped\n", grouped(progress.skipped).c_str());
  const auto steps = chimera::list_checkpoints(options.out);
  const bool saved = steps && !steps->empty();
  if (!ended)
    return chimera::Error{ended.error().message + (saved ? "; when that is put right, continue with " + again : "")};
  if (*ended == chimera::Ended::stopped && !saved)
    return chimera::Error{"stopped before the first step: nothing is kept"};
  if (*ended == chimera::Ended::stopped) {
    std::fprintf(stderr, "stopped at step %s; continue with %s\n", grouped(progress.step).c_str(), again.c_str());
    return {};
  }
  if (progress.step == done)
    std::fprintf(stderr, "the run is complete; to train on, resume it with more --steps than %s\n",
                 grouped(done).c_str());
  if (::isatty(STDERR_FILENO) == 1) std::fprintf(stderr, "%s", loss_chart(host.curve()).c_str());
  std::fprintf(
      stderr, "curve: %s\ntext: chimera-generate --model %s\n", shell_word(options.out + "/loss.svg").c_str(),
      (base.empty() ? shell_word(options.out) : shell_word(base) + " --lora " + shell_word(options.out)).c_str());
  if (progress.validation_step > 0) std::printf("val loss %.4f\n", progress.validation_loss);
  return {};
}
