// chimera-convert: the same model in another form: a checkpoint, a GGUF file, a Hugging Face folder.
#include "model_option.hpp"
#include "noted_tokenizer.hpp"
#include "numbers.hpp"
#include "program.hpp"
#include "run_options.hpp"

#include <chimera/exchange/model_card.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

using namespace chimera;

namespace {

struct Options {
  std::string in, out, format = "f32", name;
  int threads = 0;
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

Status to_gguf(const Whole& whole, const Options& options, const FileType& type) {
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
  if (Status s = save_gguf(whole.cpu, options.out, model, whole.weights.data(), type, options.name, words); !s)
    return s;
  if (!is_file(options.out)) return {};  // a device or a pipe, which has nothing beside it
  CardFacts facts = facts_of(whole, options);
  facts.file = name_of(options.out);
  facts.architecture = gguf_architecture(*model.config);
  facts.format = type.name;
  facts.llama_cpp = facts.architecture != "chimera";
  return write_text(options.out + ".md", model_card(model, facts));
}

Status to_hugging_face(const Whole& whole, const Options& options, Format format) {
  const AnyModel& model = whole.model();
  const SpecialIds ids = SpecialIds::of(whole.tokenizer.vocabulary());
  if (Status s = save_hugging_face(whole.cpu, options.out, model, whole.weights.data(), format, ids); !s) return s;
  CardFacts facts = facts_of(whole, options);
  facts.architecture = hugging_face_architecture(*model.config);
  facts.format = format_info(format)->name;
  facts.transformers = true;
  if (Status s = save_tokenizer(options.out, whole.tokenizer); !s) return s;
  return write_text(options.out + "/README.md", model_card(model, facts));
}

/// The moments of training begin anew. A tokenizer that is not bytes lies beside the checkpoint.
Status to_checkpoint(Whole& whole, const Options& options) {
  const CheckpointHeader header = whole.saved.header.value_or(CheckpointHeader{});
  if (Status s = make_folder(folder_of(options.out)); !s) return s;
  if (!is_bytes(whole.tokenizer))
    if (Status s = save_tokenizer(folder_of(options.out), whole.tokenizer); !s) return s;
  auto optimizer = AdamW::create(whole.model().tensors, whole.model().arena_floats, header.settings.adamw);
  if (!optimizer) return optimizer.error();
  std::vector<Section> state{Section::of("weights", whole.weights.data(), whole.model().arena_floats)};
  state.insert(state.end(), optimizer->state().begin(), optimizer->state().end());
  return save_checkpoint(options.out, whole.model(), header.progress, header.settings, state);
}

Status convert(Options& options) {
  const FileType* type = file_type_named(options.format);
  if (!type) return Error{"expected a format like f32, f16, bf16, q8_0 or q4_k_m, found " + options.format};
  const auto saved = open_model(options.in);
  if (!saved) return saved.error();
  const auto cpu = Cpu::create(options.threads);
  if (!cpu) return cpu.error();
  auto weights = saved->weights(*cpu);
  if (!weights) return weights.error();
  auto tokenizer = noted(saved->tokenizer());
  if (!tokenizer) return tokenizer.error();
  Whole whole{*saved, *cpu, std::move(*weights), std::move(*tokenizer)};
  if (options.name.empty()) options.name = name_of(options.in);

  const bool gguf = options.out.ends_with(".gguf"), checkpoint = options.out.ends_with(".chimera");
  while (options.out.size() > 1 && options.out.ends_with('/')) options.out.pop_back();
  const Status status = gguf         ? to_gguf(whole, options, *type)
                        : checkpoint ? to_checkpoint(whole, options)
                                     : to_hugging_face(whole, options, type->format);
  if (!status) return status;
  std::fprintf(stderr, "wrote %s: %s weights\n", options.out.c_str(), grouped(saved->model.parameters).c_str());
  return {};
}

int program(int argc, char** argv) {
  Options options;
  CLI::App app{"Writes a model in another form.", "chimera-convert"};
  app.option_defaults()->always_capture_default()->take_last();
  app.add_option("IN", options.in, model_help)->required();
  app.add_option("OUT", options.out, "NAME.gguf: a GGUF file; NAME.chimera: a checkpoint; else a Hugging Face folder")
      ->required();
  app.add_option("--format", options.format, "of the matrices in OUT: f32, f16, bf16; in GGUF also q8_0, q4_k_m, ...");
  app.add_option("--name", options.name, "of the model in OUT; if not given, that of IN");
  app.add_option("--threads", options.threads, "0: one for each processor")->check(non_negative());
  return run(app, argc, argv, [&] { return convert(options); });
}

}  // namespace

int main(int argc, char** argv) {
  return run_program("chimera-convert", [&] { return program(argc, argv); });
}
