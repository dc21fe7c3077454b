// A model on disk in any of its forms, and what programs need of it: what runs it, its tokenizer and its weights.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/gguf_rows.hpp>
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/packed_model.hpp>
#include <chimera/model/stored_base.hpp>
#include <chimera/train/checkpoint.hpp>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// A model of any config that no program was compiled for: from a compiler at run time, for example.
using ModelMaker = Result<AnyModel> (*)(const Config&);

struct SavedModel {
  enum class Form { checkpoint, gguf, hugging_face };

  Form form;
  std::string path;                          // of the checkpoint, the GGUF file, or the Hugging Face folder
  AnyModel model;                            // what runs it
  std::optional<CheckpointHeader> header{};  // of a checkpoint

  /// `path`: a checkpoint; a run's folder, of which it takes the newest checkpoint that can be read; a GGUF file; a
  /// Hugging Face folder. Of `models` it takes the first in which these weights mean the same, a checkpoint's own
  /// before others, or else what `make` makes. Weights are not read yet.
  static Result<SavedModel> open(const std::string& path, std::span<const AnyModel> models, ModelMaker make = nullptr);

  const Config& config() const { return *model.config; }

  /// The tokenizer in the GGUF file, or in the folder of the weights; bytes if there is none. It knows the model's chat
  /// template: chat_template_of(tokenizer).
  Result<Tokenizer> tokenizer() const { return tokenizer_of(path, config().vocab); }

  /// Reads the weights as f32, into model.arena_floats floats.
  Result<void> load(const Cpu& cpu, float* weights) const;
  Result<Buffer> weights(const Cpu& cpu) const;

  /// The weights for sessions: of a GGUF file in the file's own formats, of the other forms as f32.
  Result<PackedModel> packed(const Cpu& cpu) const;

  /// The weights as a base of adapters: of a GGUF file without an arena of f32.
  Result<StoredBase> base(const Cpu& cpu, BaseFormat format) const;

 private:
  /// `name` and `config`: of a checkpoint, of a file's weights; one may be missing.
  static Result<AnyModel> choose(std::span<const AnyModel> models, ModelMaker make, std::string_view name,
                                 const Config* config);
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<SavedModel> SavedModel::open(const std::string& path, std::span<const AnyModel> models,
                                                     ModelMaker make) {
  const bool gguf = path.ends_with(".gguf") && !is_folder(path);
  if (gguf || exists(path + "/config.json")) {
    const auto config = config_from_file(path);
    if (!config) return config.error();
    auto model = choose(models, make, {}, &*config);
    if (!model) return Error{"cannot run " + path + ": " + model.error().message};
    return SavedModel{gguf ? Form::gguf : Form::hugging_face, path, *model};
  }
  const auto file = find_checkpoint(path);
  if (!file)
    return Error{file.error().message +
                 " (a model is a run's folder, a checkpoint, a GGUF file, or a Hugging Face folder)"};
  auto header = read_checkpoint_header(*file);
  if (!header) return header.error();
  const auto config = config_from_file(*file);  // old checkpoints know their model's name alone
  const auto model = choose(models, make, header->info.config, config ? &*config : nullptr);
  if (!model) return Error{"cannot load " + *file + ": " + model.error().message};
  return SavedModel{Form::checkpoint, *file, *model, std::move(*header)};
}

CHIMERA_FUNCTION Result<void> SavedModel::load(const Cpu& cpu, float* weights) const {
  if (form == Form::checkpoint) return load_weights(path, model, weights);
  if (form == Form::hugging_face) return load_hugging_face(cpu, path, model, weights);
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  const Result<void> s = load_gguf(cpu, *file, model, weights);
  if (!s) return Error{"cannot load " + path + ": " + s.error().message};
  return {};
}

CHIMERA_FUNCTION Result<Buffer> SavedModel::weights(const Cpu& cpu) const {
  auto weights = Buffer::create(model.arena_floats);
  if (!weights) return weights;
  if (Result<void> s = load(cpu, weights->data()); !s) return s.error();
  return weights;
}

CHIMERA_FUNCTION Result<PackedModel> SavedModel::packed(const Cpu& cpu) const {
  if (form == Form::gguf) return pack_gguf(cpu, path, model);
  const auto arena = weights(cpu);
  if (!arena) return arena.error();
  return PackedModel::create(cpu, model, arena->data());
}

CHIMERA_FUNCTION Result<StoredBase> SavedModel::base(const Cpu& cpu, BaseFormat format) const {
  if (form != Form::gguf) {
    const auto arena = weights(cpu);
    if (!arena) return arena.error();
    return StoredBase::create(cpu, model, arena->data(), format);
  }
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  const auto rows = GgufRows::create(cpu, *file, model);
  if (!rows) return Error{"cannot load " + path + ": " + rows.error().message};
  auto base = StoredBase::create(
      cpu, model, rows->sources(), [&](auto... a) { return rows->read(a...); },
      [&](auto... a) { return rows->values(a...); }, format);
  if (!base) return Error{"cannot load " + path + ": " + base.error().message};
  return base;
}

CHIMERA_FUNCTION Result<AnyModel> SavedModel::choose(std::span<const AnyModel> models, ModelMaker make,
                                                     std::string_view name, const Config* config) {
  for (const AnyModel& m : models)
    if (m.name == name && (!config || same_meaning(*m.config, *config))) return m;
  if (!config) return Error{"no config is named \"" + std::string(name) + "\""};
  // One of another context computes the same, but is not what the file says.
  for (const bool any_context : {false, true}) {
    if (any_context && make) return make(*config);
    for (const AnyModel& m : models)
      if (same_meaning(*m.config, *config) && (any_context || m.config->context == config->context)) return m;
  }
  return Error{"no model of this program has its config"};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
