// chimera-train: trains a model on a text file or on token shards.
#include "config_words.hpp"
#include "engine.hpp"
#include "noted_tokenizer.hpp"
#include "program.hpp"
#include "recipes.hpp"
#include "registry.hpp"
#include "run_folder.hpp"
#include "shell_word.hpp"
#include "training_run.hpp"

#include <chimera/config/longer_context.hpp>
#include <chimera/core/device.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/saved_model.hpp>
#include <chimera/train/corpus.hpp>
#include <chimera/train/rope_search.hpp>
#include <chimera/train/trainer.hpp>

#include <algorithm>
#include <cstdlib>

using namespace chimera;

namespace {

struct Options : TrainingOptions {
  std::vector<std::string> shape;  // words of --config
  std::string recipe, tokenizer, from;
  float factor = 0;  // by which the context of `from` grows; 0: it does not
  RopeScaling rope = RopeScaling::none;
  RopeSearchSettings search;
  bool context_given = false;
  int threads = 0;
  int code = failure;  // of a failure
};

/// The flags given, over what `options` holds. A value if the program should end at once.
std::optional<int> parse_flags(int argc, char** argv, Options& options) {
  Flags app{"Trains a language model on text.", "chimera-train"};
  RunOptions& run = options.run;
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
  CLI::Option* factor = app.add_option("--factor", options.factor,
                                       "go on with a context so many times as long as the one that --from learned with")
                            ->default_str("")
                            ->needs(from);
  add_choice(app, "--rope", options.rope,
             {{"none", RopeScaling::none},
              {"linear", RopeScaling::linear},
              {"ntk", RopeScaling::ntk},
              {"yarn", RopeScaling::yarn},
              {"longrope", RopeScaling::longrope}},
             "how --factor scales rotary positions")
      ->needs(factor);
  app.add_option("--rope-rounds", options.search.rounds, "of the search for LongRoPE's factors (--rope longrope)")
      ->needs(factor);
  app.add_option("--rope-population", options.search.population, "factors that are tried in each round")->needs(factor);
  app.add_option("--rope-texts", options.search.texts, "rows of the data that each is tried on")->needs(factor);
  app.add_option("--rope-kept", options.search.most_kept,
                 "first positions that may stay unscaled, at most; llama.cpp and transformers have no such models")
      ->needs(factor);
  app.add_flag("--resume", options.resume, "go on with the run in that folder; flags given change its settings")
      ->excludes(tokenizer)
      ->excludes(from);
  app.add_option("--recipe", options.recipe, "a ready-made run; flags given change its settings: shakespeare")
      ->type_name("NAME")
      ->default_str("");
  add_threads_option(app, options.threads);
  add_choice(app, "--sampling", run.settings.order,
             {{"random", WindowOrder::random}, {"shuffled", WindowOrder::shuffled}}, "where sequences start");
  const CLI::Option* steps = add_training_flags(app, options);
  const auto code = parse(app, argc, argv);
  if (!code && steps->count() > 0) run.minutes = 0;
  options.context_given = app.get_option("--context")->count() > 0;
  return code;
}

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

/// The config that --factor makes of the model to begin with, and the rows that it learns with unless they were given.
Result<Config> lengthened(Options& options, const SavedModel& from) {
  const Config& old = from.config();
  std::int64_t learned = old.context;
  if (from.header) learned = std::min(learned, from.header->settings.context);
  if (Status s = options.search.validate(); !s) return s.error();
  auto longer = longer_context(old, options.rope, options.factor, static_cast<int>(learned));
  if (!longer) return longer.error();
  std::int64_t& context = options.run.settings.context;
  if (!options.context_given) context = longer->context;
  if (context > longer->context)
    return Error{"--context must be at most the longer context of " + grouped(longer->context) + " tokens, found " +
                 grouped(context) + ": give a larger --factor"};
  const std::string scaling(Choices<RopeScaling>::values[static_cast<std::size_t>(options.rope)]);
  std::fprintf(stderr, "context: %s tokens, %s times those that it learned with%s\n", grouped(longer->context).c_str(),
               to_text(options.factor).c_str(),
               options.rope == RopeScaling::none ? "; positions as they were"
                                                 : ("; rotary positions scaled by " + scaling).c_str());
  const std::int64_t window = old.attention.window;
  if (options.rope != RopeScaling::none && window > 0 && window <= learned)
    std::fprintf(
        stderr,
        "note: its attention sees %s tokens at most, no further than it learned: --rope none would leave their "
        "distances as they are\n",
        grouped(window).c_str());
  options.run.config = std::string(from.model.name) + ", context x " + to_text(options.factor) + ", rope " + scaling;
  return longer;
}

/// The model of a config: a preset, or an engine that is compiled for it.
Result<AnyModel> model_of(const RunOptions& run) {
  if (const AnyModel* preset = find_preset(run.model)) return *preset;
  if (Status s = check_memory(run.config, parameter_count(run.model), 0); !s) return s.error();
  return find_training_engine(run.model);
}

/// The model to train: a preset, or an engine that is compiled for it. An error that is the user's sets options.code.
Result<AnyModel> choose_model(Options& options, const Beginning& b) {
  RunOptions& run = options.run;
  if (b.from && options.factor != 0) {
    const auto longer = lengthened(options, *b.from);
    options.code = wrong_usage;
    if (!longer) return longer.error();
    options.code = failure;
    run.model = *longer;
    // The search for factors needs no more; the model that learns has what it finds in its config.
    return options.rope == RopeScaling::longrope ? find_engine(*longer) : model_of(run);
  }
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
  return model_of(run);
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

/// Tells how far the search for factors is.
struct SearchHost : RopeSearchHost {
  int rounds;
  explicit SearchHost(int all) : rounds(all) {}
  void on_round(const RopeSearch& s) override {
    std::fprintf(stderr, "search %d/%d: loss %.4f; linear %.4f, NTK %.4f, YaRN %.4f\n", s.rounds, rounds, s.best.loss,
                 s.linear.loss, s.ntk.loss, s.yarn.loss);
  }
  bool should_stop() override { return stop_asked != 0; }
};

/// Puts factors that suit the weights and the data into the run's config, and has the model of it.
Status search_factors(Options& options, const Cpu& cpu, const SavedModel& from, const TokenRange& data,
                      AnyModel& model) {
  RunOptions& run = options.run;
  const auto weights = from.weights(cpu);
  if (!weights) return weights.error();
  options.search.context = run.settings.context, options.search.seed = run.settings.seed;
  Windows texts(data, WindowOrder::shuffled, run.settings.seed);
  SearchHost host(options.search.rounds);
  catch_signals();
  const auto found = search_rope(cpu, model, weights->data(), texts, options.search, host);
  if (!found) return found.error();
  if (found->stopped) return Error{"stopped in the search for factors: nothing is kept"};
  run.model = found->applied(run.model);
  const auto learner = model_of(run);
  if (!learner) return learner.error();
  model = *learner;
  return {};
}

Status train(Options& options) {
  RunOptions& run = options.run;
  if (run.data.empty()) return Error{"no data to train on: name a text file with --data"};
  if (Status s = check_folder("chimera-train", options); !s) return s;
  if (Status s = run.settings.validate(); !s) return s;
  const auto beginning = begin(options);
  if (!beginning) return beginning.error();
  const auto& from = beginning->from;
  auto model = choose_model(options, *beginning);
  if (!model) return model.error();
  const RunFolder folder(options.out, !options.resume);
  if (const auto& tokenizer = beginning->tokenizer) {
    if (Status s = make_folder(options.out); !s) return s;
    if (Status s = save_tokenizer(options.out, *tokenizer); !s) return s;
  }
  auto data = open_data(options, model->config->vocab);
  if (!data) return data.error();
  if (char* whole = ::realpath(run.data.c_str(), nullptr)) run.data = whole, std::free(whole);
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  const Split parts = split(*data, run.validation_fraction);
  if (from && options.factor != 0 && options.rope == RopeScaling::longrope)
    if (Status s = search_factors(options, *cpu, *from, parts.train, *model); !s) return s;
  if (Status s = check_memory(run, *model); !s) return s;
  auto trainer = Trainer::create(*cpu, *model, parts, run.settings, options.out);
  if (!trainer) return trainer.error();
  if (from)
    if (Status s = from->load(*cpu, trainer->weights()); !s) return s;
  const std::string data_said = run.data + ": " + grouped(data->tokens()) + " tokens";
  return run_training({"chimera-train", *cpu, *trainer, options, data_said});
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
