// A model's Config from the config.json of a Hugging Face folder.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/file_fields.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace config_from_hugging_face_parts {

/// transformers' account of the rotation: rope_parameters, or rope_theta and rope_scaling as older versions wrote them.
inline void read_rope(const JsonFields& json, FileFields<JsonFields>& p, Config& c) {
  Rope& r = c.attention.rope;
  const auto given = json.object("rope_parameters"), scaling = given ? given : json.object("rope_scaling");
  const JsonFields& fields = scaling ? *scaling : json;
  FileFields<JsonFields> q(fields);
  r.base = p.number("rope_theta", 1.001, 1e12, 10'000);
  if (given) r.base = q.number("rope_theta", 1.001, 1e12, static_cast<double>(r.base));
  p.demand(p.number("partial_rotary_factor", 0, 1, 1) == 1, "partial_rotary_factor: expected 1");
  const std::string type = scaling ? q.text("rope_type", q.text("type", "default")) : "default";
  if (type != "default") {
    r.factor = q.number("factor", 1, 1e6, 1);
    r.original_context = q.integer("original_max_position_embeddings", 1, FileLimits::context,
                                   p.integer("original_max_position_embeddings", 1, FileLimits::context, 0));
    r.attention_factor = q.number("attention_factor", 0, 1e3, 0);
  }
  if (type == "linear") r.scaling = RopeScaling::linear;
  if (type == "dynamic") r.scaling = RopeScaling::dynamic_ntk;
  if (type == "llama3") {
    r.scaling = RopeScaling::llama3;
    r.low_freq_factor = q.number("low_freq_factor", 1e-3, 1e6);
    r.high_freq_factor = q.number("high_freq_factor", 1e-3, 1e6);
  }
  if (type == "yarn") {
    r.scaling = RopeScaling::yarn;
    r.beta_fast = q.number("beta_fast", 0, 1e6, 32), r.beta_slow = q.number("beta_slow", 0, 1e6, 1);
    r.mscale = q.number("mscale", 0, 1e3, 0), r.mscale_all_dim = q.number("mscale_all_dim", 0, 1e3, 0);
    p.demand(q.boolean("truncate", true), "truncate: expected true, as YaRN's paper has it");
  }
  if (type == "longrope") {
    r.scaling = RopeScaling::longrope;
    const auto pairs = static_cast<std::size_t>(std::clamp<std::int64_t>(c.rope_dims() / 2, 0, Rope::max_pairs));
    const auto shorter = q.numbers("short_factor", pairs, 1e-6, 1e6),
               longer = q.numbers("long_factor", pairs, 1e-6, 1e6);
    std::copy(shorter.begin(), shorter.end(), r.short_factor.begin());
    std::copy(longer.begin(), longer.end(), r.long_factor.begin());
    if (!q.has("factor") && r.original_context > 0)
      r.factor = std::max(1.f, static_cast<float>(c.context) / static_cast<float>(r.original_context));
  }
  p.demand(type == "default" || r.scaling != RopeScaling::none,
           "rope_type: expected default, linear, dynamic, yarn, longrope or llama3, found " + type);
  if (!q.status()) p.demand(false, "rope_parameters: " + q.status().error().message);
}

inline void demand_text(FileFields<JsonFields>& p, std::string_view key, std::string_view expected) {
  const std::string found = p.text(key, expected);
  p.demand(found == expected, "\"" + std::string(key) + "\": expected " + std::string(expected) + ", found " + found);
}
inline void demand_flag(FileFields<JsonFields>& p, std::string_view key, bool expected, bool otherwise) {
  p.demand(p.boolean(key, otherwise) == expected,
           "\"" + std::string(key) + "\": expected " + (expected ? "true" : "false"));
}

}  // namespace config_from_hugging_face_parts

/// From a config.json of model_type granitemoehybrid or llama.
inline Result<Config> config_from_hugging_face(const Json& config) {
  using namespace config_from_hugging_face_parts;
  const JsonFields json(config);
  const auto type = json.text("model_type");
  if (!type) return type.error();
  const bool granite = *type == "granitemoehybrid";
  if (!granite && *type != "llama") return Error{"\"model_type\": expected granitemoehybrid or llama, found " + *type};

  FileFields<JsonFields> p(json);
  Config c;
  c.vocab = p.integer("vocab_size", 1, FileLimits::vocab);
  c.width = p.integer("hidden_size", 1, FileLimits::width);
  c.context = p.integer("max_position_embeddings", 1, FileLimits::context, 2'048);
  c.layers.count = p.integer("num_hidden_layers", 1, Layers::max);
  c.ffn.hidden = p.integer(granite ? "shared_intermediate_size" : "intermediate_size", 1, FileLimits::width);
  c.norm_eps = p.number("rms_norm_eps", 1e-12, 1, 1e-6);
  c.tied = p.boolean("tie_word_embeddings", false);
  c.attention.heads = p.integer("num_attention_heads", 1, FileLimits::heads);
  c.attention.kv_heads = p.integer("num_key_value_heads", 1, FileLimits::heads, c.attention.heads);
  c.attention.head_dim = p.integer("head_dim", 1, 256, 0);
  if (std::int64_t{c.attention.head_dim} * c.attention.heads == c.width) c.attention.head_dim = 0;
  demand_text(p, "hidden_act", "silu");
  demand_flag(p, "attention_bias", false, false);
  demand_flag(p, "mlp_bias", false, false);
  for (int i = 0; i < c.layers.count; ++i) c.layers.kind[static_cast<std::size_t>(i)] = Kind::attention;

  if (granite) {
    p.demand(p.integer("num_local_experts", 0, 1 << 16, 8) == 0, "\"num_local_experts\": expected 0: no experts");
    c.embedding_scale = p.number("embedding_multiplier", -1e6, 1e6, 1);
    c.residual_scale = p.number("residual_multiplier", -1e6, 1e6, 1);
    c.logit_scale = p.number("logits_scaling", -1e6, 1e6, 1);
    c.attention.scale = p.number("attention_multiplier", -1e6, 1e6, 1);
    const std::string position = p.text("position_embedding_type", "none");
    if (position != "rope") c.attention.position = Position::none;
    p.demand(position == "rope" || position == "nope" || position == "none",
             "\"position_embedding_type\": expected rope or null, found " + position);
    const std::vector<std::string> kinds = p.texts("layer_types");
    p.demand(kinds.size() == static_cast<std::size_t>(c.layers.count),
             "\"layer_types\": expected " + std::to_string(c.layers.count) + " words, found " +
                 std::to_string(kinds.size()));
    for (std::size_t i = 0; p.status() && i < kinds.size(); ++i) {
      const bool mamba = kinds[i] == "mamba" || kinds[i] == "linear_attention";
      p.demand(mamba || kinds[i] == "attention" || kinds[i] == "full_attention",
               "\"layer_types\": expected mamba or attention, found " + kinds[i]);
      if (mamba) c.layers.kind[i] = Kind::mamba2;
    }
  }
  if (has_kind(c, Kind::mamba2)) {
    Mamba2Config& m = c.mamba2;
    const int heads = p.integer("mamba_n_heads", 1, 1 << 16, 128);
    m.expand = p.integer("mamba_expand", 1, 8, 2);
    m.state = p.integer("mamba_d_state", 1, 256, 256);
    m.groups = p.integer("mamba_n_groups", 1, 1 << 16, 1);
    m.conv = p.integer("mamba_d_conv", 1, 8, 4);
    m.head_dim = static_cast<int>(c.ssm_inner() / heads);
    if (json.integer("mamba_d_head")) m.head_dim = p.integer("mamba_d_head", 1, 256);  // else "auto"
    p.demand(std::int64_t{m.head_dim} * heads == c.ssm_inner(),
             "\"mamba_n_heads\": expected mamba_expand * hidden_size = mamba_n_heads * mamba_d_head, found " +
                 std::to_string(c.ssm_inner()) + " and " + std::to_string(heads) + " * " + std::to_string(m.head_dim));
    demand_flag(p, "mamba_conv_bias", true, true);
    demand_flag(p, "mamba_proj_bias", false, false);
  }
  if (has_kind(c, Kind::attention) && c.attention.position == Position::rope) read_rope(json, p, c);
  return checked_config(c, p);
}

/// Of a folder, or of its config.json.
inline Result<Config> config_from_hugging_face(const std::string& path) {
  const std::string name = path.ends_with(".json") ? path : path + "/config.json";
  const auto read = [&]() -> Result<Config> {
    const auto file = MappedFile::open(name);
    if (!file) return file.error();
    if (file->size() > (std::size_t{16} << 20)) return Error{"it is larger than 16 MiB"};
    const auto json = Json::parse(file->text());
    if (!json) return json.error();
    return config_from_hugging_face(*json);
  };
  auto config = read();
  if (!config) return Error{"cannot read the config of " + name + ": " + config.error().message};
  return config;
}

}  // namespace chimera::inline CHIMERA_ABI
