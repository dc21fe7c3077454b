// chimera-align: teaches a trained model to answer, by conversations (sft).
#include "engine.hpp"
#include "noted_tokenizer.hpp"
#include "registry.hpp"
#include "run_folder.hpp"
#include "training_run.hpp"
#include "unzipped.hpp"

#include <chimera/align/chat_data.hpp>
#include <chimera/align/conversations.hpp>
#include <chimera/exchange/saved_model.hpp>

#include <cmath>
#include <memory>
#include <optional>

using namespace chimera;

namespace {

/// What this program is told and others are not; a run's folder has it, too.
struct Task {
  std::string form;      // a chat template's name
  std::string data;      // files, a tab between them
  std::string held_out;  // likewise
  double epochs = 1;
  bool strict = false;

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("template", s.form), f("conversations", s.data), f("held_out", s.held_out), f("epochs", s.epochs);
    f("strict", s.strict);
  }
};

struct Options : TrainingOptions {
  Task task;
  std::vector<std::string> data, held_out;
  std::string from;
  int threads = 0;
  bool steps_given = false;
};

/// The flags given, over what `options` holds. A value if the program should end at once.
std::optional<int> parse_flags(int argc, char** argv, Options& options) {
  Flags app{"Teaches a trained model to answer.", "chimera-align"};
  app.end_help("chimera-align sft --model runs/first --data talk.jsonl --out runs/talk --epochs 3");
  app.require_subcommand(1);
  CLI::App* sft = app.add_subcommand("sft", "learn answers from conversations (supervised fine-tuning)");
  sft->fallthrough()->group("Commands");
  CLI::Option* from = sft->add_option("-m,--from,--model", options.from,
                                      "the model to begin with: a run, a GGUF file, a Hugging Face folder");
  from->type_name("PATH")->default_str("");
  sft->add_option("-f,--data", options.data,
                  "conversations, JSON Lines or an array, plain or compressed by gzip: messages, ShareGPT, prompt and "
                  "completion, or Alpaca")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->take_all()
      ->type_name("FILE ...")
      ->default_str("");
  sft->add_option("--held-out", options.held_out,
                  "conversations to validate with; without them, the last of --data, as --validation-fraction says")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->take_all()
      ->type_name("FILE ...")
      ->default_str("");
  sft->add_option("--out", options.out, "the run's folder")->type_name("PATH")->default_str("")->required();
  sft->add_flag("--resume", options.resume, "go on with the run in that folder; flags given change its settings")
      ->excludes(from);
  sft->add_option("--template", options.task.form,
                  "how conversations are written: chatml, llama3, granite, plain, text; without it as the model's "
                  "tokenizer says, or else chatml where it can be, or plain")
      ->type_name("NAME")
      ->default_str("");
  sft->add_flag("--strict", options.task.strict, "end at the first record that cannot be used; else they are counted");
  add_threads_option(*sft, options.threads);
  CLI::Option* epochs =
      sft->add_option("--epochs", options.task.epochs, "how often everything is read; not with --steps")
          ->check(positive());
  const CLI::Option* steps = add_training_flags(*sft, options);
  const auto code = parse(app, argc, argv);
  if (!code && steps->count() > 0) options.run.minutes = 0;
  options.steps_given = steps->count() > 0 || (options.resume && epochs->count() == 0);
  return code;
}

/// What trains models of that config: a preset, or an engine that is compiled for it.
Result<AnyModel> model_of(const Config& config) {
  for (const AnyModel& model : all_models())
    if (*model.config == config) return model;
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

/// The conversations of some files as tokens. A record that cannot be used is counted, and the first is told; or it is
/// an error.
Result<std::vector<MarkedTokens>> read_conversations(const std::string& files, const Tokenizer& tokenizer,
                                                     const ChatTemplate& t, bool strict) {
  std::vector<MarkedTokens> all;
  std::int64_t unusable = 0;
  std::string first;
  for (std::string_view rest = files; !rest.empty();) {
    const std::string path(rest.substr(0, rest.find('\t')));
    rest.remove_prefix(std::min(rest.size(), path.size() + 1));
    const auto text = read_unzipped(path);
    if (!text) return text.error();
    each_record(*text, [&](std::int64_t number, const Result<Json>& record) {
      if (strict && unusable > 0) return;
      const auto messages = record ? conversation_of(*record) : Result<std::vector<ChatMessage>>(record.error());
      if (!messages) {
        if (unusable++ == 0) first = path + ", record " + std::to_string(number) + ": " + messages.error().message;
        return;
      }
      MarkedTokens tokens = encode_answers(tokenizer, t, *messages);
      if (const Vocabulary& v = tokenizer.vocabulary(); v.add_bos && v.bos >= 0)
        tokens.ids.insert(tokens.ids.begin(), v.bos), tokens.said.insert(tokens.said.begin(), false);
      all.push_back(std::move(tokens));
    });
    if (strict && unusable > 0) return Error{first};
  }
  if (unusable > 0)
    std::fprintf(stderr, "note: %s of %s records cannot be used; the first: %s\n", grouped(unusable).c_str(),
                 grouped(unusable + static_cast<std::int64_t>(all.size())).c_str(), first.c_str());
  return all;
}

std::string described(const Conversations& c, const char* what) {
  const Conversations::Counts& n = c.counts();
  std::string text =
      grouped(n.used) + " " + what + ", " + grouped(n.tokens) + " tokens, " + grouped(n.targets) + " of them answers";
  if (n.cut > 0) text += ", " + grouped(n.cut) + " cut at the context's end";
  if (n.left_out > 0) text += ", " + grouped(n.left_out) + " longer ones without an answer before it left out";
  return text;
}

Status sft(Options& options) {
  RunOptions& run = options.run;
  TrainerSettings& s = run.settings;
  if (options.from.empty() && !options.resume) return Error{"no model to teach: name one with --model"};
  if (!options.data.empty()) options.task.data = joined(options.data);
  if (!options.held_out.empty()) options.task.held_out = joined(options.held_out);
  if (options.task.data.empty()) return Error{"no conversations to learn from: name files with --data"};
  if (Status status = check_folder("chimera-align", options); !status) return status;

  std::optional<SavedModel> from;
  if (!options.resume) {
    auto saved = SavedModel::open(options.from, all_models(), find_training_engine);
    if (!saved) return saved.error();
    from = std::move(*saved);
    run.config = from->model.name, run.model = from->config();
    s.context = std::min<std::int64_t>(s.context, run.model.context);
  }
  const auto model = from ? Result<AnyModel>(from->model) : model_of(run.model);
  if (!model) return model.error();
  if (Status status = s.validate(); !status) return status;
  const auto given = noted(from ? from->tokenizer() : tokenizer_of(options.out, run.model.vocab));
  if (!given) return given.error();
  const auto form = choose_template(options.task.form, *given);
  if (!form) return form.error();
  options.task.form = (*form)->name;
  const auto tokenizer = with_template(*given, **form);
  if (!tokenizer) return tokenizer.error();

  auto told = read_conversations(options.task.data, *tokenizer, **form, options.task.strict);
  if (!told) return told.error();
  auto kept = read_conversations(options.task.held_out, *tokenizer, **form, options.task.strict);
  if (!kept) return kept.error();
  if (options.task.held_out.empty()) {
    const double count = static_cast<double>(told->size());
    const auto first = static_cast<std::ptrdiff_t>(count - std::floor(count * run.validation_fraction));
    kept->assign(told->begin() + first, told->end());
    told->resize(static_cast<std::size_t>(first));
  }
  Conversations learned = Conversations::create(*told, s.context, WindowOrder::shuffled, s.seed);
  Conversations held = Conversations::create(*kept, s.context, WindowOrder::in_order);
  if (Status status = learned.validate(s.context, run.model.vocab); !status) return status;
  if (!options.steps_given && run.minutes == 0)
    s.steps = std::max<std::int64_t>(
        1, std::llround(std::ceil(options.task.epochs * static_cast<double>(learned.rows(s.context)) /
                                  static_cast<double>(s.batch * s.accumulation))));

  const RunFolder folder(options.out, !options.resume);
  if (Status status = make_folder(options.out); !status) return status;
  if (Status status = save_tokenizer(options.out, *tokenizer); !status) return status;
  if (Status status = check_memory(run, *model); !status) return status;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  auto optimizer = AdamW::create(*cpu, model->tensors, model->arena_floats, s.adamw);
  if (!optimizer) return optimizer.error();
  auto learner = Gradient::create(*cpu, *model, std::make_unique<AdamW>(std::move(*optimizer)), s.clip);
  if (!learner) return learner.error();
  const std::string said =
      described(learned, "conversations") + "; " + described(held, "held out") + "; template " + options.task.form;
  TrainingParts parts;
  parts.train = std::make_unique<Conversations>(std::move(learned));
  parts.validation = std::make_unique<Conversations>(std::move(held));
  parts.learner = std::make_unique<Gradient>(std::move(*learner));
  auto trainer = Trainer::create(*cpu, *model, std::move(parts), s, options.out);
  if (!trainer) return trainer.error();
  if (from)
    if (Status status = from->load(*cpu, trainer->weights()); !status) return status;
  run.data = "conversations", run.more = to_lines(options.task);
  return run_training({"chimera-align sft", *cpu, *trainer, options, said});
}

int program(int argc, char** argv) {
  const auto fail = [](const Error& error) { return ::fail("chimera-align", error); };
  Options options;
  // Gentler than for a model that knows nothing.
  options.run.settings.learning_rate = 1e-4, options.run.settings.context = 512;
  options.run.settings.adamw.weight_decay = 0, options.run.settings.validation_tokens = 0;
  options.run.validation_fraction = 0.05;
  if (const auto code = parse_flags(argc, argv, options)) return *code;
  if (options.resume) {  // the flags once more, over what the folder says
    const auto base = RunOptions::load(options.out);
    if (!base) return fail(base.error());
    options.run = *base;
    const auto file = MappedFile::open(RunOptions::path(options.out));
    if (!file) return fail(file.error());
    if (Status status = from_lines(file->text(), options.task); !status) return fail(status.error());
    if (options.task.form.empty()) return fail({options.out + " holds a run of chimera-train: continue it with that"});
    if (const auto code = parse_flags(argc, argv, options)) return *code;
  }
  const Status status = sft(options);
  return status ? success : fail(status.error());
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-align", [&] { return program(argc, argv); });
}
