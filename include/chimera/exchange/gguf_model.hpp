// Models as GGUF files: in the architectures that llama.cpp runs where a config has one, else in our own.
#pragma once

#include <chimera/config/config_text.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/config_from_gguf.hpp>
#include <chimera/exchange/quantization_mix.hpp>
#include <chimera/exchange/same_meaning.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Whether all multipliers are the usual ones.
inline bool has_plain_scales(const Config& c) {
  return c.embedding_scale == 1 && c.residual_scale == 1 && c.logit_scale == 1 &&
         (c.attention.scale == 0 ||
          std::abs(c.attention.scale * std::sqrt(static_cast<float>(c.head_dim())) - 1) < 1e-6f);
}

/// The same of a config with norms inside its layers, for which there is bitnet alone.
inline std::string unknown_to_bitnet(const Config& c) {
  if (c.layers.count_of(Kind::attention) != c.layers.count) return "its bitnet has attention layers alone";
  if (c.attention.heads * c.head_dim() != c.width) return "its bitnet wants heads * head_dim to be the width";
  if (c.attention.position != Position::rope || c.rope_dims() != c.head_dim())
    return "its bitnet wants rotary positions in all channels";
  if (c.attention.rope.scaling != RopeScaling::none && c.attention.rope.scaling != RopeScaling::linear)
    return "its bitnet has linear scaling alone";
  if (c.window() < c.context) return "its bitnet has no sliding window";
  if (!c.tied) return "its bitnet has no output matrix of its own";
  return has_plain_scales(c) ? "" : "its bitnet has no multipliers";
}

/// Why llama.cpp has no architecture for a model of this config; empty if it has one.
inline std::string unknown_to_llama_cpp(const Config& c) {
  if (c.sub_norm) return unknown_to_bitnet(c);
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] != Kind::attention && c.layers[i] != Kind::mamba2)
      return "it has no layer like " + std::string(mnemonic(c.layers[i]));
  const bool mamba = has_kind(c, Kind::mamba2);
  if (mamba && c.mamba2.expand != 2) return "its granitehybrid wants mamba2.expand to be 2";
  if (mamba && (c.mamba2.dt_min > 0 || std::isfinite(c.mamba2.dt_max)))
    return "it does not limit the step size of Mamba-2";
  if (!has_kind(c, Kind::attention)) return c.layers.count > 0 ? "its granitehybrid wants an attention layer" : "";
  if (c.window() < c.context) return "its granitehybrid and llama have no sliding window";
  if (c.attention.position == Position::alibi) return "its granitehybrid and llama have no ALiBi";
  if (c.attention.position == Position::rope && c.attention.rope.scaling == RopeScaling::dynamic_ntk)
    return "it has no dynamic NTK scaling";
  return "";
}

/// What general.architecture says of a model of this config.
inline std::string_view gguf_architecture(const Config& c) {
  if (!unknown_to_llama_cpp(c).empty()) return "chimera";
  if (c.sub_norm) return "bitnet";
  if (has_kind(c, Kind::mamba2)) return "granitehybrid";
  return has_plain_scales(c) && c.attention.position == Position::rope && c.rope_dims() == c.head_dim() ? "llama"
                                                                                                        : "granite";
}

namespace gguf_model_parts {

/// The numbers that divide the plain frequencies; empty where none, linear and yarn say it all.
inline std::vector<float> rope_factors(const Config& c) {
  const Rope& r = c.attention.rope;
  if (r.scaling != RopeScaling::llama3 && r.scaling != RopeScaling::longrope) return {};
  const auto dims = static_cast<int>(c.rope_dims());
  float plain[Rope::max_pairs], scaled[Rope::max_pairs];
  rope_frequencies({.base = r.base}, dims, c.context, c.context, plain);
  rope_frequencies(r, dims, c.context, c.context, scaled);
  std::vector<float> factors(static_cast<std::size_t>(dims / 2));
  for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = plain[i] / scaled[i];
  return factors;
}

constexpr Family family_of(std::string_view architecture) {
  return architecture == "chimera" ? Family::own : architecture == "bitnet" ? Family::bitnet : Family::gguf;
}

inline void set_rope(GgufWriter& file, const std::string& prefix, const Config& c) {
  const Rope& r = c.attention.rope;
  const auto dims = static_cast<int>(c.rope_dims());
  float frequencies[Rope::max_pairs];
  float attention_factor = rope_frequencies(r, dims, c.context, c.context, frequencies);
  const double d = dims;
  const float base =
      r.scaling == RopeScaling::ntk ? static_cast<float>(r.base * std::pow(r.factor, d / (d - 2))) : r.base;
  file.set(prefix + "rope.dimension_count", static_cast<std::uint32_t>(dims));
  file.set(prefix + "rope.freq_base", base);
  const std::string scaling = prefix + "rope.scaling.";
  switch (r.scaling) {
    case RopeScaling::linear:
      file.set(scaling + "type", "linear");
      file.set(scaling + "factor", r.factor);
      break;
    case RopeScaling::yarn:
      file.set(scaling + "type", "yarn");
      file.set(scaling + "factor", r.factor);
      file.set(scaling + "yarn_beta_fast", r.beta_fast);
      file.set(scaling + "yarn_beta_slow", r.beta_slow);
      attention_factor /= 0.1f * std::log(r.factor) + 1;  // which llama.cpp multiplies in by itself
      break;
    case RopeScaling::longrope: file.set(scaling + "type", "longrope"); break;
    default: file.set(scaling + "type", "none");
  }
  if (r.scaling != RopeScaling::none)
    file.set(scaling + "original_context_length",
             static_cast<std::uint32_t>(r.original_context ? r.original_context : c.context));
  if (std::abs(attention_factor - 1) > 1e-6f) file.set(scaling + "attn_factor", attention_factor);
}

inline void set_config(GgufWriter& file, const Config& c, std::string_view architecture) {
  if (architecture == "chimera") return file.set(config_key, config_lines(c));
  const std::string prefix = std::string(architecture) + ".";
  const auto number = [&](const char* key, std::int64_t value) {
    file.set(prefix + key, static_cast<std::uint32_t>(value));
  };
  number("vocab_size", c.vocab);
  number("context_length", c.context);
  number("embedding_length", c.width);
  number("block_count", c.layers.count);
  number("feed_forward_length", c.ffn.hidden);
  number("attention.head_count", c.attention.heads);
  number("attention.key_length", c.head_dim());
  number("attention.value_length", c.head_dim());
  file.set(prefix + "attention.layer_norm_rms_epsilon", c.norm_eps);
  if (c.attention.position == Position::rope) set_rope(file, prefix, c);
  if (architecture == "llama" || architecture == "bitnet") return number("attention.head_count_kv", c.kv_heads());

  if (c.attention.position == Position::none) number("rope.dimension_count", c.head_dim());
  file.set(prefix + "rope.scaling.finetuned", c.attention.position == Position::rope);
  file.set(prefix + "embedding_scale", c.embedding_scale);
  file.set(prefix + "residual_scale", c.residual_scale);
  file.set(prefix + "logit_scale", c.logit_scale);
  file.set(prefix + "attention.scale",
           c.attention.scale != 0 ? c.attention.scale : 1 / std::sqrt(static_cast<float>(c.head_dim())));
  if (architecture == "granite") return number("attention.head_count_kv", c.kv_heads());

  std::vector<std::int32_t> kv_heads(static_cast<std::size_t>(c.layers.count), 0);
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] == Kind::attention) kv_heads[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(c.kv_heads());
  file.set(prefix + "attention.head_count_kv", kv_heads);
  number("ssm.conv_kernel", c.mamba2.conv);
  number("ssm.inner_size", c.ssm_inner());
  number("ssm.state_size", c.mamba2.state);
  number("ssm.group_count", c.mamba2.groups);
  number("ssm.time_step_rank", c.ssm_heads());
}

inline StoredTensor stored(const GgufTensor& t) {
  std::vector<std::int64_t> shape(t.ne.rend() - t.dims, t.ne.rend());
  return {t.name, std::move(shape), t.format, t.data};
}

/// The name of the scale that llama.cpp multiplies a matrix of bitnet with.
inline std::string scale_name(const FileWeight& w) { return w.name.substr(0, w.name.rfind('.')) + ".scale"; }

/// Matrices of blocks as -1, 0 and 1, each with the mean of its magnitudes as its scale (BitNet b1.58, 2402.17764,
/// equations 1 to 3).
inline void make_ternary(std::span<FileWeight> table, const float* arena) {
  for (FileWeight& w : table) {
    if (!w.matrix || !w.name.starts_with("blk.")) continue;
    double sum = 0;
    for (std::int64_t i = 0; i < w.size(); ++i)
      sum += static_cast<double>(std::abs(arena[w.offset + static_cast<std::size_t>(i)]));
    w.ternary = true;
    w.divisor = std::max(static_cast<float>(sum / static_cast<double>(w.size())), 1e-5f);
  }
}

/// The tensors of a file of that type, without data.
inline std::vector<GgufTensor> declared(std::span<const FileWeight> table, const FileType& type) {
  std::vector<GgufTensor> tensors;
  for (const FileWeight& w : table) {
    GgufTensor t;
    t.name = w.name;
    t.dims = static_cast<int>(w.shape.size());
    std::copy(w.shape.rbegin(), w.shape.rend(), t.ne.begin());
    tensors.push_back(std::move(t));
  }
  const QuantizationMix mix(type, tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (table[i].matrix) tensors[i].format = mix.format_of(tensors[i]);
  return tensors;
}

}  // namespace gguf_model_parts

/// Where the file has the model's weights. Errors: another config, a tensor that is missing, and one that the model has no
/// place for.
inline Result<std::vector<FileWeight>> find_weights(const Gguf& file, const AnyModel& model) {
  const auto config = config_from_gguf(file);
  if (!config) return config.error();
  if (!same_meaning(*config, *model.config))
    return Error{"the file's config is not that of the model " + std::string(model.name)};
  auto table = file_weights(model, gguf_model_parts::family_of(*file.text("general.architecture")));
  if (!table) return table.error();
  for (FileWeight& w : *table) {
    const GgufTensor* t = file.tensor(w.name);
    if (!t) return Error{"the file has no tensor " + w.name};
    if (const GgufTensor* scale = file.tensor(gguf_model_parts::scale_name(w)); scale && config->sub_norm) {
      if (scale->format != Format::f32 || scale->size() != 1)
        return Error{"tensor " + scale->name + ": expected one number of F32"};
      std::memcpy(&w.divisor, scale->data.data(), sizeof w.divisor);
      if (!(std::abs(w.divisor) <= 1e6f)) return Error{"tensor " + scale->name + ": expected a number of at most 1e6"};
    }
  }
  if (Status s = check_all_known(file.tensors(), *table,
                                 [&](std::string_view name) {
                                   return name.starts_with("rope_f") || (config->sub_norm && name.ends_with(".scale"));
                                 });
      !s)
    return s.error();
  return table;
}

/// Fills `weights`, model.arena_floats of them. Errors: those of find_weights, a tensor of another shape or without
/// numbers. After an error the weights are undefined.
inline Status load_gguf(const Cpu& q, const Gguf& file, const AnyModel& model, float* weights) {
  const auto table = find_weights(file, model);
  if (!table) return table.error();
  for (const FileWeight& w : *table)
    if (Status s = load_weight(q, w, gguf_model_parts::stored(*file.tensor(w.name)), weights + w.offset); !s) return s;
  return {};
}

/// Writes the model's weights and config, whole or not at all; `words(file)` adds the tokenizer's metadata.
template <class F>
Status save_gguf(const Cpu& q, const std::string& path, const AnyModel& model, const float* weights,
                 const FileType& type, std::string_view name, F&& words) {
  using namespace gguf_model_parts;
  const Config& c = *model.config;
  const std::string_view architecture = gguf_architecture(c);
  auto table = file_weights(model, family_of(architecture));
  if (!table) return table.error();
  if (architecture == "bitnet" && (type.format == Format::tq1_0 || type.format == Format::tq2_0))
    make_ternary(*table, weights);
  GgufWriter file;
  file.set("general.architecture", architecture);
  file.set("general.type", "model");
  file.set("general.name", name);
  file.set("general.file_type", type.id);
  file.set("general.alignment", std::uint32_t{32});
  if (format_info(type.format)->values > 1) file.set("general.quantization_version", std::uint32_t{2});
  set_config(file, c, architecture);
  words(file);

  const std::vector<float> factors =
      architecture != "chimera" && c.attention.position == Position::rope ? rope_factors(c) : std::vector<float>{};
  if (!factors.empty())
    if (Status s = file.add("rope_freqs.weight", {static_cast<std::int64_t>(factors.size())}, Format::f32); !s)
      return s;
  const std::vector<GgufTensor> tensors = declared(*table, type);
  for (const GgufTensor& t : tensors)
    if (Status s = file.add(t.name, std::span(t.ne).first(static_cast<std::size_t>(t.dims)), t.format); !s) return s;
  for (const FileWeight& w : *table)
    if (w.ternary)
      if (Status s = file.add(scale_name(w), {1}, Format::f32); !s) return s;
  if (Status s = file.begin(path); !s) return s;
  if (Status s = file.append(std::as_bytes(std::span(factors))); !s) return s;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (Status s = store_weight(q, (*table)[i], tensors[i].format, weights,
                                [&](std::span<const std::byte> bytes) { return file.append(bytes); });
        !s)
      return s;
  for (const FileWeight& w : *table)
    if (w.ternary)
      if (Status s = file.append(std::as_bytes(std::span(&w.divisor, 1))); !s) return s;
  return file.commit();
}

}  // namespace chimera::inline CHIMERA_ABI
