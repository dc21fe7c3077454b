// A model's Config from the files of others: the metadata of a GGUF file, the config.json of a Hugging Face folder.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/config_text.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/parameters.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/json.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/train/checkpoint.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// The key of a whole config in a GGUF file of ours: lines of config_text.hpp.
inline constexpr std::string_view config_key = "chimera.config";

namespace config_parts {

/// Bounds of what a file may say; broken_rule holds the rest against one another.
inline constexpr int max_vocab = 1 << 24, max_width = most_columns, max_context = 1 << 24, max_heads = 1 << 12;

template <class File>
Result<Config> checked(Config c, const Parameters<File>& parameters) {
  if (!parameters.status()) return parameters.status().error();
  if (const char* broken = broken_rule(c)) return Error{std::string("no model can have these numbers: ") + broken};
  return c;
}

/// The one value of all layers that have one (not 0).
template <class File>
int common(Parameters<File>& p, const std::vector<int>& values, std::string_view key) {
  int value = 0;
  for (const int v : values) {
    p.demand(v == 0 || value == 0 || v == value, std::string(key) + ": expected the same number in all layers, found " +
                                                     std::to_string(value) + " and " + std::to_string(v));
    if (v != 0) value = v;
  }
  return value;
}

/// The factors of a tensor of f32, one for each pair of channels that turns.
inline Result<std::vector<float>> factors_of(const GgufTensor& t, std::int64_t pairs) {
  if (t.format != Format::f32 || t.size() != pairs)
    return Error{t.name + ": expected " + std::to_string(pairs) + " values of F32, found " + std::to_string(t.size()) +
                 " of " + std::string(format_info(t.format)->name)};
  std::vector<float> values(static_cast<std::size_t>(pairs));
  std::memcpy(values.data(), t.data.data(), values.size() * sizeof(float));
  for (const float v : values)
    if (!(v >= 1e-6f && v <= 1e6f)) return Error{t.name + ": expected factors from 1e-6 to 1e6, found " + to_text(v)};
  return values;
}

/// llama.cpp's account of the rotation: rope.* keys, and tensors of factors.
inline Status read_rope(const Gguf& file, Parameters<Gguf>& p, Config& c) {
  Rope& r = c.attention.rope;
  r.base = p.number("rope.freq_base", 1.001, 1e12, 10'000);
  r.dims = p.integer("rope.dimension_count", 2, 2 * Rope::max_pairs, static_cast<int>(c.head_dim()));
  if (r.dims == c.head_dim()) r.dims = 0;
  if (!p.boolean("rope.scaling.finetuned", true)) c.attention.position = Position::none;
  const std::string type = p.text("rope.scaling.type", p.has("rope.scaling.factor") ? "linear" : "none");
  r.factor = p.number("rope.scaling.factor", 1, 1e6, 1);
  r.original_context = p.integer("rope.scaling.original_context_length", 1, max_context, 0);
  r.attention_factor = p.number("rope.scaling.attn_factor", 0, 1e3, 0);
  if (type == "none") r.factor = 1;
  if (type == "linear" && r.factor != 1) r.scaling = RopeScaling::linear;
  if (type == "yarn") {
    r.scaling = RopeScaling::yarn;
    r.beta_fast = p.number("rope.scaling.yarn_beta_fast", 0, 1e6, 32);
    r.beta_slow = p.number("rope.scaling.yarn_beta_slow", 0, 1e6, 1);
    // llama.cpp multiplies YaRN's own temperature by attn_factor.
    if (r.attention_factor != 0) r.attention_factor *= 0.1f * std::log(r.factor) + 1;
  }
  p.demand(type == "none" || type == "linear" || type == "yarn" || type == "longrope",
           "rope.scaling.type: expected none, linear, yarn or longrope, found " + type);

  const GgufTensor *all = file.tensor("rope_freqs.weight"), *longer = file.tensor("rope_factors_long.weight"),
                   *shorter = file.tensor("rope_factors_short.weight");
  if (!all && type != "longrope") return {};
  if (!p.status()) return p.status();
  if (type == "yarn") return Error{"rope_freqs.weight: YaRN with factors of its own is not known here"};
  if (!all && (!longer || !shorter))
    return Error{
        "rope.scaling.type is longrope: expected rope_factors_long.weight and rope_factors_short.weight, or "
        "rope_freqs.weight"};
  const auto fill = [&](const GgufTensor& t, auto& list) -> Status {
    const auto values = factors_of(t, c.rope_dims() / 2);
    if (!values) return values.error();
    for (std::size_t i = 0; i < values->size(); ++i) list[i] = (*values)[i] * (type == "linear" ? r.factor : 1.f);
    return {};
  };
  if (Status s = fill(all ? *all : *shorter, r.short_factor); !s) return s;
  if (Status s = fill(all ? *all : *longer, r.long_factor); !s) return s;
  r.scaling = RopeScaling::longrope;
  r.factor = 1;
  return {};
}

}  // namespace config_parts

/// From the metadata and the tensors' shapes of architecture granitehybrid, granite, llama, bitnet, or our own.
inline Result<Config> config_from_gguf(const Gguf& file) {
  using namespace config_parts;
  const auto architecture = file.text("general.architecture");
  if (!architecture) return architecture.error();
  if (*architecture == "chimera") {
    const auto lines = file.text(config_key);
    if (!lines) return lines.error();
    return config_from_lines(*lines);
  }
  const bool hybrid = *architecture == "granitehybrid", granite = hybrid || *architecture == "granite";
  const bool bitnet = *architecture == "bitnet";
  if (!granite && !bitnet && *architecture != "llama")
    return Error{"general.architecture: expected granitehybrid, granite, llama, bitnet or chimera, found " +
                 std::string(*architecture)};

  Parameters<Gguf> p(file, std::string(*architecture) + ".");
  Config c;
  c.sub_norm = bitnet;
  c.width = p.integer("embedding_length", 1, max_width);
  c.context = p.integer("context_length", 1, max_context);
  c.layers.count = p.integer("block_count", 1, Layers::max);
  c.norm_eps = p.number("attention.layer_norm_rms_epsilon", 1e-12, 1);
  c.ffn.hidden = common(p, p.per_layer("feed_forward_length", c.layers.count, 1, max_width), "feed_forward_length");
  p.demand(p.integer("expert_count", 0, 1 << 16, 0) == 0, "expert_count: expected no experts");
  c.attention.heads =
      common(p, p.per_layer("attention.head_count", c.layers.count, 0, max_heads), "attention.head_count");
  std::vector<int> kv_heads(static_cast<std::size_t>(c.layers.count), c.attention.heads);
  if (hybrid || p.has("attention.head_count_kv"))
    kv_heads = p.per_layer("attention.head_count_kv", c.layers.count, hybrid ? 0 : 1, max_heads);
  c.attention.kv_heads = common(p, kv_heads, "attention.head_count_kv");
  for (int i = 0; i < c.layers.count; ++i)
    c.layers.kind[static_cast<std::size_t>(i)] =
        kv_heads[static_cast<std::size_t>(i)] > 0 ? Kind::attention : Kind::mamba2;

  if (has_kind(c, Kind::attention)) {
    p.demand(c.attention.heads > 0, "attention.head_count: expected at least one head");
    c.attention.head_dim = p.integer("attention.key_length", 1, 256, 0);
    p.demand(p.integer("attention.value_length", 1, 256, static_cast<int>(c.head_dim())) == c.head_dim(),
             "attention.value_length: expected the same number as attention.key_length");
    if (std::int64_t{c.attention.head_dim} * c.attention.heads == c.width) c.attention.head_dim = 0;
    if (p.status())
      if (Status s = read_rope(file, p, c); !s) return s.error();
  }
  if (has_kind(c, Kind::mamba2)) {
    const int inner = p.integer("ssm.inner_size", 1, max_width), heads = p.integer("ssm.time_step_rank", 1, inner);
    p.demand(inner % c.width == 0 && inner % heads == 0,
             "ssm.inner_size: expected a multiple of embedding_length and of ssm.time_step_rank, found " +
                 std::to_string(inner));
    c.mamba2.expand = inner / c.width, c.mamba2.head_dim = inner / heads;
    c.mamba2.state = p.integer("ssm.state_size", 1, 256);
    c.mamba2.groups = p.integer("ssm.group_count", 1, heads);
    c.mamba2.conv = p.integer("ssm.conv_kernel", 1, 8);
  }
  if (granite) {  // 0 means off
    const auto scale = [&](const char* key, float& value) {
      if (const float given = p.number(key, -1e6, 1e6, 0); given != 0) value = given;
    };
    scale("embedding_scale", c.embedding_scale);
    scale("residual_scale", c.residual_scale);
    scale("logit_scale", c.logit_scale);
    scale("attention.scale", c.attention.scale);
  }

  const GgufTensor* embedding = file.tensor("token_embd.weight");
  if (!embedding) return Error{"the file has no tensor token_embd.weight"};
  p.demand(embedding->ne[1] <= max_vocab, "token_embd.weight: expected at most " + std::to_string(max_vocab) +
                                              " rows, found " + std::to_string(embedding->ne[1]));
  c.vocab = static_cast<int>(std::min<std::int64_t>(embedding->ne[1], max_vocab));
  p.demand(p.integer("vocab_size", 1, max_vocab, c.vocab) == c.vocab,
           "vocab_size: expected the " + std::to_string(c.vocab) + " rows of token_embd.weight");
  c.tied = !file.tensor("output.weight");
  return checked(c, p);
}

namespace config_parts {

/// transformers' account of the rotation: rope_parameters, or rope_theta and rope_scaling as older versions wrote them.
inline void read_rope(const JsonFields& json, Parameters<JsonFields>& p, Config& c) {
  Rope& r = c.attention.rope;
  const auto given = json.object("rope_parameters"), scaling = given ? given : json.object("rope_scaling");
  const JsonFields& fields = scaling ? *scaling : json;
  Parameters<JsonFields> q(fields);
  r.base = p.number("rope_theta", 1.001, 1e12, 10'000);
  if (given) r.base = q.number("rope_theta", 1.001, 1e12, static_cast<double>(r.base));
  p.demand(p.number("partial_rotary_factor", 0, 1, 1) == 1, "partial_rotary_factor: expected 1");
  const std::string type = scaling ? q.text("rope_type", q.text("type", "default")) : "default";
  if (type != "default") {
    r.factor = q.number("factor", 1, 1e6, 1);
    r.original_context = q.integer("original_max_position_embeddings", 1, max_context,
                                   p.integer("original_max_position_embeddings", 1, max_context, 0));
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

inline void demand_text(Parameters<JsonFields>& p, std::string_view key, std::string_view expected) {
  const std::string found = p.text(key, expected);
  p.demand(found == expected, "\"" + std::string(key) + "\": expected " + std::string(expected) + ", found " + found);
}
inline void demand_flag(Parameters<JsonFields>& p, std::string_view key, bool expected, bool otherwise) {
  p.demand(p.boolean(key, otherwise) == expected,
           "\"" + std::string(key) + "\": expected " + (expected ? "true" : "false"));
}

}  // namespace config_parts

/// From a config.json of model_type granitemoehybrid or llama.
inline Result<Config> config_from_hugging_face(const Json& config) {
  using namespace config_parts;
  const JsonFields json(config);
  const auto type = json.text("model_type");
  if (!type) return type.error();
  const bool granite = *type == "granitemoehybrid";
  if (!granite && *type != "llama") return Error{"\"model_type\": expected granitemoehybrid or llama, found " + *type};

  Parameters<JsonFields> p(json);
  Config c;
  c.vocab = p.integer("vocab_size", 1, max_vocab);
  c.width = p.integer("hidden_size", 1, max_width);
  c.context = p.integer("max_position_embeddings", 1, max_context, 2'048);
  c.layers.count = p.integer("num_hidden_layers", 1, Layers::max);
  c.ffn.hidden = p.integer(granite ? "shared_intermediate_size" : "intermediate_size", 1, max_width);
  c.norm_eps = p.number("rms_norm_eps", 1e-12, 1, 1e-6);
  c.tied = p.boolean("tie_word_embeddings", false);
  c.attention.heads = p.integer("num_attention_heads", 1, max_heads);
  c.attention.kv_heads = p.integer("num_key_value_heads", 1, max_heads, c.attention.heads);
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
  return checked(c, p);
}

/// Of a GGUF file, a Hugging Face folder or its config.json, a checkpoint or a run's folder.
inline Result<Config> config_from_file(const std::string& path) {
  const auto named = [&](const std::string& file, Result<Config> config) -> Result<Config> {
    if (config) return config;
    return Error{"cannot read the config of " + file + ": " + config.error().message};
  };
  if (path.ends_with(".gguf")) {
    const auto file = Gguf::open(path);
    if (!file) return file.error();
    return named(path, config_from_gguf(*file));
  }
  const std::string json_path = is_folder(path) ? path + "/config.json" : path;
  if (exists(json_path) && json_path.ends_with(".json")) {
    const auto file = MappedFile::open(json_path);
    if (!file) return file.error();
    if (file->size() > (std::size_t{16} << 20)) return named(json_path, Error{"it is larger than 16 MiB"});
    const auto json = Json::parse(file->text());
    if (!json) return named(json_path, json.error());
    return named(json_path, config_from_hugging_face(*json));
  }
  const auto checkpoint = find_checkpoint(path);
  if (!checkpoint) return checkpoint.error();
  const auto header = read_checkpoint_header(*checkpoint);
  if (!header) return header.error();
  const Config& config = header->info.model.config;
  if (config.vocab == 0) return named(*checkpoint, Error{"it was written before checkpoints held one"});
  if (const char* broken = broken_rule(config)) return named(*checkpoint, Error{broken});
  return config;
}

/// Whether weights mean the same in both: equal in all but what may differ between runs (config_hash), whatever the
/// order of channels that turn, and however the frequencies of their rotation are written down.
inline bool same_meaning(const Config& a, const Config& b) {
  const auto plain = [](Config c) {
    if (c.attention.scale == 0.f && c.head_dim() > 0)
      c.attention.scale = 1.f / std::sqrt(static_cast<float>(c.head_dim()));
    c.attention.window = c.window() == c.context ? 0 : c.attention.window;
    const auto dims = static_cast<int>(c.rope_dims());
    c.attention.rope = {.base = 1, .dims = dims};
    return c;
  };
  Config x = plain(a), y = plain(b);
  const auto near = [](float& given, float& other) {
    if (std::abs(given - other) <= 1e-6f * std::abs(given)) other = given;
  };
  near(x.attention.scale, y.attention.scale);
  if (config_hash(x) != config_hash(y)) return false;
  if (!has_kind(a, Kind::attention) || a.attention.position != Position::rope) return true;
  const auto dims = static_cast<int>(a.rope_dims());
  float of_a[Rope::max_pairs], of_b[Rope::max_pairs];
  const float factor_a = rope_frequencies(a.attention.rope, dims, a.context, a.context, of_a);
  const float factor_b = rope_frequencies(b.attention.rope, dims, b.context, b.context, of_b);
  const auto close = [](float p, float q) { return std::abs(p - q) <= 1e-5f * std::abs(p); };
  return close(factor_a, factor_b) && std::equal(of_a, of_a + dims / 2, of_b, close);
}

}  // namespace chimera::inline CHIMERA_ABI
