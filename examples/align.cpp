// chimera-align: teaches a trained model to answer, by conversations (sft), by pairs of answers of which one was
// preferred (dpo), or by what its own answers earn (grpo).
#include "align_grpo.hpp"
#include "engine.hpp"
#include "noted_tokenizer.hpp"
#include "registry.hpp"
#include "run_folder.hpp"
#include "training_run.hpp"
#include "unzipped.hpp"

#include <chimera/align/chat_data.hpp>
#include <chimera/align/conversations.hpp>
#include <chimera/align/dpo.hpp>
#include <chimera/align/preferences.hpp>
#include <chimera/core/checksum.hpp>
#include <chimera/exchange/adapter_files.hpp>
#include <chimera/exchange/adapter_names.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/model/adapted_model.hpp>
#include <chimera/model/stored_base.hpp>

#include <cmath>
#include <memory>
#include <optional>

using namespace chimera;

namespace {

/// What this program is told and others are not; a run's folder has it, too.
struct Task {
  std::string method;    // sft, dpo or grpo
  std::string form;      // a chat template's name
  std::string data;      // files, a tab between them
  std::string held_out;  // likewise
  double epochs = 1;
  bool strict = false;
  DpoLoss loss = DpoLoss::sigmoid;
  double beta = 0.1, noise = 0;
  bool by_length = false;
  std::uint32_t reference = 0;               // tells which model the reference is
  LoraSettings lora{.rank = 0, .alpha = 0};  // rank 0: all weights are learned
  std::string targets = "all";               // of adapters
  BaseFormat base_format = BaseFormat::as_they_come;
  std::string base;                 // the model that they are for,
  std::uint32_t base_checksum = 0;  // and its weights
  GrpoTask grpo;

  bool adapts() const { return lora.rank > 0; }

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("method", s.method), f("template", s.form), f("answers", s.data), f("held_out", s.held_out);
    f("epochs", s.epochs), f("strict", s.strict);
    f("dpo_loss", s.loss), f("beta", s.beta), f("noise", s.noise), f("by_length", s.by_length);
    f("reference", s.reference);
    GrpoTask::each_field(s.grpo, f);
    LoraSettings::each_field(s.lora, f);
    f("lora.targets", s.targets), f("lora.base_format", s.base_format), f("lora.base", s.base),
        f("lora.base_checksum", s.base_checksum);
  }
};

struct Options : TrainingOptions {
  Task task;
  std::vector<std::string> data, held_out;
  std::string from;
  int threads = 0;
  bool steps_given = false;
  std::int64_t count = 1'000;  // of problems to write
  bool held_out_operands = false;
};

/// A command and those of its flags that are asked whether they were given.
struct Command {
  CLI::App* app;
  const CLI::Option *steps, *epochs, *rate;
};

Command add_command(Flags& app, const char* name, const char* help, const char* data, Options& options) {
  CLI::App* command = app.add_subcommand(name, help);
  command->fallthrough()->group("Commands");
  CLI::Option* from = command->add_option("-m,--from,--model", options.from,
                                          "the model to begin with: a run, a GGUF file, a Hugging Face folder");
  from->type_name("PATH")->default_str("");
  const auto files = [&](const char* flag, std::vector<std::string>& paths, const std::string& what) {
    command->add_option(flag, paths, what)
        ->expected(1, CLI::detail::expected_max_vector_size)
        ->take_all()
        ->type_name("FILE ...")
        ->default_str("");
  };
  files("-f,--data", options.data, std::string("JSON Lines or an array, plain or compressed by gzip: ") + data);
  files("--held-out", options.held_out,
        "the same, to validate with; without it the last of --data, as "
        "--validation-fraction says");
  command->add_option("--out", options.out, "the run's folder")->type_name("PATH")->default_str("")->required();
  command->add_flag("--resume", options.resume, "go on with the run in that folder; flags given change its settings")
      ->excludes(from);
  command
      ->add_option("--template", options.task.form,
                   "how conversations are written: chatml, llama3, granite, plain, text; without it as the model's "
                   "tokenizer says, or else chatml where it can be, or plain")
      ->type_name("NAME")
      ->default_str("");
  command->add_flag("--strict", options.task.strict,
                    "end at the first record that cannot be used; else they are counted");
  add_threads_option(*command, options.threads);
  const CLI::Option* epochs = command
                                  ->add_option("--epochs", options.task.epochs,
                                               "how often everything is read, unless --steps or --minutes "
                                               "say how long")
                                  ->check(positive());
  const CLI::Option* steps = add_training_flags(*command, options);
  return {command, steps, epochs, command->get_option("--lr")};
}

/// Of what learns adapters.
void add_lora_flags(CLI::App& command, Task& task, bool& qlora) {
  CLI::Option* rank = command.add_option("--lora", task.lora.rank,
                                         "learn adapters of that rank beside the model's matrices, and nothing else");
  rank->check(at_least(1))->default_str("");
  command.add_option("--lora-alpha", task.lora.alpha, "they count alpha / rank; without it 2 rank")
      ->check(positive())
      ->default_str("")
      ->needs(rank);
  command.add_flag("--rslora", task.lora.rank_stabilised, "they count alpha / sqrt(rank)")->needs(rank);
  command.add_option("--lora-dropout", task.lora.dropout, "share of their inputs that drops out")
      ->check(between(0, 1))
      ->needs(rank);
  command
      .add_option("--targets", task.targets,
                  "matrices that get one, commas between: all, attention, mixer, ffn, or their names in PEFT or "
                  "llama.cpp")
      ->needs(rank);
  add_choice(command, "--base-format", task.base_format, {{"file", BaseFormat::as_they_come}, {"nf4", BaseFormat::nf4}},
             "what the model's matrices are held in: as its file has them, or in NF4")
      ->needs(rank);
  command.add_flag("--qlora", qlora, "--lora 16, if no rank is given, with --base-format nf4");
}

/// The flags given, over what `options` holds. A value if the program should end at once.
std::optional<int> parse_flags(int argc, char** argv, Options& options) {
  Flags app{"Teaches a trained model to answer.", "chimera-align"};
  app.end_help("chimera-align sft --model runs/first --data talk.jsonl --out runs/talk --epochs 3");
  app.require_subcommand(1);
  Task& task = options.task;
  const Command sft = add_command(app, "sft", "learn answers from conversations (supervised fine-tuning)",
                                  "messages, ShareGPT, prompt and completion, Alpaca, or question and answer", options);
  const Command dpo =
      add_command(app, "dpo", "learn which of two answers is preferred (direct preference optimization)",
                  "prompt, chosen and rejected as texts or messages, or hh-rlhf's transcripts", options);
  add_choice(*dpo.app, "--loss", task.loss,
             {{"sigmoid", DpoLoss::sigmoid},
              {"conservative", DpoLoss::conservative},
              {"robust", DpoLoss::robust},
              {"ipo", DpoLoss::ipo}},
             "what is made of a pair");
  dpo.app->add_option("--beta", task.beta, "how near the model stays to where it began")->check(positive());
  dpo.app
      ->add_option("--noise", task.noise,
                   "share of pairs that are the wrong way round, for conservative and robust; below 0.5")
      ->check(between(0, 1));
  dpo.app->add_flag("--by-length", task.by_length, "compare means over an answer's tokens, not their sums");
  const Command grpo =
      add_command(app, "grpo", "learn from what its own answers earn (group relative policy optimization)",
                  "prompt and answer, or GSM8K's question and answer", options);
  add_grpo_flags(*grpo.app, task.grpo, options.run.settings.clip);
  CLI::App* write =
      app.add_subcommand("arithmetic", "write problems of grpo's arithmetic with worked answers, for sft");
  write->fallthrough()->group("Commands");
  write->add_option("--count", options.count, "problems")->check(non_negative());
  write->add_flag("--held-out-operands", options.held_out_operands, "those of the operands kept apart");
  add_arithmetic_flags(*write, task.grpo.arithmetic);
  bool qlora = false;
  add_lora_flags(*sft.app, task, qlora), add_lora_flags(*dpo.app, task, qlora);
  const auto code = parse(app, argc, argv);
  if (qlora) task.base_format = BaseFormat::nf4, task.lora.rank = task.adapts() ? task.lora.rank : 16;
  const Command& given = app.got_subcommand(grpo.app) ? grpo : app.got_subcommand(dpo.app) ? dpo : sft;
  task.method = app.got_subcommand(write) ? write->get_name() : given.app->get_name();
  if (!code && given.steps->count() > 0) options.run.minutes = 0;
  if (task.adapts() && task.lora.alpha == 0) task.lora.alpha = 2 * static_cast<double>(task.lora.rank);
  if (task.adapts() && !options.resume && given.rate->count() == 0 && given.app == sft.app)
    options.run.settings.learning_rate = 2e-4;
  options.steps_given = given.steps->count() > 0 || (options.resume && given.epochs->count() == 0);
  return code;
}

/// What trains models of that config: a preset, or an engine that is compiled for it.
Result<AnyModel> model_of(const Config& config) {
  if (const AnyModel* preset = find_preset(config)) return *preset;
  return find_training_engine(config);
}

/// Paths in one line of a run's settings: whole ones, a tab between them.
std::string joined(const std::vector<std::string>& paths) {
  std::string all;
  for (const std::string& path : paths) {
    char* const whole = ::realpath(path.c_str(), nullptr);
    all.append(all.empty() ? "" : "\t").append(whole ? whole : path.c_str());
    std::free(whole);
  }
  return all;
}

/// The template by which conversations are written for that tokenizer.
Result<const ChatTemplate*> choose_template(const std::string& name, const Tokenizer& tokenizer) {
  if (!name.empty()) {
    const ChatTemplate* t = chat_template_named(name);
    if (!t) return Error{"expected the template chatml, llama3, granite, plain or text, found " + name};
    if (!can_write(tokenizer, *t))
      return Error{"the model's vocabulary has no " + std::string(t->before_role) + " and " + std::string(t->end) +
                   ", which the template " + name + " needs"};
    return t;
  }
  if (const ChatTemplate* own = chat_template_of(tokenizer)) return own;
  const ChatTemplate* chatml = chat_template_named("chatml");
  return can_write(tokenizer, *chatml) ? chatml : chat_template_named("plain");
}

/// Whoever runs the model later writes conversations as it learned them.
Result<Tokenizer> with_template(const Tokenizer& tokenizer, const ChatTemplate& t) {
  if (t.name != "chatml" || chat_template_of(tokenizer)) return tokenizer;
  Vocabulary v = tokenizer.vocabulary();
  v.chat_template = chatml_template;
  return Tokenizer::create(std::move(v));
}

/// The records of some files, each as `read(Json)` makes of it. One that cannot be used is counted, and the first is
/// told; or it is an error.
template <class Record, class Read>
Result<std::vector<Record>> read_records(const std::string& files, bool strict, Read read) {
  std::vector<Record> all;
  std::int64_t unusable = 0;
  std::string first;
  for (std::string_view rest = files; !rest.empty();) {
    const std::string path(rest.substr(0, rest.find('\t')));
    rest.remove_prefix(std::min(rest.size(), path.size() + 1));
    const auto text = read_unzipped(path);
    if (!text) return text.error();
    each_record(*text, [&](std::int64_t number, const Result<Json>& json) {
      if (strict && unusable > 0) return;
      auto record = json ? read(*json) : Result<Record>(json.error());
      if (record)
        all.push_back(std::move(*record));
      else if (unusable++ == 0)
        first = path + ", record " + std::to_string(number) + ": " + record.error().message;
    });
    if (strict && unusable > 0) return Error{first};
  }
  if (unusable > 0)
    std::fprintf(stderr, "note: %s of %s records cannot be used; the first: %s\n", grouped(unusable).c_str(),
                 grouped(unusable + static_cast<std::int64_t>(all.size())).c_str(), first.c_str());
  return all;
}

/// What is learned from, and what is kept apart.
template <class Record>
struct Records {
  std::vector<Record> learned, held;
};

template <class Record, class Read>
Result<Records<Record>> read_data(const Options& options, Read read) {
  Records<Record> all;
  auto learned = read_records<Record>(options.task.data, options.task.strict, read);
  if (!learned) return learned.error();
  auto held = read_records<Record>(options.task.held_out, options.task.strict, read);
  if (!held) return held.error();
  if (options.task.held_out.empty()) {
    const double count = static_cast<double>(learned->size());
    const auto first = static_cast<std::ptrdiff_t>(count - std::floor(count * options.run.validation_fraction));
    held->assign(learned->begin() + first, learned->end());
    learned->resize(static_cast<std::size_t>(first));
  }
  return Records<Record>{std::move(*learned), std::move(*held)};
}

/// A model that is to learn, and how conversations are written for it.
struct Pupil {
  std::optional<SavedModel> from;  // of a new run
  AnyModel model;
  Tokenizer tokenizer;
  const ChatTemplate* form;
  std::optional<StoredBase> base{};  // what adapters stand beside
  std::optional<AdaptedModel> adapted{};

  /// What learns.
  const AnyModel& learner() const { return adapted ? adapted->model() : model; }

  MarkedTokens encode(std::span<const ChatMessage> messages) const {
    MarkedTokens tokens = encode_answers(tokenizer, *form, messages);
    if (const Vocabulary& v = tokenizer.vocabulary(); v.add_bos && v.bos >= 0)
      tokens.ids.insert(tokens.ids.begin(), v.bos), tokens.said.insert(tokens.said.begin(), false);
    return tokens;
  }
};

Result<Pupil> open_pupil(Options& options) {
  RunOptions& run = options.run;
  std::optional<SavedModel> from;
  if (!options.resume) {
    auto saved = SavedModel::open(options.from, all_models(), find_training_engine);
    if (!saved) return saved.error();
    from = std::move(*saved);
    run.config = from->model.name, run.model = from->config();
    run.settings.context = std::min<std::int64_t>(run.settings.context, run.model.context);
  }
  const auto model = from ? Result<AnyModel>(from->model) : model_of(run.model);
  if (!model) return model.error();
  const auto given = noted(from ? from->tokenizer() : tokenizer_of(options.out, run.model.vocab));
  if (!given) return given.error();
  const auto form = choose_template(options.task.form, *given);
  if (!form) return form.error();
  options.task.form = (*form)->name;
  auto tokenizer = with_template(*given, **form);
  if (!tokenizer) return tokenizer.error();
  return Pupil{std::move(from), *model, std::move(*tokenizer), *form};
}

/// Makes the run as long as the epochs ask for, unless its length was said.
void set_length(Options& options, std::uint64_t rows) {
  TrainerSettings& s = options.run.settings;
  if (options.steps_given || options.run.minutes > 0) return;
  const double steps = options.task.epochs * static_cast<double>(rows) / static_cast<double>(s.batch * s.accumulation);
  s.steps = std::max<std::int64_t>(1, std::llround(std::ceil(steps)));
}

template <class Source>
std::string described(const Source& source, const char* what) {
  const auto& n = source.counts();
  std::string text =
      grouped(n.used) + " " + what + ", " + grouped(n.tokens) + " tokens, " + grouped(n.targets) + " of them answers";
  if (n.cut > 0) text += ", " + grouped(n.cut) + " cut at the context's end";
  if (n.left_out > 0) text += ", " + grouped(n.left_out) + " without an answer before it left out";
  return text;
}

/// Gives the pupil adapters, which learn while the model stays as it is: the one that it was, where a run goes on.
Status adapt(const Cpu& cpu, Options& options, Pupil& pupil) {
  Task& task = options.task;
  auto saved =
      pupil.from ? Result<SavedModel>(*pupil.from) : SavedModel::open(task.base, all_models(), find_training_engine);
  if (!saved) return saved.error();
  auto base = saved->base(cpu, task.base_format);
  if (!base) return base.error();
  const std::uint32_t checksum = base->checksum();
  if (pupil.from)
    task.base = joined({options.from}), task.base_checksum = checksum;
  else if (task.base_checksum != checksum)
    return Error{"the adapters of " + options.out + " are for a base with the checksum " +
                 std::to_string(task.base_checksum) + ", and that of " + task.base + " is " + std::to_string(checksum)};
  const auto targets = named_targets(saved->model, task.targets);
  if (!targets) return targets.error();
  auto adapted = AdaptedModel::create(saved->model, base->tensors(), *targets, task.lora);
  if (!adapted) return adapted.error();
  pupil.base = std::move(*base), pupil.adapted = std::move(*adapted);
  return {};
}

/// What was learned, for PEFT and for llama.cpp, where it is adapters.
Status save_learned(const Options& options, const Pupil& pupil, const Trainer& trainer) {
  if (!pupil.adapted) return {};
  return save_adapter(options.out, pupil.model, pupil.adapted->base(), trainer.weights(), options.task.base);
}

/// Begins the run on these parts, with the model's weights where it is new. `wrap` makes its learner of the usual one.
template <class Wrap>
Result<Trainer> begin(const Cpu& cpu, Options& options, Pupil& pupil, TrainingParts parts, Wrap wrap) {
  RunOptions& run = options.run;
  if (options.task.adapts())
    if (Status status = adapt(cpu, options, pupil); !status) return status.error();
  const AnyModel& model = pupil.learner();
  auto optimizer = AdamW::create(cpu, model.tensors, model.arena_floats, run.settings.adamw);
  if (!optimizer) return optimizer.error();
  auto learner = Gradient::create(cpu, model, std::make_unique<AdamW>(std::move(*optimizer)), run.settings.clip);
  if (!learner) return learner.error();
  parts.learner = wrap(std::make_unique<Gradient>(std::move(*learner)));
  auto trainer = Trainer::create(cpu, model, std::move(parts), run.settings, options.out);
  if (!trainer) return trainer.error();
  if (pupil.from && !pupil.adapted)
    if (Status status = pupil.from->load(cpu, trainer->weights()); !status) return status.error();
  return trainer;
}

Result<Trainer> begin(const Cpu& cpu, Options& options, Pupil& pupil, TrainingParts parts) {
  return begin(cpu, options, pupil, std::move(parts), [](auto learner) { return learner; });
}

/// The run's folder with the tokenizer, and memory enough.
Status prepare(const Options& options, const Pupil& pupil) {
  const RunOptions& run = options.run;
  const std::size_t work = pupil.model.train_bytes(run.settings.batch, run.settings.context);
  auto floats = static_cast<std::int64_t>(pupil.model.arena_floats);
  if (options.task.adapts())  // of a base there is one copy, not four; in NF4 it takes an eighth
    floats /= options.task.base_format == BaseFormat::nf4 ? 30 : 4;
  if (Status status = check_memory(run.config, floats, static_cast<double>(work)); !status) return status;
  if (Status status = make_folder(options.out); !status) return status;
  return save_tokenizer(options.out, pupil.tokenizer);
}

Status sft(Options& options, Pupil& pupil) {
  TrainerSettings& s = options.run.settings;
  const auto records = read_data<MarkedTokens>(options, [&](const Json& json) -> Result<MarkedTokens> {
    const auto messages = conversation_of(json);
    if (!messages) return messages.error();
    return pupil.encode(*messages);
  });
  if (!records) return records.error();
  Conversations learned = Conversations::create(records->learned, s.context, WindowOrder::shuffled, s.seed);
  Conversations held = Conversations::create(records->held, s.context, WindowOrder::in_order);
  if (Status status = learned.validate(s.context, pupil.model.config->vocab); !status) return status;
  set_length(options, learned.rows(s.context));
  const std::string said =
      described(learned, "conversations") + "; " + described(held, "held out") + "; template " + options.task.form;
  const RunFolder folder(options.out, !options.resume);
  if (Status status = prepare(options, pupil); !status) return status;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  TrainingParts parts;
  parts.train = std::make_unique<Conversations>(std::move(learned));
  parts.validation = std::make_unique<Conversations>(std::move(held));
  auto trainer = begin(*cpu, options, pupil, std::move(parts));
  if (!trainer) return trainer.error();
  options.run.more = to_lines(options.task);
  if (Status status = run_training({"chimera-align sft", *cpu, *trainer, options, said, options.task.base}); !status)
    return status;
  return save_learned(options, pupil, *trainer);
}

/// Says how often the preferred answer is the likelier one, too.
class DpoRun : public RunHost {
 public:
  template <class... Rest>
  explicit DpoRun(Dpo& dpo, Rest&&... rest) : RunHost(std::forward<Rest>(rest)...), dpo_(dpo) {}

  void on_step(const StepReport& r) override {
    const DpoSeen seen = std::exchange(dpo_.seen, {});
    write(r.step, {{"accuracy", seen.accuracy()}, {"margin", seen.mean_margin()}, {"kl", seen.kl()}});
    RunHost::on_step(r);
  }
  void on_validation(const ValidationReport& r) override {
    const DpoSeen seen = std::exchange(dpo_.seen, {});
    write(r.step, {{"validation_accuracy", seen.accuracy()},
                   {"validation_margin", seen.mean_margin()},
                   {"validation_kl", seen.kl()}});
    RunHost::on_validation(r);
    if (r.targets > 0)
      say(formatted("step %lld: of %.0f pairs held out %.1f %% are the right way round; margin %.3f, KL %.4f",
                    static_cast<long long>(r.step), seen.pairs, 100 * seen.accuracy(), seen.mean_margin(), seen.kl()));
  }

 private:
  Dpo& dpo_;
};

/// The reference's log-probabilities: from the run's folder, or measured and put there.
Status refer(const Cpu& cpu, const Options& options, const Trainer& trainer, Preferences& pairs, const char* name) {
  if (pairs.counts().used == 0) return {};
  const std::string path = options.out + "/" + name + ".safetensors";
  if (options.resume) return pairs.load_reference(path, options.task.reference);
  std::fprintf(stderr, "measuring what the model says of %s pairs now\n", grouped(pairs.counts().used).c_str());
  const auto measured = pairs.measure_reference(cpu, trainer.model(), trainer.weights(), options.run.settings.batch);
  if (!measured) return measured.error();
  return pairs.save_reference(path, options.task.reference);
}

Status dpo(Options& options, Pupil& pupil) {
  TrainerSettings& s = options.run.settings;
  if (s.batch % 2 != 0)
    return Error{"expected an even --batch, two rows for each pair, found " + std::to_string(s.batch)};
  if (!(options.task.noise < 0.5)) return Error{"--noise must be below 0.5, found " + to_text(options.task.noise)};
  const auto records = read_data<MarkedPair>(options, [&](const Json& json) -> Result<MarkedPair> {
    auto preference = preference_of(json);
    if (!preference) return preference.error();
    std::vector<ChatMessage>& messages = preference->prompt;
    messages.push_back({"assistant", preference->chosen});
    MarkedPair pair{pupil.encode(messages), {}};
    messages.back().text = preference->rejected;
    pair.rejected = pupil.encode(messages);
    // What was said before the last answer is no target.
    std::size_t same = 0;
    const std::size_t end = std::min(pair.chosen.ids.size(), pair.rejected.ids.size());
    messages.pop_back();
    const std::size_t prompt = pupil.encode(messages).ids.size();
    while (same < std::min(prompt, end)) pair.chosen.said[same] = pair.rejected.said[same] = false, ++same;
    return pair;
  });
  if (!records) return records.error();
  auto learned =
      std::make_unique<Preferences>(Preferences::create(records->learned, s.context, WindowOrder::shuffled, s.seed));
  auto held = std::make_unique<Preferences>(Preferences::create(records->held, s.context, WindowOrder::in_order));
  if (Status status = learned->validate(s.context, pupil.model.config->vocab); !status) return status;
  set_length(options, learned->rows(s.context));
  const std::string said =
      described(*learned, "pairs") + "; " + described(*held, "held out") + "; template " + options.task.form;
  const RunFolder folder(options.out, !options.resume);
  if (Status status = prepare(options, pupil); !status) return status;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  Dpo objective{.loss = options.task.loss,
                .beta = options.task.beta,
                .noise = options.task.noise,
                .by_length = options.task.by_length};
  Preferences &learned_pairs = *learned, &held_pairs = *held;
  TrainingParts parts;
  parts.train = std::move(learned), parts.validation = std::move(held), parts.objective = objective.objective();
  auto trainer = begin(*cpu, options, pupil, std::move(parts));
  if (!trainer) return trainer.error();
  if (!options.resume)
    options.task.reference = pupil.adapted ? options.task.base_checksum
                                           : crc32c(trainer->weights(), pupil.model.arena_floats * sizeof(float));
  if (Status status = refer(*cpu, options, *trainer, learned_pairs, "reference"); !status) return status;
  if (Status status = refer(*cpu, options, *trainer, held_pairs, "reference_held_out"); !status) return status;
  options.run.more = to_lines(options.task);
  if (Status status =
          run_training<DpoRun>({"chimera-align dpo", *cpu, *trainer, options, said, options.task.base}, objective);
      !status)
    return status;
  return save_learned(options, pupil, *trainer);
}

/// A record as it is asked.
Result<Problem> problem_of(const Json& json, const Options& options, const Pupil& pupil) {
  const bool gsm8k = options.task.grpo.kind == GrpoTaskKind::gsm8k;
  Problem p;
  if (const auto prompt = json.string_at("prompt")) {
    p.messages = {{"user", *prompt}};
    for (const char* name : {"completion", "answer"})
      if (auto answer = json.string_at(name)) p.answer = std::move(*answer);
  } else {
    auto messages = conversation_of(json);
    if (!messages) return messages.error();
    p.answer = std::move(messages->back().text);
    messages->pop_back();
    p.messages = std::move(*messages);
  }
  if (gsm8k && !last_number(p.answer)) return Error{"the answer has no number"};
  const auto tokens = static_cast<std::int64_t>(encode(pupil.tokenizer, *pupil.form, p.messages, true).size());
  if (const std::int64_t room = options.run.settings.context; tokens >= room)
    return Error{"the prompt has " + std::to_string(tokens) + " tokens, and a row " + std::to_string(room)};
  return p;
}

/// What is asked in training, and what is held out.
struct Asked {
  std::unique_ptr<Environment> learned, held;
  std::int64_t held_problems;
  std::string said;
};

Result<Asked> ask(const Options& options, const Pupil& pupil) {
  const GrpoTask& task = options.task.grpo;
  if (task.kind == GrpoTaskKind::arithmetic) {
    if (Status status = task.arithmetic.validate(); !status) return status.error();
    return Asked{std::make_unique<Arithmetic>(task.arithmetic),
                 std::make_unique<Arithmetic>(task.arithmetic, Operands::held_out), task.held_out,
                 "endless arithmetic, " + grouped(task.held_out) + " problems held out"};
  }
  if (options.task.data.empty()) return Error{"no problems to learn from: name files with --data"};
  if (task.kind == GrpoTaskKind::prompts && task.command.empty())
    return Error{"nothing judges completions of these prompts: name a command with --reward"};
  auto records = read_data<Problem>(options, [&](const Json& json) { return problem_of(json, options, pupil); });
  if (!records) return records.error();
  if (records->learned.empty()) return Error{"there is no problem to learn from"};
  const std::string said = grouped(static_cast<std::int64_t>(records->learned.size())) + " problems; " +
                           grouped(static_cast<std::int64_t>(records->held.size())) + " held out";
  const auto held = static_cast<std::int64_t>(records->held.size());
  return Asked{std::make_unique<ListedProblems>(std::move(records->learned), true, options.run.settings.seed),
               std::make_unique<ListedProblems>(std::move(records->held), false, 0), held, said};
}

/// The weights that the run began with, to compare with.
Result<std::vector<float>> first_weights(const Cpu& cpu, const GrpoTask& task, const AnyModel& model) {
  const auto saved = SavedModel::open(task.model, all_models(), find_training_engine);
  if (!saved) return saved.error();
  std::vector<float> weights(model.arena_floats);
  if (saved->config() == *model.config)
    if (Status status = saved->load(cpu, weights.data()); !status) return status.error();
  if (crc32c(weights.data(), weights.size() * sizeof(float)) != task.began)
    return Error{task.model + " is not the model that the run began with, and --kl compares with that"};
  return weights;
}

Status grpo(Options& options, Pupil& pupil) {
  TrainerSettings& s = options.run.settings;
  GrpoTask& task = options.task.grpo;
  RolloutSettings& rollout = task.rollouts;
  if (rollout.group > 0 && s.batch * s.accumulation % rollout.group != 0)
    return Error{"a step has --batch times --accumulation completions, expected whole groups of " +
                 std::to_string(rollout.group) + ", found " + std::to_string(s.batch * s.accumulation)};
  auto asked = ask(options, pupil);
  if (!asked) return asked.error();
  JudgedByCommand *judge = nullptr, *held_judge = nullptr;
  if (!task.command.empty())
    for (auto& [environment, as] : {std::pair{&asked->learned, &judge}, std::pair{&asked->held, &held_judge}}) {
      auto judged = std::make_unique<JudgedByCommand>(std::move(*environment), task.command, task.command_seconds);
      *as = judged.get();
      *environment = std::move(judged);
    }
  if (const std::uint64_t problems = asked->learned->problems(); problems > 0)
    set_length(options, problems * static_cast<std::uint64_t>(rollout.group));
  const RunFolder folder(options.out, !options.resume);
  if (Status status = prepare(options, pupil); !status) return status;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  rollout.seed = s.seed, rollout.deviation = !task.raw_advantages;
  rollout.format = task.q8 ? Format::q8_0 : Format::f32;
  task.grpo.longest = rollout.completion;
  auto rollouts =
      Rollouts::create(*cpu, pupil.model, pupil.tokenizer, *pupil.form, *asked->learned, s.context, rollout);
  if (!rollouts) return rollouts.error();
  auto source = std::make_unique<Rollouts>(std::move(*rollouts));
  const GrpoUpdates* updates = nullptr;
  GrpoParts parts{source.get(), nullptr, &task.grpo, asked->held.get(), judge, held_judge, asked->held_problems};
  TrainingParts made;
  made.train = std::move(source), made.objective = task.grpo.objective();
  auto trainer = begin(*cpu, options, pupil, std::move(made), [&](std::unique_ptr<Learner> learner) {
    auto several = std::make_unique<GrpoUpdates>(task.grpo, std::move(learner), task.updates);
    updates = several.get();
    return several;
  });
  if (!trainer) return trainer.error();
  parts.updates = updates;
  if (!options.resume) {
    task.model = joined({options.from});
    task.began = crc32c(trainer->weights(), pupil.model.arena_floats * sizeof(float));
  }
  if (Status status = parts.rollouts->follow(trainer->weights()); !status) return status;
  std::vector<float> reference;
  if (task.grpo.kl > 0) {
    auto first = first_weights(*cpu, task, pupil.model);
    if (!first) return first.error();
    reference = std::move(*first);
    if (Status status = parts.rollouts->refer_to(reference.data(), s.batch); !status) return status;
  }
  options.run.more = to_lines(options.task);
  const std::string said = asked->said + "; template " + options.task.form;
  if (Status status = run_training<GrpoRun>({"chimera-align grpo", *cpu, *trainer, options, said}, parts); !status)
    return status;
  if (parts.last >= 0) std::printf("held-out reward %.4f\n", parts.last);
  return {};
}

Status teach(Options& options) {
  Task& task = options.task;
  if (options.from.empty() && !options.resume) return Error{"no model to teach: name one with --model"};
  if (!options.data.empty()) task.data = joined(options.data);
  if (!options.held_out.empty()) task.held_out = joined(options.held_out);
  if (task.data.empty() && task.method != "grpo") return Error{"no answers to learn from: name files with --data"};
  options.run.data = "answers";
  if (Status status = check_folder(("chimera-align " + task.method).c_str(), options); !status) return status;
  if (task.adapts() && options.sample_every > 0)
    return Error{"samples are written by models whose own weights learn: --sample-every does not go with --lora"};
  auto pupil = open_pupil(options);
  if (!pupil) return pupil.error();
  if (Status status = options.run.settings.validate(); !status) return status;
  if (task.method == "grpo") return grpo(options, *pupil);
  return task.method == "sft" ? sft(options, *pupil) : dpo(options, *pupil);
}

/// Gentler than for a model that knows nothing.
void set_usual(Options& options) {
  TrainerSettings& s = options.run.settings;
  const bool sft = options.task.method == "sft";
  s.learning_rate = sft ? 1e-4 : 5e-6, s.context = 512, s.adamw.weight_decay = 0, s.validation_tokens = 0;
  options.run.validation_fraction = 0.05;
  if (options.task.method != "grpo") return;
  s.learning_rate = 1e-5, s.context = 256, s.batch = 8, s.accumulation = 4, s.steps = 200;
  s.validation_interval = s.checkpoint_interval = 50, s.spike_factor = 0;
}

int program(int argc, char** argv) {
  const auto fail = [](const Error& error) { return ::fail("chimera-align", error); };
  Options first;
  first.task.method = argc > 1 ? argv[1] : "";
  set_usual(first);
  if (const auto code = parse_flags(argc, argv, first)) return *code;
  if (first.task.method == "arithmetic") {
    const ArithmeticSettings& settings = first.task.grpo.arithmetic;
    if (Status status = settings.validate(); !status) return fail(status.error());
    write_arithmetic(settings, first.held_out_operands ? Operands::held_out : Operands::learned, first.count);
    return success;
  }
  Options options;
  options.task.method = first.task.method;
  set_usual(options);
  if (first.resume) {
    const auto base = RunOptions::load(first.out);
    if (!base) return fail(base.error());
    options.run = *base;
    const auto file = MappedFile::open(RunOptions::path(first.out));
    if (!file) return fail(file.error());
    options.task.method.clear();
    if (Status status = from_lines(file->text(), options.task); !status) return fail(status.error());
    if (options.task.method != first.task.method)
      return fail({first.out + " holds a run of " +
                   (options.task.method.empty() ? "chimera-train" : "chimera-align " + options.task.method) +
                   ": continue it with that"});
  }
  // The flags once more, over what is usual for the command, or what the folder says.
  if (const auto code = parse_flags(argc, argv, options)) return *code;
  const Status status = teach(options);
  return status ? success : fail(status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-align", [&] { return program(argc, argv); });
}
