// Models as Hugging Face folders: config.json and model.safetensors, as transformers' classes ForCausalLM of Llama,
// Mistral, Qwen2, Qwen3, Qwen3_5, Granite, GraniteMoeHybrid, BitNet, xLSTM and RecurrentGemma have them.
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
#include <chimera/exchange/ternary_codes.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/safetensors.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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
  const bool has_multiplied_form = type == "llama" || type == "mistral" || type == "qwen2";
  return has_multiplied_form && !has_plain_scales(c) ? "granite" : type;
}

inline std::string_view class_of(std::string_view type) {
  constexpr std::array<std::array<std::string_view, 2>, 10> classes{
      {{"llama", "LlamaForCausalLM"},
       {"mistral", "MistralForCausalLM"},
       {"qwen2", "Qwen2ForCausalLM"},
       {"qwen3", "Qwen3ForCausalLM"},
       {"qwen3_5_text", "Qwen3_5ForCausalLM"},
       {"granite", "GraniteForCausalLM"},
       {"granitemoehybrid", "GraniteMoeHybridForCausalLM"},
       {"bitnet", "BitNetForCausalLM"},
       {"xlstm", "xLSTMForCausalLM"},
       {"recurrent_gemma", "RecurrentGemmaForCausalLM"}}};
  return std::find_if(classes.begin(), classes.end(), [&](const auto& c) { return c[0] == type; })->at(1);
}

inline Family family_of(std::string_view type) {
  if (type == "qwen3_5_text") return Family::qwen3_5;
  if (type == "xlstm") return Family::xlstm;
  if (type == "recurrent_gemma") return Family::griffin;
  return type == "granitemoehybrid" ? Family::granite : Family::llama;
}

}  // namespace hugging_face_parts

/// The tensors that transformers' files of a model of this config have.
inline Family hugging_face_family(const Config& c) {
  return hugging_face_parts::family_of(hugging_face_parts::type_of(c));
}

/// Why transformers has no class for a model of this config; empty if it has one.
inline std::string unknown_to_transformers(const Config& c) {
  using namespace hugging_face_parts;
  const std::string_view type = type_of(c);
  if (const std::string word = word_unknown_to(family_of(type), c); !word.empty())
    return "its " + std::string(type) + " has no layer like " + word;
  if (c.ternary.on && family_of(type) != Family::llama)
    return "its " + std::string(type) + " has matrices that share a ternary scale";
  if (c.ternary.on && c.ternary.group != 0) return "its ternary matrices have one scale each: ternary.group must be 0";
  if (c.sub_norm && type != "bitnet") return "its " + std::string(type) + " has no norms inside its layers";
  const bool gemma = type == "recurrent_gemma";
  if (!has_plain_scales(c) && !type.starts_with("granite") && !gemma)
    return "its " + std::string(type) + " has no multipliers";
  if (c.loop.on()) return "its models pass through their layers once, and this one has a loop";
  if (c.logit_cap > 0 && type != "xlstm" && !gemma) return "its " + std::string(type) + " has no cap of logits";
  if (c.embedding_rank) return "its " + std::string(type) + " has an embedding of the whole width";
  for (const LayerFiles& layer : layer_files)
    if (layer.unknown_to_transformers && layer.used(c))
      if (std::string why = layer.unknown_to_transformers(c, type); !why.empty()) return why;
  return "";
}

namespace hugging_face_parts {

/// Whether matrices that were rounded already are asked for, in two bits.
inline bool is_packed(const Config& c, Format format) { return c.ternary.on && format == Format::tq2_0; }

inline std::string quantization_json(bool packed) {
  JsonMembers m;
  m.add_text("quant_method", "bitnet");
  m.add_text("linear_class", "autobitlinear");
  m.add_text("quantization_mode", packed ? "offline" : "online");
  m.add("modules_to_not_convert", "[\"lm_head\"]");
  return m.text();
}

inline std::string config_json(const Config& c, Format format, const SpecialIds& ids) {
  const std::string_view type = type_of(c);
  JsonMembers m;
  m.add("architectures", "[" + json_quoted(class_of(type)) + "]");
  m.add_text("model_type", type);
  m.add_text("dtype", format == Format::f16 ? "float16" : format == Format::bf16 ? "bfloat16" : "float32");
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
  if (c.ternary.on) m.add("quantization_config", quantization_json(is_packed(c, format)));
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

/// The name of the scale of a matrix that was rounded to three values before it was written.
inline std::string scale_name(const FileWeight& w) { return w.name + "_scale"; }

/// -1, 0 and 1 of a matrix [rows, cols] that was rounded: packed, or a number each. Errors: other codes, other shapes.
inline Result<std::vector<float>> ternary_codes(const Cpu& q, const FileWeight& w, const SafetensorsTensor& t) {
  std::vector<float> codes(static_cast<std::size_t>(w.size()));
  if (t.dtype != Dtype::u8) {
    const auto format = format_of(t);
    if (!format) return format.error();
    const StoredTensor stored{t.name, t.shape, *format, t.data};
    if (Result<void> s = check_shape(w, stored); !s) return s.error();
    if (Result<void> s = decode(q, *format, t.data.data(), w.size(), codes.data()); !s) return s.error();
  } else {
    FileWeight quarter = w;
    quarter.shape[0] = w.rows / 4;
    if (w.rows % 4 != 0) return Error{"tensor " + t.name + ": expected a multiple of 4 rows to pack"};
    if (Result<void> s = check_shape(quarter, {t.name, t.shape, Format::f32, t.data}); !s) return s.error();
    if (Result<void> s = unpack_codes(CodeOrder::rows(w.size()), t.data, codes); !s)
      return Error{"tensor " + t.name + ": " + s.error().message};
  }
  for (const float code : codes)
    if (code != -1.f && code != 0.f && code != 1.f)
      return Error{"tensor " + t.name + ": expected the weights -1, 0 and 1, found " + to_text(code)};
  return codes;
}

/// Reads a matrix that was rounded to codes times a scale: as weights that round to these codes, and whose mean
/// magnitude is that scale.
inline Result<void> load_ternary(const Cpu& q, FileWeight w, const SafetensorsTensor& t, const SafetensorsTensor& scale,
                                 bool divides, float* x) {
  const auto format = format_of(scale);
  if (!format) return format.error();
  float s = 0;
  if (std::int64_t n = format_bytes(*format, 1); std::cmp_not_equal(scale.data.size(), n))
    return Error{"tensor " + scale.name + ": expected one number"};
  if (Result<void> read = decode(q, *format, scale.data.data(), 1, &s); !read) return read;
  if (divides) s = 1 / s;
  if (!(s > 0 && s <= 1e6f)) return Error{"tensor " + scale.name + ": expected a scale above 0"};
  const auto codes = ternary_codes(q, w, t);
  if (!codes) return codes.error();
  const auto zeros = std::count(codes->begin(), codes->end(), 0.f), ones = w.size() - zeros;
  if (ones > 0) w.divisor = static_cast<float>(double{s} * static_cast<double>(w.size()) / static_cast<double>(ones));
  return load_weight(q, w, {t.name, w.shape, Format::f32, std::as_bytes(std::span(*codes))}, x);
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
  const auto table = file_weights(model, said == Family::granite || said == Family::llama ? plain : said);
  if (!table) return table.error();
  const auto divides = divides_by_ternary_scales(folder);
  if (!divides) return divides.error();
  std::vector<std::string> scales;
  for (const FileWeight& w : *table) {
    const SafetensorsTensor* t = file->tensor(w.name);
    if (!t) return Error{"the folder " + folder + " has no tensor " + w.name};
    const SafetensorsTensor* scale = config->ternary.on ? file->tensor(scale_name(w)) : nullptr;
    if (scale) {
      scales.push_back(scale->name);
      if (Result<void> s = load_ternary(q, w, *t, *scale, *divides, weights + w.offset); !s) return s;
      continue;
    }
    const auto format = format_of(*t);
    if (!format) return format.error();
    if (Result<void> s = load_weight(q, w, {t->name, t->shape, *format, t->data}, weights + w.offset); !s) return s;
  }
  return check_all_known(file->tensors(), *table, [&](std::string_view name) {
    return is_passed_over(name) || (model.config->tied && name == "lm_head.weight") ||
           std::find(scales.begin(), scales.end(), name) != scales.end();
  });
}

/// Writes config.json and model.safetensors into the folder, the weights in F32, F16 or BF16. TQ2_0 asks for ternary
/// matrices as transformers packs them, four weights to a byte, and the rest in F32, as it computes then. The config
/// comes last: a folder that has one is whole.
inline Result<void> save_hugging_face(const Cpu& q, const std::string& folder, const AnyModel& model,
                                      const float* weights, Format format, const SpecialIds& ids) {
  using namespace hugging_face_parts;
  if (const std::string why = unknown_to_transformers(*model.config); !why.empty())
    return Error{"transformers cannot run the model " + std::string(model.name) + ": " + why};
  const bool packed = is_packed(*model.config, format);
  if (!packed && format != Format::f32 && format != Format::f16 && format != Format::bf16)
    return Error{"a Hugging Face folder holds F32, F16 or BF16, or TQ2_0 of ternary matrices, and " +
                 std::string(format_info(format)->name) + " was asked for"};
  const Format rest = packed ? Format::f32 : format;
  const Dtype dtype = rest == Format::f32 ? Dtype::f32 : rest == Format::f16 ? Dtype::f16 : Dtype::bf16;
  auto table = file_weights(model, family_of(type_of(*model.config)));
  if (!table) return table.error();
  if (packed) gguf_model_parts::make_ternary(*table, model, weights);
  for (FileWeight& w : *table) {
    if (!w.ternary) continue;
    if (w.rows % 4 != 0)
      return Error{"transformers packs ternary matrices whose rows are a multiple of 4, and " + w.name + " has " +
                   std::to_string(w.rows)};
    w.shape[0] /= 4;
  }
  if (Result<void> s = make_folder(folder); !s) return s;
  SafetensorsWriter file;
  file.set_metadata("format", "pt");
  for (const FileWeight& w : *table) {
    if (Result<void> s = file.add(w.name, w.shape, w.ternary ? Dtype::u8 : dtype); !s) return s;
    if (!w.ternary) continue;
    if (Result<void> s = file.add(scale_name(w), {1}, Dtype::f32); !s) return s;
  }
  if (Result<void> s = file.begin(folder + "/model.safetensors"); !s) return s;
  for (const FileWeight& w : *table) {
    std::vector<float> codes;
    const auto append = [&](std::span<const std::byte> bytes) -> Result<void> {
      if (!w.ternary) return file.append(bytes);
      const std::size_t before = codes.size();
      codes.resize(before + bytes.size() / sizeof(float));
      std::memcpy(codes.data() + before, bytes.data(), bytes.size());
      return {};
    };
    if (Result<void> s = store_weight(q, w, w.ternary ? Format::f32 : rest, weights, append); !s) return s;
    if (!w.ternary) continue;
    if (Result<void> s = file.append(pack_codes(CodeOrder::rows(w.size()), codes)); !s) return s;
    if (Result<void> s = file.append(std::as_bytes(std::span(&w.divisor, 1))); !s) return s;
  }
  if (Result<void> s = file.commit(); !s) return s;
  return write_text(folder + "/config.json", config_json(*model.config, format, ids));
}

}  // namespace chimera::inline CHIMERA_ABI
