// chimera-convert: the same model in another form: a checkpoint, a GGUF file, a Hugging Face folder.
#include "adapter_option.hpp"
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "replacing.hpp"
#include "run_options.hpp"

#include <chimera/exchange/model_card.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/text/chat_template.hpp>

using namespace chimera;

namespace {

struct Options {
  std::string in, out, format = "f32", name;
  int threads = 0;
  bool force = false, chat = false;
  std::vector<std::string> merged;
};

/// The last part of a path, without an ending slash.
std::string name_of(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path.substr(path.rfind('/') + 1);
}

/// What goes from one form to the other.
struct Whole {
  const SavedModel& saved;
  const Cpu& cpu;
  Buffer weights;
  Tokenizer tokenizer;

  const AnyModel& model() const { return saved.model; }
};

/// What a card says of this model, whatever the form it is written in.
CardFacts facts_of(const Whole& whole, const Options& options) {
  const SavedModel& saved = whole.saved;
  CardFacts facts;
  facts.name = options.name;
  const Vocabulary& v = whole.tokenizer.vocabulary();
  facts.tokenizer = is_bytes(whole.tokenizer) ? "bytes"
                                              : "byte-pair encoding, " + std::to_string(whole.tokenizer.size()) +
                                                    " tokens, text split as " + std::string(rules(v.pretokenizer).name);
  if (saved.header && saved.header->progress.step > 0) {
    const Progress& p = saved.header->progress;
    facts.run = CardRun{.data = {},
                        .updates = p.updates,
                        .tokens = p.tokens,
                        .loss_mean = p.loss_mean,
                        .validation_loss = p.validation_loss,
                        .validation_step = p.validation_step,
                        .seconds = p.seconds,
                        .settings = to_lines(saved.header->settings)};
  }
  if (!facts.run) facts.source = name_of(saved.path);
  if (facts.run && saved.form == SavedModel::Form::checkpoint)
    if (const auto run = RunOptions::load(folder_of(saved.path))) facts.run->data = name_of(run->data);
  return facts;
}

Result<void> to_gguf(const Whole& whole, const Options& options, const FileType& type) {
  const AnyModel& model = whole.model();
  if (const std::string why = unknown_to_llama_cpp(*model.config); !why.empty())
    std::fprintf(stderr, "note: llama.cpp cannot run this model, chimera can: %s\n", why.c_str());
  if (whole.tokenizer.vocabulary().nfc)
    std::fprintf(stderr,
                 "note: the tokenizer brings text to Unicode's form C, which a GGUF file cannot say: letters and "
                 "marks that are written apart get other ids there\n");
  if (whole.tokenizer.vocabulary().ends.size() > 2)
    std::fprintf(stderr, "note: of the tokens that end a text a GGUF file has room for three\n");
  const auto words = [&](GgufWriter& file) { set_tokenizer(file, whole.tokenizer, model.config->vocab); };
  if (Result<void> s = save_gguf(whole.cpu, options.out, model, whole.weights.data(), type, options.name, words); !s)
    return s;
  if (!is_file(options.out)) return {};  // a device or a pipe, which has nothing beside it
  CardFacts facts = facts_of(whole, options);
  facts.file = name_of(options.out);
  facts.architecture = gguf_architecture(*model.config);
  facts.format = type.name;
  facts.llama_cpp = facts.architecture != "chimera";
  return write_text(options.out + ".md", model_card(model, facts));
}

Result<void> to_hugging_face(const Whole& whole, const Options& options, Format format) {
  const AnyModel& model = whole.model();
  const SpecialIds ids = SpecialIds::of(whole.tokenizer.vocabulary());
  if (Result<void> s = save_hugging_face(whole.cpu, options.out, model, whole.weights.data(), format, ids); !s)
    return s;
  CardFacts facts = facts_of(whole, options);
  facts.architecture = hugging_face_architecture(*model.config);
  facts.format = format_info(format)->name;
  facts.transformers = true;
  if (Result<void> s = save_tokenizer(options.out, whole.tokenizer); !s) return s;
  return write_text(options.out + "/README.md", model_card(model, facts));
}

/// The moments of training begin anew. A tokenizer that is not bytes lies beside the checkpoint.
Result<void> to_checkpoint(Whole& whole, const Options& options) {
  const CheckpointHeader header = whole.saved.header.value_or(CheckpointHeader{});
  if (Result<void> s = make_folder(folder_of(options.out)); !s) return s;
  if (!is_bytes(whole.tokenizer))
    if (Result<void> s = save_tokenizer(folder_of(options.out), whole.tokenizer); !s) return s;
  auto optimizer = AdamW::create(whole.cpu, whole.model().tensors, whole.model().arena_floats, header.settings.adamw);
  if (!optimizer) return optimizer.error();
  std::vector<Section> state{Section::of("weights", whole.weights.data(), whole.model().arena_floats)};
  state.insert(state.end(), optimizer->state().begin(), optimizer->state().end());
  return save_checkpoint(options.out, whole.model(), header.progress, header.settings, state);
}

/// Nothing that is read is written over, nor anything else unless the user agrees.
Result<void> check_out(const SavedModel& saved, const Options& options) {
  const std::string& out = options.out;
  if (same_file(options.in, out) || same_file(saved.path, out))
    return Error{"IN and OUT are the same: name another OUT"};
  if (is_folder(out) && same_file(folder_of(saved.path), out))
    return Error{"IN lies in the folder " + out + ", whose files would be replaced: name another OUT"};
  if (options.force) return {};
  if (Result<void> s = may_replace(out); !s) return s;
  if (out.ends_with(".gguf")) return may_replace(out + ".md");
  return out.ends_with(".chimera") ? may_replace(folder_of(out) + "/tokenizer.json") : Result<void>{};
}

Result<void> convert(Options& options) {
  const FileType* type = file_type_named(options.format);
  if (!type) return Error{"expected a format like f32, f16, bf16, q8_0 or q4_k_m, found " + options.format};
  const auto saved = open_model(options.in);
  if (!saved) return saved.error();
  while (options.out.size() > 1 && options.out.ends_with('/')) options.out.pop_back();
  if (Result<void> s = check_out(*saved, options); !s) return s;
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  auto weights = saved->weights(*cpu);
  if (!weights) return weights.error();
  const auto adapters = load_adapters(*cpu, saved->model, options.merged);
  if (!adapters) return adapters.error();
  for (const LoadedAdapter& a : *adapters)
    merge_adapters(*cpu, saved->model.tensors, a.table->weights, a.values.data(), weights->data());
  auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  if (options.chat) {
    Vocabulary v = tokenizer->vocabulary();
    v.chat_template = chatml_template;
    tokenizer = Tokenizer::create(std::move(v));
    if (!tokenizer || !chat_template_of(*tokenizer))
      return Error{"the tokenizer has no <|im_start|> and <|im_end|>, which --chat needs"};
  }
  Whole whole{*saved, *cpu, std::move(*weights), std::move(*tokenizer)};
  if (options.name.empty()) options.name = name_of(options.in);

  const bool gguf = options.out.ends_with(".gguf"), checkpoint = options.out.ends_with(".chimera");
  const Result<void> status = gguf         ? to_gguf(whole, options, *type)
                              : checkpoint ? to_checkpoint(whole, options)
                                           : to_hugging_face(whole, options, type->format);
  if (!status) return status;
  std::fprintf(stderr, "wrote %s: %s weights\n", shell_word(options.out).c_str(),
               grouped(saved->model.parameters).c_str());
  return {};
}

int program(int argc, char** argv) {
  Options options;
  Flags app{"Writes a model in another form.", "chimera-convert"};
  app.end_help("chimera-convert runs/first first.gguf --format q8_0", engine_help);
  app.add_option("IN,-m,--model", options.in, model_help)->type_name("PATH")->default_str("")->required();
  app.add_option("OUT", options.out, "NAME.gguf: a GGUF file; NAME.chimera: a checkpoint; else a Hugging Face folder")
      ->required();
  app.add_option("--format,--outtype", options.format,
                 "of the matrices in OUT: f32, f16, bf16; in GGUF also q8_0, q4_k_m, ...");
  app.add_option("--name", options.name, "of the model in OUT; without it, that of IN")->default_str("");
  add_adapter_option(app, "--merge", options.merged,
                     "adds adapters to the weights: PEFT's folder, a GGUF adapter, a run of chimera-align --lora");
  app.add_flag("--force", options.force, "write over OUT if it exists, without asking")->default_str("");
  app.add_flag("--chat", options.chat, "say in OUT that the model was trained on conversations in ChatML")
      ->default_str("");
  add_threads_option(app, options.threads);
  return run(app, argc, argv, [&] { return convert(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-convert", [&] { return program(argc, argv); });
}
