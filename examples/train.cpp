// chimera-train: trains a model on a text file or on token shards. A run is a folder: settings (run.txt), checkpoints,
// metrics.jsonl, TensorBoard event files and the curve loss.svg.
#include "config_words.hpp"
#include "curve.hpp"
#include "engine.hpp"
#include "memory.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "progress.hpp"
#include "recipes.hpp"
#include "registry.hpp"
#include "run_folder.hpp"
#include "run_options.hpp"
#include "shell_word.hpp"

#include <chimera/core/device.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/tensorboard.hpp>
#include <chimera/kernels/roofline.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/train/corpus.hpp>
#include <chimera/train/metrics.hpp>
#include <chimera/train/trainer.hpp>

#include <unistd.h>
#include <algorithm>
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
  std::vector<std::string> shape;  // words of --config
  std::string out, recipe;
  std::string tokenizer, from;
  bool resume = false;
  int threads = 0;
  double sample_every = 0;  // seconds; 0: never
  std::string sample_prompt;
  int code = failure;  // of a failure
};

/// The flags given, over what `options` holds. A value if the program should end at once.
std::optional<int> parse_flags(int argc, char** argv, Options& options) {
  Flags app{"Trains a language model on text.", "chimera-train"};
  RunOptions& run = options.run;
  TrainerSettings& s = run.settings;
  app.end_help("chimera-train --data text.txt --out runs/first --minutes 5",
               "A config that is no preset is compiled for this machine, once, and kept in ~/.cache/chimera/engines.");
  CLI::Option* shape = app.add_option(
      "--config", options.shape,
      "the model: a preset (chimera-info --list) or a C++ header with a config, then NAME=VALUE for fields, "
      "as in --config nano width=256 layers=\"M M A\" count=9 heads=8 hidden=640");
  shape->take_all()->expected(1, CLI::detail::expected_max_vector_size)->type_name("WORD ...")->default_str(run.config);
  app.add_option("-f,--data", run.data, "a text file, a token shard, or a folder of shards")
      ->type_name("PATH")
      ->default_str("");
  app.add_option("--out", options.out, "the run's folder")->type_name("PATH")->default_str("")->required();
  CLI::Option* tokenizer =
      app.add_option("--tokenizer", options.tokenizer,
                     "tokenizer.json, *.tiktoken, *.gguf, or a folder: what makes tokens of a text, else bytes; the "
                     "model's vocabulary follows it")
          ->type_name("PATH")
          ->default_str("");
  CLI::Option* from = app.add_option(
      "-m,--from,--model", options.from,
      "begin with the weights, config and tokenizer of this model: a run, a GGUF file, a Hugging Face folder");
  from->type_name("PATH")->default_str("")->excludes(shape);
  app.add_flag("--resume", options.resume, "go on with the run in that folder; flags given change its settings")
      ->excludes(tokenizer)
      ->excludes(from);
  app.add_option("--recipe", options.recipe, "a ready-made run; flags given change its settings: shakespeare")
      ->type_name("NAME")
      ->default_str("");
  add_threads_option(app, options.threads);

  CLI::Option* steps = app.add_option("--steps", s.steps, "length of the run, in updates");
  app.add_option("--minutes", run.minutes, "length of the run, by the clock; validation not counted")
      ->check(non_negative())
      ->excludes(steps);
  app.add_option("-b,--batch", s.batch, "sequences computed at once");
  app.add_option("-c,--ctx-size,--context", s.context, "tokens of a sequence");
  app.add_option("--accumulation", s.accumulation, "batches of one update");
  app.add_option("-s,--seed", s.seed, "of the first weights, the order of the data, and dropout");
  add_choice(app, "--sampling", s.order, {{"random", WindowOrder::random}, {"shuffled", WindowOrder::shuffled}},
             "where sequences start");

  app.add_option("--lr", s.learning_rate, "learning rate at its peak");
  add_choice(
      app, "--schedule", s.schedule,
      {{"cosine", ScheduleShape::cosine}, {"wsd", ScheduleShape::wsd_linear}, {"wsd-sqrt", ScheduleShape::wsd_sqrt}},
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
  add_choice(app, "--precision", s.precision, {{"f32", Precision::f32}, {"bf16", Precision::bf16}},
             "what large products round their inputs to; bf16 is faster on processors with AVX-512 BF16, and slow on\n"
             "all others");
  app.add_flag_callback(
      "--bf16", [&s] { s.precision = Precision::bf16; }, "the same as --precision bf16");

  app.add_option("--validation-fraction", run.validation_fraction, "of the data, at its end")->check(between(0, 1));
  app.add_option("--validation-interval", s.validation_interval, "updates between validations; 0: only at the end");
  app.add_option("--validation-tokens", s.validation_tokens, "tokens of each validation; 0: all");
  app.add_option("--checkpoint-interval", s.checkpoint_interval, "updates between checkpoints; 0: only at the end");
  app.add_option("--keep", s.keep, "newest checkpoints to keep");
  app.add_option("--sample-every", options.sample_every, "seconds between samples of what the model writes; 0: none")
      ->check(non_negative());
  app.add_option("-p,--sample-prompt", options.sample_prompt, "the text that the samples continue")->default_str("");
  const auto code = parse(app, argc, argv);
  if (!code && steps->count() > 0) run.minutes = 0;
  return code;
}

/// The last part of a path.
std::string_view name_of(std::string_view path) { return path.substr(path.rfind('/') + 1); }

/// Linux promises more memory than it has and kills who believes it: better to say so before. `work`: bytes besides
/// weights, gradients and moments.
Status check_memory(const std::string& name, std::int64_t floats, double work) {
  const double state = 16. * static_cast<double>(floats);
  const double available = available_memory();
  if (available == 0 || state + work <= available) return {};
  return Error{
      "training " + name + " needs " + size_text(state) + " for weights, gradients and moments" +
      (work > 0 ? " and " + size_text(work) + " for activations" : "") + ", and " + size_text(available) +
      " are free: " + (state < 0.9 * available ? "use a smaller --batch or --context" : "use a smaller --config")};
}

/// What the model writes now: some words after the prompt, up to the end of a text.
Result<std::string> sample_text(const Cpu& cpu, const Trainer& trainer, const Tokenizer& tokenizer,
                                const std::string& prompt) {
  const auto packed = PackedModel::create(cpu, trainer.model(), trainer.weights());
  if (!packed) return packed.error();
  auto session = Session::create(cpu, *packed);
  if (!session) return session.error();
  auto sampler = TokenSampler::create(trainer.model().config->vocab, {.seed = 1});
  if (!sampler) return sampler.error();
  std::vector<std::int32_t> tokens = tokenizer.encode(prompt.empty() ? "\n" : prompt);
  if (const Vocabulary& v = tokenizer.vocabulary(); v.add_bos && v.bos >= 0) tokens.insert(tokens.begin(), v.bos);
  auto logits = session->prefill(tokens);
  sampler->accept(tokens);
  TokenDecoder decoder(tokenizer);
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
class Run : public TrainingHost {
 public:
  Run(const Cpu& cpu, Trainer& trainer, const Options& options, MetricsLog metrics, EventFile events, Curve curve,
      double peak)
      : cpu_(cpu),
        trainer_(trainer),
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
    if (!last && options_.sample_every > 0 && seconds_since(sampled_) >= options_.sample_every) sample(r.step);
  }

  void on_validation(const ValidationReport& r) override {
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

  /// Ends the progress line, so that what follows starts on its own.
  void finish_line() { line_.end(); }

  const Curve& curve() const { return curve_; }

 private:
  void say(const std::string& line) {
    line_.clear();
    std::fprintf(stderr, "%s\n", line.c_str());
  }

  void sample(std::int64_t step) {
    const auto tokenizer = tokenizer_of(options_.out, trainer_.model().config->vocab);
    const auto text = tokenizer ? sample_text(cpu_, trainer_, *tokenizer, options_.sample_prompt) : tokenizer.error();
    if (!text) return record(text.error());
    say(formatted("after %lld steps it writes:", static_cast<long long>(step)));
    std::fprintf(stderr, "\n%s\n\n", text->c_str());
    sampled_ = Clock::now();
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

  const Cpu& cpu_;
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
  Clock::time_point sampled_ = Clock::now();
};

/// What a run begins with.
struct Beginning {
  std::optional<SavedModel> from;
  std::optional<Tokenizer> tokenizer;  // of a new run; none: bytes
};

Result<Beginning> begin(const Options& options) {
  Beginning b;
  if (options.resume) return b;
  if (!options.from.empty()) {
    auto saved = SavedModel::open(options.from, all_models(), find_training_engine);
    if (!saved) return saved.error();
    auto tokenizer = noted(saved->tokenizer());
    if (tokenizer && !is_bytes(*tokenizer)) b.tokenizer = std::move(*tokenizer);
    b.from = std::move(*saved);
  }
  if (!options.tokenizer.empty()) {
    const auto loaded = noted(load_tokenizer(options.tokenizer));
    if (!loaded) return loaded.error();
    auto tokenizer = with_special_ids(*loaded);
    if (!tokenizer) return tokenizer.error();
    b.tokenizer = std::move(*tokenizer);
  }
  return b;
}

/// The config that the words of --config say, with a vocabulary of `vocab` tokens unless they name another; 0: its own.
/// `name` becomes what the user calls it.
Result<Config> read_shape(const std::vector<std::string>& words, int vocab, std::string& name) {
  Config config;
  std::vector<std::string> fields;
  for (const std::string& word : words) {
    if (word.find('=') != word.npos && !word.ends_with(".hpp")) {
      fields.push_back(word);
      name += (name.empty() ? "" : " ") + word;
      continue;
    }
    fields.clear();  // the last name counts, as with other flags
    if (word.ends_with(".hpp")) {
      const auto compiled = compile_config(word, name);
      if (!compiled) return compiled.error();
      config = *compiled;
    } else {
      const auto preset = find_model(word);
      if (!preset) return preset.error();
      config = *preset->config, name = word;
    }
  }
  // The number of layers repeats their words, wherever it stands.
  std::stable_partition(fields.begin(), fields.end(), [](const std::string& f) { return !f.starts_with("count="); });
  if (vocab > 0) config.vocab = vocab;
  if (config.vocab == 0) config.vocab = byte_vocab;
  for (const std::string& field : fields)
    if (Status s = set_field(config, field); !s) return s.error();
  if (const char* broken = broken_rule(config)) {
    const std::string_view rule = broken;
    return Error{"no such model can be: " + std::string(rule.substr(rule.find(": ") + 2))};
  }
  return config;
}

/// The model to train: a preset, or an engine that is compiled for it. An error that is the user's sets options.code.
Result<AnyModel> choose_model(Options& options, const Beginning& b) {
  RunOptions& run = options.run;
  if (b.from) {
    run.config = b.from->model.name, run.model = b.from->config();
    return b.from->model;
  }
  if (!options.shape.empty() || run.model.vocab == 0) {
    const std::vector<std::string> usual{run.config};
    std::string name;
    const auto config =
        read_shape(options.shape.empty() ? usual : options.shape, b.tokenizer ? b.tokenizer->size() : 0, name);
    options.code = wrong_usage;
    if (!config) return config.error();
    options.code = failure;
    run.config = name, run.model = *config;
  }
  for (const AnyModel& model : all_models())
    if (*model.config == run.model) return model;
  if (Status s = check_memory(run.config, parameter_count(run.model), 0); !s) return s.error();
  return find_training_engine(run.model);
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
  const std::string again = "chimera-train --resume --out " + shell_word(options.out);
  if (!options.resume && is_folder(options.out)) {
    const auto steps = list_checkpoints(options.out);
    if (!steps) return steps.error();
    if (!steps->empty())
      return Error{"the folder " + options.out + " holds a run: continue it with " + again +
                   ", or name another folder"};
  }
  if (Status s = run.settings.validate(); !s) return s;
  const auto beginning = begin(options);
  if (!beginning) return beginning.error();
  const auto& from = beginning->from;
  const auto model = choose_model(options, *beginning);
  if (!model) return model.error();
  const RunFolder folder(options.out, !options.resume);
  if (const auto& tokenizer = beginning->tokenizer) {
    if (Status s = make_folder(options.out); !s) return s;
    if (Status s = save_tokenizer(options.out, *tokenizer); !s) return s;
  }
  auto data = open_data(options, model->config->vocab);
  if (!data) return data.error();
  if (char* whole = ::realpath(run.data.c_str(), nullptr)) run.data = whole, std::free(whole);
  const std::int64_t batch = run.settings.batch, context = run.settings.context;
  const std::size_t work = std::max(model->train_bytes(batch, context), model->loss_bytes(batch, context));
  if (Status s = check_memory(run.config, static_cast<std::int64_t>(model->arena_floats), static_cast<double>(work));
      !s)
    return s;
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
  Run host(*cpu, *trainer, options, std::move(*metrics), std::move(*events), curve, peak);
  if (run.minutes > 0)
    if (Status s = host.fit_to_clock(*seconds); !s) return s;
  catch_signals();
  const auto ended = trainer->run(host);
  host.finish_line();
  const Progress& progress = trainer->progress();
  if (progress.skipped > 0) std::fprintf(stderr, "%s updates were skipped\n", grouped(progress.skipped).c_str());
  const auto steps = list_checkpoints(options.out);
  const bool saved = steps && !steps->empty();
  if (!ended) return Error{ended.error().message + (saved ? "; when that is put right, continue with " + again : "")};
  if (*ended == Ended::stopped && !saved) return Error{"stopped before the first step: nothing is kept"};
  if (*ended == Ended::stopped) {
    std::fprintf(stderr, "stopped at step %s; continue with %s\n", grouped(progress.step).c_str(), again.c_str());
    return {};
  }
  if (progress.step == done)
    std::fprintf(stderr, "the run is complete; to train on, resume it with more --steps than %s\n",
                 grouped(done).c_str());
  if (::isatty(STDERR_FILENO) == 1) std::fprintf(stderr, "%s", loss_chart(host.curve()).c_str());
  std::fprintf(stderr, "curve: %s\ntext: chimera-generate --model %s\n", shell_word(options.out + "/loss.svg").c_str(),
               shell_word(options.out).c_str());
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
  if (status) return success;
  fail(status.error());
  return options.code;
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-train", [&] { return program(argc, argv); });
}
