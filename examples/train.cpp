// chimera-train: trains a preset on a text file or on token shards. A run is a folder: settings (run.txt), checkpoints,
// metrics.jsonl, TensorBoard event files and the curve loss.svg.
#include "curve.hpp"
#include "model_option.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "recipes.hpp"
#include "run_options.hpp"

#include <chimera/core/device.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/io/tensorboard.hpp>
#include <chimera/kernels/roofline.hpp>
#include <chimera/train/corpus.hpp>
#include <chimera/train/metrics.hpp>
#include <chimera/train/trainer.hpp>

#include <csignal>
#include <cstdlib>

using namespace chimera;

namespace {

volatile std::sig_atomic_t stop_asked = 0;

/// SIGINT and SIGTERM ask the run to stop; a second one ends the program at once.
void catch_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { stop_asked = 1; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

struct Options {
  RunOptions run;
  std::string out, recipe;
  std::string tokenizer, from;
  bool resume = false;
  int threads = 0;
};

/// The flags given, over what `options` holds. A value if the program should end at once.
std::optional<int> parse_flags(int argc, char** argv, Options& options) {
  CLI::App app{"Trains a language model on text.", "chimera-train"};
  app.option_defaults()->always_capture_default()->take_last();
  RunOptions& run = options.run;
  TrainerSettings& s = run.settings;
  app.add_option("--config", run.config, "the model (chimera-info --list)");
  app.add_option("--data", run.data, "a text file, a token shard, or a folder of shards");
  app.add_option("--out", options.out, "the run's folder")->required();
  CLI::Option* tokenizer =
      app.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.json, *.tiktoken, *.gguf, or a folder: what makes tokens of a text; else bytes");
  CLI::Option* from = app.add_option(
      "--from", options.from, "begin with the weights, config and tokenizer of this model, not with random ones");
  app.add_flag("--resume", options.resume, "go on with the run in that folder; flags given change its settings")
      ->excludes(tokenizer)
      ->excludes(from);
  app.add_option("--recipe", options.recipe, "a ready-made run; flags given change its settings: shakespeare");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());

  CLI::Option* steps = app.add_option("--steps", s.steps, "length of the run, in updates");
  app.add_option("--minutes", run.minutes, "length of the run, by the clock; validation not counted")
      ->check(non_negative())
      ->excludes(steps);
  app.add_option("--batch", s.batch, "sequences computed at once");
  app.add_option("--context", s.context, "tokens of a sequence");
  app.add_option("--accumulation", s.accumulation, "batches of one update");
  app.add_option("--seed", s.seed, "of weights, order of the data, and dropout");
  add_choice(app, "--sampling", s.order, {{"random", WindowOrder::random}, {"shuffled", WindowOrder::shuffled}},
             "where sequences start");

  app.add_option("--lr", s.learning_rate, "learning rate at its peak");
  add_choice(
      app, "--schedule", s.schedule,
      {{"cosine", ScheduleShape::cosine}, {"wsd", ScheduleShape::wsd_linear}, {"wsd-sqrt", ScheduleShape::wsd_sqrt}},
      "of the learning rate");
  app.add_option("--warmup", s.warmup, "updates in which the rate grows; -1: a hundredth of the run");
  app.add_option("--decay", s.decay, "last updates, in which it falls (wsd); -1: a fifth of the run");
  app.add_option("--floor", s.floor, "last learning rate / peak");
  app.add_option("--beta1", s.adamw.beta1, "AdamW");
  app.add_option("--beta2", s.adamw.beta2, "AdamW");
  app.add_option("--weight-decay", s.adamw.weight_decay, "AdamW");
  app.add_option("--clip", s.clip, "largest norm of the gradient; 0: no limit");
  app.add_option("--label-smoothing", s.label_smoothing, "share of each target that all tokens get, in training");
  app.add_option("--z-loss", s.z_loss, "weight of log(sum of exp(logits))^2 in the training loss");

  app.add_option("--validation-fraction", run.validation_fraction, "of the data, at its end")
      ->check(CLI::Range(0., 1.));
  app.add_option("--validation-interval", s.validation_interval, "updates; 0: only at the end");
  app.add_option("--validation-tokens", s.validation_tokens, "evaluated each time; 0: all");
  app.add_option("--checkpoint-interval", s.checkpoint_interval, "updates; 0: only at the end");
  app.add_option("--keep", s.keep, "checkpoints that stay");
  const auto code = parse(app, argc, argv);
  if (!code && steps->count() > 0) run.minutes = 0;
  return code;
}

/// The last part of a path.
std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

/// Bytes that programs can still get from the system; 0: unknown.
double available_memory() {
  double kibibytes = 0;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof line, file))
      if (std::sscanf(line, "MemAvailable: %lf", &kibibytes) == 1) break;
    std::fclose(file);
  }
  return 1024 * kibibytes;
}

/// Linux promises more memory than it has and kills who believes it: better to say so before.
Status check_memory(const AnyModel& model, const TrainerSettings& settings) {
  const double state = 16. * static_cast<double>(model.arena_floats);
  const double work = static_cast<double>(std::max(model.train_bytes(settings.batch, settings.context),
                                                   model.loss_bytes(settings.batch, settings.context)));
  const double available = available_memory();
  if (available == 0 || state + work <= available) return {};
  return Error{
      "training " + std::string(model.name) + " needs " + size_text(state) +
      " for weights, gradients and moments and " + size_text(work) + " for activations, and " + size_text(available) +
      " are free: " + (state < 0.9 * available ? "use a smaller --batch or --context" : "use a smaller --config")};
}

/// Prints a run's progress, writes its metrics and curve, and lets a signal or the clock end it.
class Run : public TrainingHost {
 public:
  Run(Trainer& trainer, const Options& options, MetricsLog metrics, EventFile events, Curve curve, double peak)
      : trainer_(trainer),
        options_(options),
        metrics_(std::move(metrics)),
        events_(std::move(events)),
        curve_(std::move(curve)),
        peak_(peak),
        first_step_(trainer.progress().step) {}

  /// Sets the number of steps from the time that is left and the seconds that one takes.
  Status fit_to_clock(double seconds_per_step) {
    const double left = std::max(0., 60 * options_.run.minutes - trainer_.progress().seconds) / seconds_per_step;
    return trainer_.set_steps(std::max<std::int64_t>(1, trainer_.progress().step + static_cast<std::int64_t>(left)));
  }

  void on_step(const StepReport& r) override {
    const double share = r.flops_per_second / peak_;
    curve_.train.push_back({r.step, r.loss});
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
    if (r.skip != Skip::none)
      say(formatted("step %lld: %s (loss %.4g, gradient norm %.4g); update skipped, %lld so far",
                    static_cast<long long>(r.step), std::string(name(r.skip)).c_str(), r.loss, r.gradient_norm,
                    static_cast<long long>(r.skipped)));
    seconds_per_token_ += (1 / r.tokens_per_second - seconds_per_token_) * (r.step == first_step_ + 1 ? 1 : 0.1);
    const bool last = r.step == r.steps;
    if (last || r.step == first_step_ + 1 || line_.due()) {
      const double usual_share = r.flops_per_second / r.tokens_per_second / seconds_per_token_ / peak_;
      line_.show(formatted("step %lld/%lld  loss %.4f  norm %.2f  %s tok/s  %.0f %% of peak  %s left",
                           static_cast<long long>(r.step), static_cast<long long>(r.steps), r.loss, r.gradient_norm,
                           grouped(static_cast<std::int64_t>(1 / seconds_per_token_)).c_str(), 100 * usual_share,
                           duration(r.seconds_left).c_str()));
    }
    if (options_.run.minutes > 0)
      record(fit_to_clock(seconds_per_token_ * static_cast<double>(trainer_.settings().tokens_per_step())));
  }

  void on_validation(const ValidationReport& r) override {
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

  /// Ends the progress line, so that what follows starts on its own.
  void finish_line() { line_.end(); }

  const Curve& curve() const { return curve_; }

 private:
  void say(const std::string& line) {
    line_.clear();
    std::fprintf(stderr, "%s\n", line.c_str());
  }

  void draw() {
    const Progress& p = trainer_.progress();
    std::string subtitle = rounded(static_cast<double>(trainer_.model().parameters)) + " weights, " +
                           rounded(static_cast<double>(p.tokens)) + " tokens";
    if (p.skipped > 0) subtitle += ", " + grouped(p.skipped) + " updates skipped";
    const std::string svg = loss_svg(
        curve_, std::string(trainer_.model().name) + " on " + std::string(name_of(options_.run.data)), subtitle);
    auto file = AtomicFile::create(options_.out + "/loss.svg");
    if (!file) return record(file.error());
    if (Status s = file->write(svg); !s) return record(s);
    record(file->commit());
  }

  /// Metrics and curves must not end a run: the first failure is told.
  void record(const Status& status) {
    if (status || told_) return;
    told_ = true;
    say("warning: " + status.error().message + "; training goes on");
  }

  Trainer& trainer_;
  const Options& options_;
  MetricsLog metrics_;
  EventFile events_;
  Curve curve_;
  double peak_;
  std::int64_t first_step_;
  bool told_ = false;
  ProgressLine line_;
  double seconds_per_token_ = 0;
};

/// Gives the run folder a copy of the tokenizer that was asked for.
Status keep_tokenizer(const Options& options, const Result<Tokenizer>& tokenizer) {
  if (!tokenizer) return tokenizer.error();
  if (Status s = make_folder(options.out); !s) return s;
  return save_tokenizer(options.out, *tokenizer);
}

/// The data as tokens. A text becomes a token shard in the run's folder if that has a tokenizer.
Result<Corpus> open_data(const Options& options, int vocab) {
  const std::string& path = options.run.data;
  if (is_folder(path) || is_shard(path) || !exists(options.out + "/tokenizer.json")) return Corpus::open(path, vocab);
  const auto tokenizer = tokenizer_of(options.out, vocab);
  if (!tokenizer) return tokenizer.error();
  const std::string shard = options.out + "/tokens.bin";
  if (Status s = write_shard(path, *tokenizer, shard); !s) return s.error();
  return Corpus::open(shard, vocab);
}

Status train(Options& options) {
  RunOptions& run = options.run;
  if (run.data.empty()) return Error{"no data to train on: name a text file with --data"};
  const std::string again = "chimera-train --resume --out " + options.out;
  if (!options.resume && is_folder(options.out)) {
    const auto steps = list_checkpoints(options.out);
    if (!steps) return steps.error();
    if (!steps->empty())
      return Error{"the folder " + options.out + " holds a run: continue it with " + again +
                   ", or name another folder"};
  }
  std::optional<SavedModel> from;
  if (!options.from.empty() && !options.resume) {
    auto saved = open_model(options.from);
    if (!saved) return saved.error();
    if (!saved->model.train) return Error{"cannot train " + options.from + ": its config is no preset"};
    from = std::move(*saved);
    run.config = from->model.name;
    const auto tokenizer = from->tokenizer();
    if (tokenizer && !is_bytes(*tokenizer))
      if (Status s = keep_tokenizer(options, tokenizer); !s) return s;
  }
  const auto model = find_model(run.config);
  if (!model) return model.error();
  if (!options.tokenizer.empty() && !options.resume) {
    const auto tokenizer = load_tokenizer(options.tokenizer);
    if (!tokenizer) return tokenizer.error();
    if (Status s = keep_tokenizer(options, with_special_ids(*tokenizer)); !s) return s;
  }
  auto data = open_data(options, model->config->vocab);
  if (!data) return data.error();
  if (char* whole = ::realpath(run.data.c_str(), nullptr)) run.data = whole, std::free(whole);
  if (Status s = run.settings.validate(); !s) return s;
  if (Status s = check_memory(*model, run.settings); !s) return s;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  auto trainer = Trainer::create(*cpu, *model, split(*data, run.validation_fraction), run.settings, options.out);
  if (!trainer) return trainer.error();
  if (from)
    if (Status s = from->load(*cpu, trainer->weights()); !s) return s;
  if (options.resume) {
    const auto resumed = trainer->resume();
    if (!resumed) return resumed.error();
    if (!resumed->note.empty()) std::fprintf(stderr, "note: %s\n", resumed->note.c_str());
    std::fprintf(stderr, "%s\n",
                 resumed->path.empty() ? "no checkpoint yet: starting at the beginning"
                                       : ("resumed from " + resumed->path).c_str());
  }
  if (Status s = run.save(options.out); !s) return s;
  const std::int64_t done = trainer->progress().step;
  const std::string metrics_path = options.out + "/metrics.jsonl";
  auto metrics = MetricsLog::open(metrics_path, done);
  if (!metrics) return metrics.error();
  auto events = EventFile::create(options.out, done);
  if (!events) return events.error();
  const auto before = MappedFile::open(metrics_path);
  const Curve curve = before ? Curve::read(before->text()) : Curve{};
  const double peak = roofline::measure_peak_f32(*cpu);
  std::fprintf(stderr, "%s: %s weights; %s: %s tokens; %s threads, %.0f GFLOP/s at most\n", run.config.c_str(),
               grouped(model->parameters).c_str(), run.data.c_str(), grouped(data->tokens()).c_str(),
               grouped(cpu->threads()).c_str(), peak * 1e-9);

  const auto seconds = run.minutes > 0 ? trainer->measure_step() : 0.;
  if (!seconds) return seconds.error();
  Run host(*trainer, options, std::move(*metrics), std::move(*events), curve, peak);
  if (run.minutes > 0)
    if (Status s = host.fit_to_clock(*seconds); !s) return s;
  catch_signals();
  const auto ended = trainer->run(host);
  host.finish_line();
  const Progress& progress = trainer->progress();
  if (progress.skipped > 0) std::fprintf(stderr, "%s updates were skipped\n", grouped(progress.skipped).c_str());
  if (!ended) return Error{ended.error().message + "; when that is put right, continue with " + again};
  if (*ended == Ended::stopped) {
    std::fprintf(stderr, "stopped at step %s; continue with %s\n", grouped(progress.step).c_str(), again.c_str());
    return {};
  }
  if (progress.step == done)
    std::fprintf(stderr, "the run is complete; to train on, resume it with more --steps than %s\n",
                 grouped(done).c_str());
  std::fprintf(stderr, "%s", loss_chart(host.curve()).c_str());
  std::fprintf(stderr, "curve: %s/loss.svg; text: chimera-generate --model %s\n", options.out.c_str(),
               options.out.c_str());
  if (progress.validation_step > 0) std::printf("val loss %.4f\n", progress.validation_loss);
  return {};
}

int program(int argc, char** argv) {
  const auto fail = [](const Error& error) { return ::fail("chimera-train", error); };
  Options options;
  if (const auto code = parse_flags(argc, argv, options)) return *code;
  if (options.resume || !options.recipe.empty()) {
    // The flags once more, over what the recipe or the folder says.
    const auto base = options.resume ? RunOptions::load(options.out) : find_recipe(options.recipe);
    if (!base) return fail(base.error());
    options.run = *base;
    if (const auto code = parse_flags(argc, argv, options)) return *code;
  }
  const Status status = train(options);
  return status ? success : fail(status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-train", [&] { return program(argc, argv); });
}
