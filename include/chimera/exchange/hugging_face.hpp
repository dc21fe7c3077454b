// Models as Hugging Face folders: config.json and model.safetensors, as transformers' GraniteMoeHybridForCausalLM and
// LlamaForCausalLM have them.
#pragma once

#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/config_from_hugging_face.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/same_meaning.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/safetensors.hpp>
#include <chimera/model/any_model.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// Ids that a config.json names; -1: there is none.
struct SpecialIds {
  std::int32_t bos = -1, eos = -1, pad = -1;
};

namespace hugging_face_parts {

inline Family family_of(const Config& c) {
  return gguf_architecture(c) == "llama" && c.attention.rope.scaling != RopeScaling::ntk ? Family::llama
                                                                                         : Family::granite;
}

/// Why transformers has no class for a model of this config; empty if it has one.
inline std::string unknown_to_transformers(const Config& c) {
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] != Kind::attention && c.layers[i] != Kind::mamba2)
      return "its GraniteMoeHybrid has no layer like " + std::string(mnemonic(c.layers[i]));
  if (c.sub_norm) return "its GraniteMoeHybrid and Llama have no norms inside their layers";
  if (!has_kind(c, Kind::attention)) return "its GraniteMoeHybrid wants an attention layer";
  if (has_kind(c, Kind::mamba2) && (c.mamba2.dt_min > 0 || std::isfinite(c.mamba2.dt_max)))
    return "the limits of Mamba-2's step size are not written";
  if (c.window() < c.context) return "its GraniteMoeHybrid and Llama have no sliding window";
  if (c.attention.position == Position::alibi) return "its GraniteMoeHybrid and Llama have no ALiBi";
  if (c.attention.position == Position::rope && c.rope_dims() != c.head_dim())
    return "its GraniteMoeHybrid and Llama turn all channels of a head";
  if (family_of(c) == Family::granite && c.head_dim() * c.attention.heads != c.width)
    return "its GraniteMoeHybrid wants width = attention.heads * head_dim";
  return "";
}

/// The members of a JSON object, one a line.
class Members {
 public:
  void add(std::string_view name, const std::string& json) {
    text_.append(text_.empty() ? "{\n  " : ",\n  ").append(json_quoted(name)).append(": ").append(json);
  }
  void add_text(std::string_view name, std::string_view value) { add(name, json_quoted(value)); }
  void add_number(std::string_view name, std::int64_t value) { add(name, std::to_string(value)); }
  void add_number(std::string_view name, float value) { add(name, to_text(value)); }
  void add_flag(std::string_view name, bool value) { add(name, value ? "true" : "false"); }
  void add_id(std::string_view name, std::int32_t id) { add(name, id < 0 ? "null" : std::to_string(id)); }
  std::string text() const { return text_ + "\n}"; }

 private:
  std::string text_;
};

inline std::string list(std::span<const float> values) {
  std::string text = "[";
  for (const float v : values) text.append(text.size() > 1 ? ", " : "").append(to_text(v));
  return text + "]";
}

inline std::string rope_json(const Config& c) {
  const Rope& r = c.attention.rope;
  const float d = static_cast<float>(c.rope_dims());
  Members m;
  m.add_number("rope_theta", r.scaling == RopeScaling::ntk ? r.base * std::pow(r.factor, d / (d - 2)) : r.base);
  constexpr std::array<std::string_view, 7> types{"default", "linear", "default", "dynamic",
                                                  "yarn",    "llama3", "longrope"};
  m.add_text("rope_type", types[static_cast<std::size_t>(r.scaling)]);
  if (r.scaling == RopeScaling::none || r.scaling == RopeScaling::ntk) return m.text();
  m.add_number("factor", r.factor);
  m.add_number("original_max_position_embeddings", std::int64_t{r.original_context ? r.original_context : c.context});
  if (r.attention_factor != 0) m.add_number("attention_factor", r.attention_factor);
  if (r.scaling == RopeScaling::yarn) {
    m.add_number("beta_fast", r.beta_fast), m.add_number("beta_slow", r.beta_slow);
    if (r.mscale != 0) m.add_number("mscale", r.mscale);
    if (r.mscale_all_dim != 0) m.add_number("mscale_all_dim", r.mscale_all_dim);
  }
  if (r.scaling == RopeScaling::llama3)
    m.add_number("low_freq_factor", r.low_freq_factor), m.add_number("high_freq_factor", r.high_freq_factor);
  if (r.scaling == RopeScaling::longrope) {
    const auto pairs = static_cast<std::size_t>(c.rope_dims() / 2);
    m.add("short_factor", list(std::span(r.short_factor).first(pairs)));
    m.add("long_factor", list(std::span(r.long_factor).first(pairs)));
  }
  return m.text();
}

inline std::string config_json(const Config& c, Format format, const SpecialIds& ids) {
  const bool granite = family_of(c) == Family::granite;
  Members m;
  m.add("architectures", "[\"" + std::string(granite ? "GraniteMoeHybrid" : "Llama") + "ForCausalLM\"]");
  m.add_text("model_type", granite ? "granitemoehybrid" : "llama");
  m.add_text("dtype", format == Format::f32 ? "float32" : format == Format::f16 ? "float16" : "bfloat16");
  m.add_number("vocab_size", std::int64_t{c.vocab});
  m.add_number("hidden_size", std::int64_t{c.width});
  m.add_number("intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_number("num_hidden_layers", std::int64_t{c.layers.count});
  m.add_number("num_attention_heads", std::int64_t{c.attention.heads});
  m.add_number("num_key_value_heads", c.kv_heads());
  m.add_number("max_position_embeddings", std::int64_t{c.context});
  m.add_number("rms_norm_eps", c.norm_eps);
  m.add_text("hidden_act", "silu");
  m.add_flag("attention_bias", false);
  m.add_number("attention_dropout", std::int64_t{0});
  m.add_flag("tie_word_embeddings", c.tied);
  m.add_number("initializer_range", 0.02f);
  m.add_flag("use_cache", true);
  m.add_id("bos_token_id", ids.bos), m.add_id("eos_token_id", ids.eos), m.add_id("pad_token_id", ids.pad);
  m.add("rope_parameters", rope_json(c));
  if (!granite) {
    m.add_number("head_dim", c.head_dim());
    m.add_flag("mlp_bias", false);
    return m.text() + "\n";
  }
  m.add_text("position_embedding_type", c.attention.position == Position::rope ? "rope" : "nope");
  m.add_number("shared_intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_number("num_local_experts", std::int64_t{0}), m.add_number("num_experts_per_tok", std::int64_t{0});
  m.add_number("embedding_multiplier", c.embedding_scale);
  m.add_number("residual_multiplier", c.residual_scale);
  m.add_number("logits_scaling", c.logit_scale);
  m.add_number("attention_multiplier",
               c.attention.scale != 0 ? c.attention.scale : 1 / std::sqrt(static_cast<float>(c.head_dim())));
  std::string kinds;
  for (int i = 0; i < c.layers.count; ++i)
    kinds.append(i ? ", " : "").append(c.layers[i] == Kind::mamba2 ? "\"mamba\"" : "\"attention\"");
  m.add("layer_types", "[" + kinds + "]");
  const Config defaults{.width = c.width};  // what a model without Mamba-2 says of it must make sense, too
  const Config& of = has_kind(c, Kind::mamba2) ? c : defaults;
  const std::int64_t inner = of.ssm_inner(), head = &of == &c ? c.mamba2.head_dim : inner;
  m.add_number("mamba_n_heads", inner / head), m.add_number("mamba_d_head", head);
  m.add_number("mamba_n_groups", std::int64_t{of.mamba2.groups});
  m.add_number("mamba_d_state", std::int64_t{of.mamba2.state});
  m.add_number("mamba_d_conv", std::int64_t{of.mamba2.conv});
  m.add_number("mamba_expand", std::int64_t{of.mamba2.expand});
  m.add_number("mamba_chunk_size", std::int64_t{of.mamba2.chunk});
  m.add_flag("mamba_conv_bias", true), m.add_flag("mamba_proj_bias", false);
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
  return hugging_face_parts::family_of(c) == Family::llama ? "LlamaForCausalLM" : "GraniteMoeHybridForCausalLM";
}

/// generation_config.json
inline std::string generation_config_json(const SpecialIds& ids) {
  hugging_face_parts::Members m;
  m.add_id("bos_token_id", ids.bos), m.add_id("eos_token_id", ids.eos), m.add_id("pad_token_id", ids.pad);
  return m.text() + "\n";
}

/// Fills `weights`, model.arena_floats of them, from the folder's safetensors. Errors as those of load_gguf.
inline Status load_hugging_face(const Cpu& q, const std::string& folder, const AnyModel& model, float* weights) {
  using namespace hugging_face_parts;
  const auto config = config_from_hugging_face(folder);
  if (!config) return config.error();
  if (!same_meaning(*config, *model.config))
    return Error{"the config of " + folder + " is not that of the model " + std::string(model.name)};
  const auto file = Safetensors::open(folder);
  if (!file) return file.error();
  const bool llama = file->tensor("model.layers.0.mlp.gate_proj.weight") != nullptr;
  const auto table = file_weights(model, llama ? Family::llama : Family::granite);
  if (!table) return table.error();
  for (const FileWeight& w : *table) {
    const SafetensorsTensor* t = file->tensor(w.name);
    if (!t) return Error{"the folder " + folder + " has no tensor " + w.name};
    const auto format = format_of(*t);
    if (!format) return format.error();
    if (Status s = load_weight(q, w, {t->name, t->shape, *format, t->data}, weights + w.offset); !s) return s;
  }
  return check_all_known(file->tensors(), *table, [&](std::string_view name) {
    return name.ends_with("rotary_emb.inv_freq") || (model.config->tied && name == "lm_head.weight");
  });
}

/// Writes config.json and model.safetensors into the folder, the weights in F32, F16 or BF16. The config comes last: a
/// folder that has one is whole.
inline Status save_hugging_face(const Cpu& q, const std::string& folder, const AnyModel& model, const float* weights,
                                Format format, const SpecialIds& ids) {
  using namespace hugging_face_parts;
  if (const std::string why = unknown_to_transformers(*model.config); !why.empty())
    return Error{"transformers cannot run the model " + std::string(model.name) + ": " + why};
  if (format != Format::f32 && format != Format::f16 && format != Format::bf16)
    return Error{"a Hugging Face folder holds F32, F16 or BF16, and " + std::string(format_info(format)->name) +
                 " was asked for"};
  const Dtype dtype = format == Format::f32 ? Dtype::f32 : format == Format::f16 ? Dtype::f16 : Dtype::bf16;
  const auto table = file_weights(model, family_of(*model.config));
  if (!table) return table.error();
  if (Status s = make_folder(folder); !s) return s;
  SafetensorsWriter file;
  file.set_metadata("format", "pt");
  for (const FileWeight& w : *table)
    if (Status s = file.add(w.name, w.shape, dtype); !s) return s;
  if (Status s = file.begin(folder + "/model.safetensors"); !s) return s;
  for (const FileWeight& w : *table)
    if (Status s =
            store_weight(q, w, format, weights, [&](std::span<const std::byte> bytes) { return file.append(bytes); });
        !s)
      return s;
  if (Status s = file.commit(); !s) return s;
  return write_text(folder + "/config.json", config_json(*model.config, format, ids));
}

}  // namespace chimera::inline CHIMERA_ABI
