// chimera-info: what a model is made of, what it costs, and what a checkpoint holds. Allocates no model.
#include "model_option.hpp"
#include "numbers.hpp"
#include "program.hpp"

#include <chimera/generate/session.hpp>
#include <chimera/optim/adamw.hpp>
#include <chimera/train/trainer.hpp>

#include <algorithm>
#include <vector>

using namespace chimera;

namespace {

struct Options {
  std::string config, model;
  std::int64_t batch = 8, context = 0;
  bool list = false, tensors = false;
};

void row(std::string_view name, const std::string& value) {
  std::printf("  %-24.*s %s\n", static_cast<int>(name.size()), name.data(), value.c_str());
}

/// "M M M A, repeated" for a pattern that repeats, "A A 5M A" for one that does not.
std::string pattern_text(const Layers& layers) {
  int period = 1;
  const auto repeats = [&] {
    for (int i = period; i < layers.count; ++i)
      if (layers[i] != layers[i - period]) return false;
    return true;
  };
  while (!repeats()) ++period;
  const bool repeated = 2 * period <= layers.count, whole = repeated || layers.count <= 8;
  std::string text;
  for (int i = 0, run = 1; i < (repeated ? period : layers.count); i += run, run = 1) {
    while (!whole && i + run < layers.count && layers[i + run] == layers[i]) ++run;
    text.append(i ? " " : "").append(run > 1 ? std::to_string(run) : "").append(layers.name(layers[i]));
  }
  return text + (repeated ? ", repeated" : "");
}

/// "5.8 MFLOP"
std::string operations(double n) {
  return n < 1e9 ? formatted("%.1f MFLOP", n * 1e-6) : formatted("%.1f GFLOP", n * 1e-9);
}

void print_list() {
  std::printf("%-16s %9s %7s %7s %9s  %s\n", "name", "weights", "width", "layers", "context", "pattern");
  for (const AnyModel& m : all_models())
    std::printf("%-16.*s %9s %7d %7d %9s  %s\n", static_cast<int>(m.name.size()), m.name.data(),
                rounded(static_cast<double>(m.parameters)).c_str(), m.config->width, m.config->layers.count,
                grouped(m.config->context).c_str(), pattern_text(m.config->layers).c_str());
}

void print_config(const AnyModel& model) {
  const Config& c = *model.config;
  std::printf("%.*s: %s weights\n\nconfig\n", static_cast<int>(model.name.size()), model.name.data(),
              grouped(model.parameters).c_str());
  row("layers", std::to_string(c.layers.count) + ": " + pattern_text(c.layers));
  row("vocab", grouped(c.vocab) + (c.tied ? ", output tied to the embedding" : ""));
  row("width", grouped(c.width));
  row("context", grouped(c.context));
  each_used_mixer(c, [&](std::string_view name, const auto& part) { row(name, part_words(c, part)); });
  row("ffn", part_words(c, c.ffn));
  if (c.loop.on()) row("loop", part_words(c, c.loop));
  row("dropout", formatted("%g", static_cast<double>(c.dropout)));
  row("checkpointing", c.checkpointing ? "yes: block inputs are kept, the rest is computed again" : "no");
}

/// The block a tensor belongs to, and its name there: "blk.3.ssm_in.weight" is {3, "ssm_in.weight"}.
std::pair<int, std::string_view> place(std::string_view name) {
  constexpr std::string_view before = "blk.";
  if (!name.starts_with(before)) return {-1, name};
  const std::size_t dot = name.find('.', before.size());
  int block = -1;
  from_text(name.substr(before.size(), dot - before.size()), block);
  return {block, name.substr(dot + 1)};
}

/// Which part of the model a tensor's weights count to.
std::string_view part_of(const Config& config, std::string_view name) {
  const auto [block, rest] = place(name);
  if (rest == "attn_norm.weight" || rest == "ffn_norm.weight" || rest == "output_norm.weight") return "norms";
  if (block < 0) return "embedding and output";
  if (rest.starts_with("ffn_")) return "ffn";
  std::string_view part = "other";
  each_mixer(config, [&](std::string_view mixer, const auto& numbers) {
    if (numbers.kind == config.layers[block]) part = mixer;
  });
  return part;
}

/// Tensors of equal name and shape in several blocks are one line, unless `all` are asked for.
void print_tensors(const AnyModel& model, bool all) {
  struct Line {
    std::string name;
    std::int64_t rows, cols, count;
  };
  std::vector<Line> lines;
  for (const NamedTensor& t : model.tensors) {
    const auto [block, rest] = place(t.name());
    const std::string name = all || block < 0 ? std::string(t.name()) : "blk.*." + std::string(rest);
    const auto same = std::find_if(lines.begin(), lines.end(), [&](const Line& l) {
      return l.name == name && l.rows == t.rows && l.cols == t.cols;
    });
    if (same == lines.end())
      lines.push_back({name, t.rows, t.cols, 1});
    else
      ++same->count;
  }
  std::printf("\nweights\n  %-28s %16s %8s %16s\n", "name", "rows x columns", "tensors", "weights");
  for (const Line& l : lines)
    std::printf("  %-28s %16s %8s %16s\n", l.name.c_str(), (grouped(l.rows) + " x " + grouped(l.cols)).c_str(),
                grouped(l.count).c_str(), grouped(l.rows * l.cols * l.count).c_str());

  struct Part {
    std::string_view name;
    std::int64_t weights = 0;
  };
  std::vector<Part> parts;
  for (const NamedTensor& t : model.tensors) {
    const std::string_view name = part_of(*model.config, t.name());
    auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.name == name; });
    if (part == parts.end()) part = parts.insert(parts.end(), Part{name});
    part->weights += t.size();
  }
  std::printf("\nparts\n");
  for (const Part& p : parts)
    row(p.name, formatted("%16s  %4.1f %%", grouped(p.weights).c_str(),
                          100 * static_cast<double>(p.weights) / static_cast<double>(model.parameters)));
  row("all", formatted("%16s", grouped(model.parameters).c_str()));
}

void print_costs(const AnyModel& model, std::int64_t batch, std::int64_t context, std::int64_t session) {
  const auto bytes = [](std::size_t n) { return size_text(static_cast<double>(n)); };
  const std::size_t weights = sizeof(float) * model.arena_floats;
  if (model.trains()) {
    const std::size_t training = model.train_bytes(batch, context);
    std::printf("\nmemory of training, batch %s x %s\n", grouped(batch).c_str(), grouped(context).c_str());
    row("weights", bytes(weights));
    row("gradients", bytes(weights));
    row("moments", bytes(2 * weights));
    row("activations", bytes(training));
    row("all", bytes(4 * weights + training));
  }
  std::printf("\nmemory of validation\n");
  row("weights", bytes(weights));
  row("activations", bytes(model.loss_bytes(batch, context)));
  std::printf("\nmemory of decoding, a session of %s tokens\n", grouped(session).c_str());
  row("weights", bytes(weights));
  for (const auto& [format, name] : {std::pair(KvFormat::f16, "state, keys and values f16"),
                                     std::pair(KvFormat::q8_0, "state, keys and values q8_0")})
    row(name, bytes(model.state_bytes(format, session)));
  row("work", bytes(model.decode_bytes(SessionSettings{}.piece)));

  const double flops = model.flops(context);
  std::printf("\noperations for each token, context %s\n", grouped(context).c_str());
  row("training", operations(3 * flops));
  row("forward", operations(flops));
}

void print_checkpoint(const SavedModel& saved) {
  const Progress& p = saved.header->progress;
  std::printf("%s\n\nrun\n", saved.path.c_str());
  row("step", grouped(p.step) + " of " + grouped(saved.header->settings.steps));
  row("tokens", grouped(p.tokens));
  row("skipped updates", grouped(p.skipped));
  row("training loss", formatted("%.4f", p.loss_mean));
  if (p.validation_step > 0)
    row("validation loss", formatted("%.4f after step ", p.validation_loss) + grouped(p.validation_step));
  row("time", duration(p.seconds));
  std::printf("\nsettings\n");
  TrainerSettings::each_field(saved.header->settings,
                              [](std::string_view name, const auto& value) { row(name, to_text(value)); });
  std::printf("\n");
}

Result<void> info(const Options& options) {
  if (options.list) return print_list(), Result<void>{};
  AnyModel model;
  if (!options.model.empty()) {
    const auto saved = open_model(options.model);
    if (!saved) return saved.error();
    if (saved->form == SavedModel::Form::checkpoint) {
      const auto file = Checkpoint::open(saved->path);
      if (!file) return file.error();
      if (Result<void> s = file->validate(); !s) return s;
      print_checkpoint(*saved);
    }
    model = saved->model;
  } else {
    const auto found = find_model(options.config);
    if (!found) return found.error();
    model = *found;
  }
  TrainerSettings settings{
      .batch = options.batch,
      .context = std::min<std::int64_t>(options.context > 0 ? options.context : 256, model.config->context)};
  if (Result<void> s = settings.validate(); !s) return s;
  print_config(model);
  print_tensors(model, options.tensors);
  const std::int64_t session = options.context > 0 ? settings.context : model.config->context;
  print_costs(model, settings.batch, settings.context, session);
  return {};
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Says what a model is made of and what it costs.", "chimera-info"};
  app.end_help("chimera-info -m model.gguf -c 4096", engine_help);
  auto* config =
      app.add_option("--config", options.config, "a preset, by its name")->type_name("NAME")->default_str("");
  auto* model = app.add_option("MODEL,-m,--model", options.model, model_help)->type_name("PATH")->default_str("");
  auto* list = app.add_flag("--list", options.list, "the names of all presets");
  config->excludes(model), list->excludes(config), list->excludes(model);
  app.callback([&] {
    if (!options.list && options.config.empty() && options.model.empty())
      throw CLI::RequiredError("--model, --config or --list");
  });
  app.add_option("-b,--batch", options.batch, "sequences of a training batch")->check(at_least(1));
  app.add_option("-c,--ctx-size,--context", options.context,
                 "tokens of a sequence; 0: 256 in training, and as many as the model was made for in a session")
      ->check(non_negative());
  app.add_flag("--tensors", options.tensors, "list the tensors of each block");
  return run(app, argc, argv, [&] { return info(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-info", [&] { return program(argc, argv); });
}
