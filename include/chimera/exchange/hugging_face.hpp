// Models as Hugging Face folders: config.json and model.safetensors, as transformers' classes ForCausalLM of Llama,
// Mistral, Qwen2, Qwen3, Qwen3_5, Granite, GraniteMoeHybrid and xLSTM have them.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/config_from_hugging_face.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/layers.hpp>
#include <chimera/exchange/same_meaning.hpp>
#include <chimera/exchange/special_ids.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/safetensors.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

namespace hugging_face_parts {

/// The model_type of a model of this config.
inline std::string_view type_of(const Config& c) {
  std::string_view type = "granitemoehybrid";
  for (const LayerFiles& layer : layer_files)
    if (layer.kind && layer.used(c)) {
      if (!layer.dense_type) return "granitemoehybrid";
      type = layer.dense_type(c);
    }
  if (has_plain_scales(c) || type == "granitemoehybrid" || type == "xlstm") return type;
  return c.attention.qk_norm ? type : "granite";
}

inline std::string_view class_of(std::string_view type) {
  constexpr std::array<std::array<std::string_view, 2>, 8> classes{{{"llama", "LlamaForCausalLM"},
                                                                    {"mistral", "MistralForCausalLM"},
                                                                    {"qwen2", "Qwen2ForCausalLM"},
                                                                    {"qwen3", "Qwen3ForCausalLM"},
                                                                    {"qwen3_5_text", "Qwen3_5ForCausalLM"},
                                                                    {"granite", "GraniteForCausalLM"},
                                                                    {"granitemoehybrid", "GraniteMoeHybridForCausalLM"},
                                                                    {"xlstm", "xLSTMForCausalLM"}}};
  return std::find_if(classes.begin(), classes.end(), [&](const auto& c) { return c[0] == type; })->at(1);
}

inline Family family_of(std::string_view type) {
  if (type == "qwen3_5_text") return Family::qwen3_5;
  if (type == "xlstm") return Family::xlstm;
  return type == "granitemoehybrid" ? Family::granite : Family::llama;
}

/// Why transformers has no class for a model of this config; empty if it has one.
inline std::string unknown_to_transformers(const Config& c) {
  const std::string_view type = type_of(c);
  if (const std::string word = word_unknown_to(family_of(type), c); !word.empty())
    return "its " + std::string(type) + " has no layer like " + word;
  if (c.ternary.on) return "its bitnet has a squared ReLU";
  if (c.sub_norm) return "its granitemoehybrid and llama have no norms inside their layers";
  if (!has_plain_scales(c) && !type.starts_with("granite")) return "its " + std::string(type) + " has no multipliers";
  if (c.logit_cap > 0 && type != "xlstm") return "its " + std::string(type) + " has no cap of logits";
  if (c.embedding_rank) return "its " + std::string(type) + " has an embedding of the whole width";
  for (const LayerFiles& layer : layer_files)
    if (layer.unknown_to_transformers && layer.used(c))
      if (std::string why = layer.unknown_to_transformers(c, type); !why.empty()) return why;
  return "";
}

inline std::string config_json(const Config& c, Format format, const SpecialIds& ids) {
  const std::string_view type = type_of(c);
  JsonMembers m;
  m.add("architectures", "[" + json_quoted(class_of(type)) + "]");
  m.add_text("model_type", type);
  m.add_text("dtype", format == Format::f32 ? "float32" : format == Format::f16 ? "float16" : "bfloat16");
  m.add_number("vocab_size", std::int64_t{c.vocab});
  m.add_number("hidden_size", std::int64_t{c.width});
  m.add_number("num_hidden_layers", std::int64_t{c.layers.count});
  m.add_number("max_position_embeddings", std::int64_t{c.context});
  m.add_number("rms_norm_eps", c.norm_eps);
  m.add_flag("tie_word_embeddings", c.tied);
  m.add_number("initializer_range", 0.02f);
  m.add_flag("use_cache", true);
  ids.add_to(m);
  if (type.starts_with("granite")) {
    m.add_number("embedding_multiplier", c.embedding_scale);
    m.add_number("residual_multiplier", c.residual_scale);
    m.add_number("logits_scaling", c.logit_scale);
  }
  if (type == "granitemoehybrid" || type == "qwen3_5_text") {
    std::string kinds;
    for (int i = 0; i < c.layers.count; ++i)
      for (const LayerFiles& layer : layer_files)
        if (layer.kind == c.layers[i])
          kinds.append(i ? ", " : "").append(json_quoted(type == "qwen3_5_text" ? layer.words.back() : layer.words[0]));
    m.add("layer_types", "[" + kinds + "]");
  }
  for (const LayerFiles& layer : layer_files)
    if (layer.write_json) layer.write_json(m, c, type);
  return m.text() + "\n";
}

inline Result<Format> format_of(const SafetensorsTensor& t) {
  switch (t.dtype) {
    case Dtype::f32: return Format::f32;
    case Dtype::f16: return Format::f16;
    case Dtype::bf16: return Format::bf16;
    default:
      return Error{"tensor " + t.name + ": expected F32, F16 or BF16, found " + std::string(dtype_info(t.dtype).name)};
  }
}

}  // namespace hugging_face_parts

/// The class of transformers that runs it.
inline std::string_view hugging_face_architecture(const Config& c) {
  return hugging_face_parts::class_of(hugging_face_parts::type_of(c));
}

/// Fills `weights`, model.arena_floats of them, from the folder's safetensors. Errors as those of load_gguf.
inline Result<void> load_hugging_face(const Cpu& q, const std::string& folder, const AnyModel& model, float* weights) {
  using namespace hugging_face_parts;
  const auto config = config_from_hugging_face(folder);
  if (!config) return config.error();
  if (!same_meaning(*config, *model.config))
    return Error{"the config of " + folder + " is not that of the model " + std::string(model.name)};
  const auto file = Safetensors::open(folder);
  if (!file) return file.error();
  const bool llama = file->tensor("model.layers.0.mlp.gate_proj.weight") != nullptr;
  const Family plain = llama ? Family::llama : Family::granite, said = family_of(type_of(*config));
  const auto table = file_weights(model, said == Family::qwen3_5 || said == Family::xlstm ? said : plain);
  if (!table) return table.error();
  for (const FileWeight& w : *table) {
    const SafetensorsTensor* t = file->tensor(w.name);
    if (!t) return Error{"the folder " + folder + " has no tensor " + w.name};
    const auto format = format_of(*t);
    if (!format) return format.error();
    if (Result<void> s = load_weight(q, w, {t->name, t->shape, *format, t->data}, weights + w.offset); !s) return s;
  }
  return check_all_known(file->tensors(), *table, [&](std::string_view name) {
    return is_passed_over(name) || (model.config->tied && name == "lm_head.weight");
  });
}

/// Writes config.json and model.safetensors into the folder, the weights in F32, F16 or BF16. The config comes last: a
/// folder that has one is whole.
inline Result<void> save_hugging_face(const Cpu& q, const std::string& folder, const AnyModel& model,
                                      const float* weights, Format format, const SpecialIds& ids) {
  using namespace hugging_face_parts;
  if (const std::string why = unknown_to_transformers(*model.config); !why.empty())
    return Error{"transformers cannot run the model " + std::string(model.name) + ": " + why};
  if (format != Format::f32 && format != Format::f16 && format != Format::bf16)
    return Error{"a Hugging Face folder holds F32, F16 or BF16, and " + std::string(format_info(format)->name) +
                 " was asked for"};
  const Dtype dtype = format == Format::f32 ? Dtype::f32 : format == Format::f16 ? Dtype::f16 : Dtype::bf16;
  const auto table = file_weights(model, family_of(type_of(*model.config)));
  if (!table) return table.error();
  if (Result<void> s = make_folder(folder); !s) return s;
  SafetensorsWriter file;
  file.set_metadata("format", "pt");
  for (const FileWeight& w : *table)
    if (Result<void> s = file.add(w.name, w.shape, dtype); !s) return s;
  if (Result<void> s = file.begin(folder + "/model.safetensors"); !s) return s;
  for (const FileWeight& w : *table)
    if (Result<void> s =
            store_weight(q, w, format, weights, [&](std::span<const std::byte> bytes) { return file.append(bytes); });
        !s)
      return s;
  if (Result<void> s = file.commit(); !s) return s;
  return write_text(folder + "/config.json", config_json(*model.config, format, ids));
}

}  // namespace chimera::inline CHIMERA_ABI
