// A model's Config from the metadata and the tensors of a GGUF file.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/config_text.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/file_fields.hpp>
#include <chimera/io/gguf.hpp>

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

namespace config_from_gguf_parts {

/// The one value of all layers that have one (not 0).
template <class File>
int common(FileFields<File>& p, const std::vector<int>& values, std::string_view key) {
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
inline Status read_rope(const Gguf& file, FileFields<Gguf>& p, Config& c) {
  Rope& r = c.attention.rope;
  r.base = p.number("rope.freq_base", 1.001, 1e12, 10'000);
  r.dims = p.integer("rope.dimension_count", 2, 2 * Rope::max_pairs, static_cast<int>(c.head_dim()));
  if (r.dims == c.head_dim()) r.dims = 0;
  if (!p.boolean("rope.scaling.finetuned", true)) c.attention.position = Position::none;
  const std::string type = p.text("rope.scaling.type", p.has("rope.scaling.factor") ? "linear" : "none");
  r.factor = p.number("rope.scaling.factor", 1, 1e6, 1);
  r.original_context = p.integer("rope.scaling.original_context_length", 1, FileLimits::context, 0);
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

}  // namespace config_from_gguf_parts

/// From the metadata and the tensors' shapes of architecture granitehybrid, granite, llama, bitnet, or our own.
inline Result<Config> config_from_gguf(const Gguf& file) {
  using namespace config_from_gguf_parts;
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

  FileFields<Gguf> p(file, std::string(*architecture) + ".");
  Config c;
  c.sub_norm = bitnet;
  c.width = p.integer("embedding_length", 1, FileLimits::width);
  c.context = p.integer("context_length", 1, FileLimits::context);
  c.layers.count = p.integer("block_count", 1, Layers::max);
  c.norm_eps = p.number("attention.layer_norm_rms_epsilon", 1e-12, 1);
  c.ffn.hidden =
      common(p, p.per_layer("feed_forward_length", c.layers.count, 1, FileLimits::width), "feed_forward_length");
  p.demand(p.integer("expert_count", 0, 1 << 16, 0) == 0, "expert_count: expected no experts");
  c.attention.heads =
      common(p, p.per_layer("attention.head_count", c.layers.count, 0, FileLimits::heads), "attention.head_count");
  std::vector<int> kv_heads(static_cast<std::size_t>(c.layers.count), c.attention.heads);
  if (hybrid || p.has("attention.head_count_kv"))
    kv_heads = p.per_layer("attention.head_count_kv", c.layers.count, hybrid ? 0 : 1, FileLimits::heads);
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
    const int inner = p.integer("ssm.inner_size", 1, FileLimits::width),
              heads = p.integer("ssm.time_step_rank", 1, inner);
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
  p.demand(embedding->ne[1] <= FileLimits::vocab, "token_embd.weight: expected at most " +
                                                      std::to_string(FileLimits::vocab) + " rows, found " +
                                                      std::to_string(embedding->ne[1]));
  c.vocab = static_cast<int>(std::min<std::int64_t>(embedding->ne[1], FileLimits::vocab));
  p.demand(p.integer("vocab_size", 1, FileLimits::vocab, c.vocab) == c.vocab,
           "vocab_size: expected the " + std::to_string(c.vocab) + " rows of token_embd.weight");
  c.tied = !file.tensor("output.weight");
  return checked_config(c, p);
}

}  // namespace chimera::inline CHIMERA_ABI
