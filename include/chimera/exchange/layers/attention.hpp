// Grouped-query attention in files: q, k and v are tensors of their own; how its heads turn is told in many ways.
#pragma once

#include <chimera/exchange/layer_files.hpp>
#include <chimera/kernels/f32/rope.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace attention_files_parts {

/// Where the file's channels turn in another order than the model's. Of each head's rows in the file, `of_head` of them,
/// only the first head_dim turn.
inline void turn_rows(FileWeight& w, const Config& c, Family family, std::int64_t of_head) {
  const bool halves = is_hugging_face(family) || family == Family::gguf_halves || family == Family::gguf_qwen35;
  const RopeLayout theirs = halves ? RopeLayout::halves : RopeLayout::adjacent;
  if (c.attention.position != Position::rope || c.attention.rope.layout == theirs) return;
  const std::int64_t turning = c.rope_dims(), half = turning / 2;
  if (w.our_rows.empty()) {
    w.our_rows.resize(static_cast<std::size_t>(w.rows));
    std::iota(w.our_rows.begin(), w.our_rows.end(), std::int64_t{0});
  }
  const std::vector<std::int64_t> before = w.our_rows;
  for (std::int64_t r = 0; r < w.rows; ++r) {
    const std::int64_t i = r % of_head;
    if (i >= turning) continue;
    const std::int64_t there = r - i + (halves ? i % half * 2 + i / half : i % 2 * half + i / 2);
    w.our_rows[static_cast<std::size_t>(r)] = before[static_cast<std::size_t>(there)];
  }
}
inline void turn(FileWeight& w, const Config& c, Family family) { turn_rows(w, c, family, c.head_dim()); }
/// Files have each head's query and then its gate; we have all gates, and then all queries.
inline void turn_query(FileWeight& w, const Config& c, Family family) {
  if (!c.attention.output_gate) return turn(w, c, family);
  const std::int64_t D = c.head_dim(), queries = c.attention.heads * D;
  for (std::int64_t r = 0; r < w.rows; ++r)
    w.our_rows.push_back((r / D % 2 == 0 ? queries : 0) + r / (2 * D) * D + r % D);
  turn_rows(w, c, family, 2 * D);
}
inline void turn_norm(FileWeight& w, const Config& c, Family family) {
  zero_centred(w, c, family);
  turn(w, c, family);
}

constexpr FileRow row(std::string_view ours, std::string_view gguf, std::string_view hugging_face,
                      std::string_view griffin, int part = -1, decltype(FileRow::adapt) adapt = nullptr,
                      MoreBits bits = MoreBits::none) {
  return {.ours = ours,
          .gguf = {gguf},
          .granite = {hugging_face},
          .llama = {hugging_face},
          .griffin = {griffin},
          .part = part,
          .bits = bits,
          .adapt = adapt};
}
inline constexpr std::array rows{
    row("attn_qkv.weight", "attn_q.weight", "self_attn.q_proj.weight", "temporal_block.q_proj.weight", 0, turn_query),
    row("attn_qkv.weight", "attn_k.weight", "self_attn.k_proj.weight", "temporal_block.k_proj.weight", 1, turn),
    row("attn_qkv.weight", "attn_v.weight", "self_attn.v_proj.weight", "temporal_block.v_proj.weight", 2, nullptr,
        MoreBits::value),
    row("attn_sub_norm.weight", "attn_sub_norm.weight", "self_attn.attn_sub_norm.weight", ""),
    row("attn_output.weight", "attn_output.weight", "self_attn.o_proj.weight", "temporal_block.o_proj.weight"),
    row("attn_qkv.bias", "attn_q.bias", "self_attn.q_proj.bias", "temporal_block.q_proj.bias", 0, turn_query),
    row("attn_qkv.bias", "attn_k.bias", "self_attn.k_proj.bias", "temporal_block.k_proj.bias", 1, turn),
    row("attn_qkv.bias", "attn_v.bias", "self_attn.v_proj.bias", "temporal_block.v_proj.bias", 2),
    row("attn_output.bias", "attn_output.bias", "self_attn.o_proj.bias", "temporal_block.o_proj.bias"),
    row("attn_q_norm.weight", "attn_q_norm.weight", "self_attn.q_norm.weight", "", -1, turn_norm),
    row("attn_k_norm.weight", "attn_k_norm.weight", "self_attn.k_norm.weight", "", -1, turn_norm)};

inline constexpr std::array<std::string_view, 2> words{"attention", "full_attention"};

inline float scale_of(const Config& c) {
  return c.attention.scale != 0 ? c.attention.scale : 1 / std::sqrt(static_cast<float>(c.head_dim()));
}
inline bool has_plain_scale(const Config& c) {
  return c.attention.scale == 0 ||
         std::fabs(c.attention.scale * std::sqrt(static_cast<float>(c.head_dim())) - 1) < 1e-6f;
}
inline bool turns_wholly(const Config& c) {
  return c.attention.position == Position::rope && c.rope_dims() == c.head_dim();
}
/// Whether a scaling of the rotation has a factor for each pair of channels.
inline bool has_factors(const Config& c) {
  const RopeScaling scaling = c.attention.rope.scaling;
  return scaling == RopeScaling::llama3 || scaling == RopeScaling::longrope;
}
/// Whether LongRoPE leaves the first positions as they were.
inline bool keeps_first(const Config& c) {
  const AttentionConfig& a = c.attention;
  return a.position == Position::rope && a.rope.scaling == RopeScaling::longrope && a.rope.kept > 0;
}
inline bool has_window(const Config& c) { return c.window() < c.context; }

/// What llama.cpp calls a model of attention alone, without multipliers.
inline std::string_view dense(const Config& c) {
  const AttentionConfig& a = c.attention;
  if (a.qk_norm) return "qwen3";
  if (!has_plain_scale(c) || !turns_wholly(c)) return "granite";
  const bool qwen2 = a.qkv_bias && !a.output_bias && !has_factors(c) && c.head_dim() * a.heads == c.width;
  return qwen2 ? "qwen2" : "llama";
}
/// What transformers calls it.
inline std::string_view dense_type(const Config& c) {
  const AttentionConfig& a = c.attention;
  if (a.output_gate) return "qwen3_5_text";
  if (c.sub_norm) return "bitnet";
  if (a.position == Position::none) return "granitemoehybrid";
  if (a.qk_norm) return "qwen3";
  if (!has_plain_scale(c)) return "granite";
  if (a.qkv_bias && !a.output_bias) return "qwen2";
  // Llama's class alone checks that heads divide the width.
  return !a.qkv_bias && (has_window(c) || c.width % a.heads != 0) ? "mistral" : "llama";
}

inline std::string unknown_to_bitnet(const Config& c) {
  if (c.attention.qkv_bias || c.attention.output_bias || c.attention.qk_norm)
    return "its bitnet has no biases and no norms of queries and keys";
  if (c.attention.heads * c.head_dim() != c.width) return "its bitnet wants heads * head_dim to be the width";
  if (!turns_wholly(c)) return "its bitnet wants rotary positions in all channels";
  if (c.attention.rope.scaling != RopeScaling::none && c.attention.rope.scaling != RopeScaling::linear)
    return "its bitnet has linear scaling alone";
  if (has_window(c)) return "its bitnet has no sliding window";
  return has_plain_scale(c) ? "" : "its bitnet has no multipliers";
}
inline bool a_qwen35(const Config& c) { return has_kind(c, Kind::gated_deltanet); }
/// Both llama.cpp's and transformers'.
inline std::string unknown_to_qwen35(const Config& c) {
  const AttentionConfig& a = c.attention;
  if (!a.output_gate || !a.qk_norm) return "its qwen35 has output gates and norms of queries and keys";
  if (a.qkv_bias || a.output_bias || has_window(c)) return "its qwen35 has no biases and no sliding window";
  if (a.position != Position::rope || a.rope.scaling != RopeScaling::none)
    return "its qwen35 has rotary positions, and no scaling of them";
  return has_plain_scale(c) && has_plain_scales(c) ? "" : "its qwen35 has no multipliers";
}
inline std::string unknown_to_llama_cpp(const Config& c) {
  if (c.sub_norm) return unknown_to_bitnet(c);
  if (a_qwen35(c)) return unknown_to_qwen35(c);
  if (c.attention.output_gate) return "its qwen35, which alone has output gates, wants Gated DeltaNet";
  if (has_window(c)) return "its granitehybrid and llama have no sliding window";
  if (c.attention.position == Position::alibi) return "its granitehybrid and llama have no ALiBi";
  if (c.attention.qk_norm) {
    if (has_kind(c, Kind::mamba2) || !has_plain_scales(c) || !has_plain_scale(c))
      return "its qwen3, which alone has norms of queries and keys, has attention layers alone and no multipliers";
    if (!turns_wholly(c) || has_factors(c))
      return "its qwen3, which alone has norms of queries and keys, turns all channels of a head, and without factors";
  }
  const Rope& r = c.attention.rope;
  if (c.attention.position == Position::rope && r.scaling == RopeScaling::yarn &&
      (r.beta_fast != 32 || r.beta_slow != 1))
    return "its granitehybrid and llama have YaRN's usual ramp alone, from 32 turns to 1";
  if (keeps_first(c)) return "its models scale the first positions, too";
  return "";
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

/// Whether the first block with attention has that tensor.
inline bool has_tensor(const Gguf& file, const Config& c, std::string_view name) {
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] == Kind::attention)
      return file.tensor("blk." + std::to_string(i) + "." + std::string(name)) != nullptr;
  return false;
}

/// Whether a context is longer than the one that a model was trained on.
inline bool grows(const Config& c) {
  const int original = c.attention.rope.original_context;
  return original != 0 && original < c.context;
}

/// What YaRN multiplies cos and sin with by itself.
inline float yarn_temperature(float factor) { return factor <= 1 ? 1.f : 0.1f * std::log(factor) + 1; }

/// llama.cpp's account of the rotation: rope.* keys, and tensors of factors.
inline Result<void> read_rope(const Gguf& file, FileFields<Gguf>& p, std::string_view architecture, Config& c) {
  const bool granite = architecture.starts_with("granite");
  Rope& r = c.attention.rope;
  r.base = p.number("rope.freq_base", 1.001, 1e12, 10'000);
  r.dims = p.integer("rope.dimension_count", 2, 2 * Rope::most_pairs, static_cast<int>(c.head_dim()));
  if (r.dims == c.head_dim()) r.dims = 0;
  // Granite's switch of the rotation. Of other architectures it tells how a model was trained, and changes nothing.
  if (granite && !p.boolean("rope.scaling.finetuned", true)) c.attention.position = Position::none;
  const std::string type = p.text("rope.scaling.type", "linear");
  const char* factor = p.has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";  // its old name
  if (type != "none") r.factor = p.number(factor, 0, 1e6, 0);
  if (r.factor == 0) r.factor = 1;
  p.demand(r.factor >= 1e-3f, std::string(factor) + ": expected 0 or a number of at least 0.001");
  r.original_context = p.integer("rope.scaling.original_context_length", 0, FileLimits::context, 0);
  r.attention_factor = p.number("rope.scaling.attn_factor", 1e-6, 1e3, 0);
  p.demand_neutral("rope.scaling.alpha", {0});
  p.demand_neutral("rope.scaling.yarn_log_multiplier", {0});
  p.demand_neutral("rope.scaling.yarn_ext_factor", {-1, type == "yarn" ? 1. : 0.});
  p.demand_neutral("rope.scaling.yarn_attn_factor", {1});
  if (architecture != "qwen35") p.demand_neutral("rope.dimension_sections", {0});  // all positions of a text are equal
  p.demand_neutral("attention.rope_pattern", {1, c.attention.position == Position::none ? 0. : 1.});
  if (type == "linear" && r.factor != 1) r.scaling = RopeScaling::linear;
  if (type == "yarn") {
    r.scaling = RopeScaling::yarn;
    r.beta_fast = p.number("rope.scaling.yarn_beta_fast", 0, 1e6, 32);
    r.beta_slow = p.number("rope.scaling.yarn_beta_slow", 0, 1e6, 1);
    // llama.cpp multiplies YaRN's own temperature by attn_factor.
    if (r.attention_factor != 0) r.attention_factor *= yarn_temperature(r.factor);
  }
  p.demand(type == "none" || type == "linear" || type == "yarn" || type == "longrope",
           "rope.scaling.type: expected none, linear, yarn or longrope, found " + type);

  const GgufTensor *all = file.tensor("rope_freqs.weight"), *longer = file.tensor("rope_factors_long.weight"),
                   *shorter = file.tensor("rope_factors_short.weight");
  if (!p.status()) return p.status();
  if (type != "longrope" && (longer || shorter))
    return Error{"rope_factors_long.weight, rope_factors_short.weight: expected rope.scaling.type longrope, found " +
                 type};
  if (!all && type != "longrope") return {};
  if (type == "yarn") return Error{"rope_freqs.weight: YaRN with factors of its own is not known here"};
  if (!all && (!longer || !shorter))
    return Error{
        "rope.scaling.type is longrope: expected rope_factors_long.weight and rope_factors_short.weight, or "
        "rope_freqs.weight"};
  const auto fill = [&](const GgufTensor& t, auto& list) -> Result<void> {
    const auto values = factors_of(t, c.rope_dims() / 2);
    if (!values) return values.error();
    for (std::size_t i = 0; i < values->size(); ++i) list[i] = (*values)[i] * r.factor;
    return {};
  };
  if (Result<void> s = fill(all ? *all : *shorter, r.short_factor); !s) return s;
  if (Result<void> s = fill(all ? *all : *longer, r.long_factor); !s) return s;
  r.scaling = RopeScaling::longrope;
  r.factor = 1;
  return {};
}

inline Result<void> read_gguf(const GgufKeys& k, Config& c) {
  FileFields<Gguf>& p = k.fields;
  AttentionConfig& a = c.attention;
  const bool hybrid = k.architecture == "granitehybrid", granite = hybrid || k.architecture == "granite";
  constexpr std::string_view heads = "attention.head_count", kv_heads = "attention.head_count_kv";
  a.heads = p.common(p.per_layer(heads, c.layers.count, 0, FileLimits::heads), heads);
  a.kv_heads = a.heads;
  if (hybrid || p.has(kv_heads))
    a.kv_heads = p.common(p.per_layer(kv_heads, c.layers.count, hybrid ? 0 : 1, FileLimits::heads), kv_heads);
  p.demand(a.heads > 0, "attention.head_count: expected at least one head");
  a.head_dim = p.integer("attention.key_length", 1, 256, 0);
  p.demand(p.integer("attention.value_length", 1, 256, static_cast<int>(c.head_dim())) == c.head_dim(),
           "attention.value_length: expected the same number as attention.key_length");
  if (std::int64_t{a.head_dim} * a.heads == c.width) a.head_dim = 0;
  a.output_gate = k.architecture == "qwen35";
  a.qk_norm = k.architecture == "qwen3" || a.output_gate;
  a.qkv_bias = k.architecture != "bitnet" && has_tensor(k.file, c, "attn_q.bias");
  a.output_bias = k.architecture != "bitnet" && has_tensor(k.file, c, "attn_output.bias");
  const double plain = 1 / std::sqrt(static_cast<double>(c.head_dim()));
  if (!granite) p.demand_neutral("attention.scale", {0, plain});
  const float scale = granite ? p.number("attention.scale", -1e6, 1e6, 0) : 0;
  if (scale != 0) a.scale = scale;  // 0 means off
  // What llama.cpp's own saver writes of models that have none of these is neutral, too.
  p.demand_neutral("attn_logit_softcapping", {0, 50});
  p.demand_neutral("attention.clamp_kqv", {0});
  p.demand_neutral("attention.max_alibi_bias", {0});
  p.demand_neutral("attention.output_scale", {0, 1});
  p.demand_neutral("attention.value_scale", {0, 1});
  p.demand_neutral("attention.temperature_scale", {0});
  p.demand_neutral("attention.temperature_length", {0});
  p.demand_neutral("attention.causal", {1});
  p.demand_neutral("attention.shared_kv_layers", {0});
  p.demand_neutral("attention.key_length_mla", {0});
  p.demand_neutral("attention.kv_lora_rank", {0});
  const auto window = p.integer("attention.sliding_window", 0, 1 << 30, 0);
  p.demand(window == 0 || window >= c.context,
           "attention.sliding_window: expected none, or one of at least the context's " + std::to_string(c.context) +
               " tokens, found " + std::to_string(window) + ": llama.cpp's " + std::string(k.architecture) +
               " has no window");
  return p.status() ? read_rope(k.file, p, k.architecture, c) : Result<void>{};
}

/// The base of frequencies that a base alone says: NTK scaling, and what dynamic NTK scaling makes of the whole context,
/// which models here turn with at all lengths.
inline float plain_base(const Config& c) {
  const Rope& r = c.attention.rope;
  const auto d = static_cast<double>(c.rope_dims()), factor = static_cast<double>(r.factor);
  double stretch = r.scaling == RopeScaling::ntk ? factor : 1;
  if (r.scaling == RopeScaling::dynamic_ntk && grows(c))
    stretch = factor * c.context / r.original_context - (factor - 1);
  return d > 2 ? static_cast<float>(r.base * std::pow(stretch, d / (d - 2))) : r.base;
}

/// The numbers that divide the plain frequencies; empty where none, linear and yarn say it all.
inline std::vector<float> rope_factors(const Config& c) {
  const Rope& r = c.attention.rope;
  if (!has_factors(c)) return {};
  const auto dims = static_cast<int>(c.rope_dims());
  float plain[Rope::most_pairs], scaled[Rope::most_pairs];
  rope_frequencies({.base = r.base}, dims, c.context, c.context, plain);
  rope_frequencies(r, dims, c.context, c.context, scaled);
  std::vector<float> factors(static_cast<std::size_t>(dims / 2));
  for (std::size_t i = 0; i < factors.size(); ++i) factors[i] = plain[i] / scaled[i];
  return factors;
}

inline void write_rope(const GgufNumbers& file, const Config& c) {
  const Rope& r = c.attention.rope;
  const auto dims = static_cast<int>(c.rope_dims());
  float frequencies[Rope::most_pairs];
  float attention_factor = rope_frequencies(r, dims, c.context, c.context, frequencies);
  file.number("rope.dimension_count", dims);
  file.set("rope.freq_base", plain_base(c));
  if (file.architecture == "qwen35") {
    const std::int32_t third = dims / 6;  // of the pairs, for the positions of three axes
    file.set("rope.dimension_sections", std::vector<std::int32_t>{dims / 2 - 2 * third, third, third, 0});
  }
  const std::string scaling = "rope.scaling.";
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
      attention_factor /= yarn_temperature(r.factor);  // which llama.cpp multiplies in by itself
      break;
    default: file.set(scaling + "type", "none");  // rope_freqs.weight, which goes with it, says the rest
  }
  if (r.scaling != RopeScaling::none)
    file.number(scaling + "original_context_length", r.original_context ? r.original_context : c.context);
  if (std::fabs(attention_factor - 1) > 1e-6f) file.set(scaling + "attn_factor", attention_factor);
}

inline void write_gguf(const GgufNumbers& n, const Config& c) {
  const bool rotary = c.attention.position == Position::rope;
  n.number("attention.head_count", c.attention.heads);
  n.number("attention.key_length", c.head_dim());
  n.number("attention.value_length", c.head_dim());
  if (rotary) write_rope(n, c);
  if (n.granite()) {
    if (c.attention.position == Position::none) n.number("rope.dimension_count", c.head_dim());
    n.set("rope.scaling.finetuned", rotary);
    n.set("attention.scale", scale_of(c));
  }
  if (n.architecture != "granitehybrid") return n.number("attention.head_count_kv", c.kv_heads());
  std::vector<std::int32_t> kv_heads(static_cast<std::size_t>(c.layers.count), 0);
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] == Kind::attention) kv_heads[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(c.kv_heads());
  n.set("attention.head_count_kv", kv_heads);
}
inline FileNumbers gguf_tensor(const Config& c) {
  return {"rope_freqs.weight", c.attention.position == Position::rope ? rope_factors(c) : std::vector<float>{}};
}

inline std::string unknown_to_griffin(const Config& c) {
  const AttentionConfig& a = c.attention;
  if (a.qk_norm || a.output_gate) return "its recurrent_gemma has no output gates and no norms of queries and keys";
  if (!a.output_bias) return "its recurrent_gemma has a bias of attention's output";
  if (a.rope.scaling != RopeScaling::none) return "its recurrent_gemma has no scaling of rotary positions";
  if (c.head_dim() * a.heads != c.width) return "its recurrent_gemma wants width = attention.heads * head_dim";
  return has_plain_scale(c) ? "" : "its recurrent_gemma has no multiplier of attention";
}

inline std::string unknown_to_transformers(const Config& c, std::string_view type) {
  const AttentionConfig& a = c.attention;
  const std::string its = "its " + std::string(type) + " ";
  if (has_window(c) && type != "mistral" && type != "qwen2" && type != "qwen3" && type != "recurrent_gemma")
    return its + "has no sliding window";
  if (a.position == Position::alibi) return its + "has no ALiBi";
  if (a.position == Position::none && type != "granitemoehybrid") return its + "turns queries and keys";
  if (keeps_first(c)) return its + "scales the first positions, too";
  if (type == "qwen3_5_text") return unknown_to_qwen35(c);
  if (type == "recurrent_gemma") return unknown_to_griffin(c);
  if (a.position == Position::rope && !turns_wholly(c)) return its + "turns all channels of a head";
  if (a.qkv_bias != a.output_bias && type != "qwen2")
    return its + "has biases of all of attention's matrices or of none";
  const bool tempered = a.rope.scaling == RopeScaling::yarn || a.rope.scaling == RopeScaling::longrope;
  if (a.position == Position::rope && a.rope.attention_factor != 0 && a.rope.attention_factor != 1 && !tempered)
    return its + "multiplies cos and sin by a factor in YaRN and LongRoPE alone";
  if (type == "qwen2" && a.output_bias) return "its qwen2 has no bias of the output";
  if (type == "mistral" && a.qkv_bias) return "its mistral has no biases";
  if (a.qk_norm && (type != "qwen3" || !has_plain_scale(c)))
    return "its qwen3, which alone has norms of queries and keys, has attention layers alone and no multipliers";
  if (type == "granitemoehybrid" && c.head_dim() * a.heads != c.width)
    return "its granitemoehybrid wants width = attention.heads * head_dim";
  if (type == "llama" && c.width % a.heads != 0) return "its llama wants heads that divide the width";
  if (type == "bitnet" && c.head_dim() * a.heads != c.width)
    return "its bitnet wants width = attention.heads * head_dim";
  if (type == "bitnet" && !has_plain_scale(c)) return "its bitnet has no multipliers";
  return "";
}

/// transformers' account of the rotation: rope_parameters, or rope_theta and rope_scaling as older versions wrote them.
/// Where a file has both, rope_scaling counts. `base` and `share`, of a head's channels that turn: where none is said.
inline void read_rope(const JsonFields& json, FileFields<JsonFields>& p, double base, double share, Config& c) {
  Rope& r = c.attention.rope;
  const auto members = [&](const char* key) {
    const auto found = json.object(key);
    p.demand(found.ok(), found ? "" : found.error().message);
    return found ? *found : std::nullopt;
  };
  const auto older = members("rope_scaling"), newer = members("rope_parameters");
  const std::string whose = older ? "rope_scaling: " : "rope_parameters: ";
  const JsonFields& fields = older ? *older : newer ? *newer : json;
  FileFields<JsonFields> q(fields);
  r.base = q.number("rope_theta", 1.001, 1e12, static_cast<double>(p.number("rope_theta", 1.001, 1e12, base)));
  if (share < 1) {
    const float given = q.number("partial_rotary_factor", 1e-3, 1,
                                 static_cast<double>(p.number("partial_rotary_factor", 1e-3, 1, share)));
    r.dims = static_cast<int>(given * static_cast<float>(c.head_dim()));
    if (r.dims == c.head_dim()) r.dims = 0;
  } else {
    p.demand_neutral("partial_rotary_factor", {1});
    q.demand_neutral("partial_rotary_factor", {1});
  }
  q.demand_neutral("llama_4_scaling_beta", {0});
  const bool given = older || newer;
  const std::string type = given ? q.text("rope_type", q.text("type", "default")) : "default";
  if (given && !fields.first_object().empty())
    p.demand(false, whose + "expected one account for all layers, found one for " + fields.first_object());
  const bool yarn = type == "yarn", longrope = type == "longrope", llama3 = type == "llama3";
  // dynamic and linear scaling know no other context than the model's.
  if (yarn || longrope || llama3)
    r.original_context = p.integer("original_max_position_embeddings", 1, FileLimits::context,
                                   q.integer("original_max_position_embeddings", 1, FileLimits::context, 0));
  if (yarn || longrope) {
    const double context = c.context, ratio = r.original_context ? context / r.original_context : 1;
    r.factor = q.number("factor", 1e-3, 1e6, std::max(ratio, 1e-3));
    r.attention_factor = q.number("attention_factor", 1e-6, 1e3, 0);
  } else if (type != "default") {
    r.factor = q.number("factor", 1e-3, 1e6);
  }
  if (type == "linear") r.scaling = RopeScaling::linear;
  if (type == "dynamic") r.scaling = RopeScaling::dynamic_ntk;
  if (llama3) {
    r.scaling = RopeScaling::llama3;
    r.low_freq_factor = q.number("low_freq_factor", 1e-3, 1e6);
    r.high_freq_factor = q.number("high_freq_factor", 1e-3, 1e6);
  }
  if (yarn) {
    r.scaling = RopeScaling::yarn;
    r.beta_fast = q.number("beta_fast", 0, 1e6, 32), r.beta_slow = q.number("beta_slow", 0, 1e6, 1);
    if (r.beta_fast == 0) r.beta_fast = 32;  // as transformers has it
    if (r.beta_slow == 0) r.beta_slow = 1;
    r.mscale = q.number("mscale", 0, 1e3, 0), r.mscale_all_dim = q.number("mscale_all_dim", 0, 1e3, 0);
    q.demand(q.boolean("truncate", !fields.is_null("truncate")), "truncate: expected true, as YaRN's paper has it");
  }
  if (longrope) {
    r.scaling = RopeScaling::longrope;
    const auto pairs = static_cast<std::size_t>(std::clamp<std::int64_t>(c.rope_dims() / 2, 0, Rope::most_pairs));
    const auto shorter = q.numbers("short_factor", pairs, 1e-6, 1e6),
               longer = q.numbers("long_factor", pairs, 1e-6, 1e6);
    std::copy(shorter.begin(), shorter.end(), r.short_factor.begin());
    std::copy(longer.begin(), longer.end(), r.long_factor.begin());
  }
  p.demand(type == "default" || r.scaling != RopeScaling::none,
           "rope_type: expected default, linear, dynamic, yarn, longrope or llama3, found " + type);
  if (!q.status()) p.demand(false, (given ? whose : "") + q.status().error().message);
}

/// The window of all layers. Where some have one and others have none, no model here is like it.
inline void read_window(const JsonKeys& k, Config& c) {
  FileFields<JsonFields>& p = k.fields;
  const bool qwen = k.type == "qwen2" || k.type == "qwen3", mistral = k.type == "mistral";
  if (k.griffin()) {
    const int local = p.integer("attention_window_size", 1, 1 << 30, 2'048);
    c.attention.window = local < c.context ? local : 0;
    return;
  }
  int window = k.integer_or("sliding_window", 0, 1 << 30, qwen || mistral ? 4'096 : 0, 0);
  if (qwen && !p.boolean("use_sliding_window", false)) window = 0;
  if (window >= c.context) window = 0;
  p.demand(window == 0 || qwen || mistral, "\"sliding_window\": expected none, found " + std::to_string(window) +
                                               ": transformers' " + std::string(k.type) + " has no window");
  int slides = mistral ? c.layers.count : 0;  // layers that have it
  if (qwen) slides = c.layers.count - std::min(p.integer("max_window_layers", 0, 1 << 20, 28), c.layers.count);
  std::string key = "max_window_layers";
  if (!k.hybrid() && k.json.has("layer_types")) {
    const std::vector<std::string> kinds = p.texts("layer_types");
    const auto of = [&](std::string_view word) { return std::count(kinds.begin(), kinds.end(), word); };
    slides = static_cast<int>(of("sliding_attention"));
    p.demand(std::cmp_equal(kinds.size(), c.layers.count) &&
                 slides + of("full_attention") + of("attention") == c.layers.count,
             "\"layer_types\": expected full_attention or sliding_attention for each of " +
                 std::to_string(c.layers.count) + " layers");
    key = "layer_types";
  }
  p.demand(window == 0 || slides == 0 || slides == c.layers.count,
           "\"" + key + "\": expected a sliding window in all layers or in none, found one in " +
               std::to_string(slides) + " of " + std::to_string(c.layers.count));
  p.demand(window == 0 || slides > 0 || qwen, "\"layer_types\": expected sliding_attention in all layers of mistral");
  if (slides > 0) c.attention.window = window;
}

inline void read_json(const JsonKeys& k, Config& c) {
  FileFields<JsonFields>& p = k.fields;
  AttentionConfig& a = c.attention;
  const bool qwen2 = k.type == "qwen2", qwen3 = k.type == "qwen3", mistral = k.type == "mistral", qwen3_5 = k.qwen3_5(),
             bitnet = k.type == "bitnet";
  a.heads = p.integer("num_attention_heads", 1, FileLimits::heads);
  a.kv_heads = k.integer_or("num_key_value_heads", 1, FileLimits::heads,
                            mistral          ? 8
                            : qwen2 || qwen3 ? 32
                            : qwen3_5        ? 4
                            : bitnet         ? 5
                                             : a.heads,
                            a.heads);
  a.head_dim = k.griffin() ? 0 : k.integer_or("head_dim", 1, 256, qwen3_5 ? 256 : qwen3 ? 128 : 0, 0);
  if (std::int64_t{a.head_dim} * a.heads == c.width) a.head_dim = 0;
  const bool bias = !qwen2 && p.boolean("attention_bias", false);
  p.demand(!bias || !mistral, "\"attention_bias\": expected false, as transformers' mistral has it");
  a.qkv_bias = qwen2 || bias, a.output_bias = bias || k.griffin(), a.qk_norm = qwen3 || qwen3_5,
  a.output_gate = qwen3_5;
  if (k.granite()) a.scale = p.number("attention_multiplier", -1e6, 1e6, 1);
  if (k.granite_hybrid()) {
    const std::string position = p.text("position_embedding_type", "none");
    if (position != "rope") a.position = Position::none;
    p.demand(position == "rope" || position == "nope" || position == "none",
             "\"position_embedding_type\": expected rope or null, found " + position);
  }
  read_window(k, c);
  if (a.position != Position::rope) return;
  read_rope(k.json, p, bitnet ? 500'000 : 10'000, qwen3_5 ? 0.25 : k.griffin() ? 0.5 : 1, c);
  p.demand(!k.griffin() || a.rope.scaling == RopeScaling::none, "rope_type: expected default in recurrent_gemma");
}

inline std::string rope_json(const Config& c, std::string_view type) {
  const Rope& r = c.attention.rope;
  JsonMembers m;
  const bool base_says_all = r.scaling == RopeScaling::none || r.scaling == RopeScaling::ntk ||
                             (r.scaling == RopeScaling::dynamic_ntk && grows(c));
  m.add_number("rope_theta", plain_base(c));
  if (type == "qwen3_5_text" || type == "recurrent_gemma")
    m.add_number("partial_rotary_factor", static_cast<float>(c.rope_dims()) / static_cast<float>(c.head_dim()));
  if (type == "qwen3_5_text") {
    const std::int64_t pairs = c.rope_dims() / 2, third = pairs / 3;  // for the positions of three axes
    m.add("mrope_section",
          "[" + std::to_string(pairs - 2 * third) + ", " + std::to_string(third) + ", " + std::to_string(third) + "]");
  }
  constexpr std::array<std::string_view, 7> types{"default", "linear", "default", "dynamic",
                                                  "yarn",    "llama3", "longrope"};
  m.add_text("rope_type", base_says_all ? "default" : types[static_cast<std::size_t>(r.scaling)]);
  if (base_says_all) return m.text();
  m.add_number("factor", r.factor);
  if (r.scaling == RopeScaling::linear || r.scaling == RopeScaling::dynamic_ntk) return m.text();
  m.add_number("original_max_position_embeddings", std::int64_t{r.original_context ? r.original_context : c.context});
  if (r.attention_factor != 0 && r.scaling != RopeScaling::llama3) m.add_number("attention_factor", r.attention_factor);
  if (r.scaling == RopeScaling::yarn) {
    m.add_number("beta_fast", r.beta_fast), m.add_number("beta_slow", r.beta_slow);
    if (r.mscale != 0) m.add_number("mscale", r.mscale);
    if (r.mscale_all_dim != 0) m.add_number("mscale_all_dim", r.mscale_all_dim);
  }
  if (r.scaling == RopeScaling::llama3)
    m.add_number("low_freq_factor", r.low_freq_factor), m.add_number("high_freq_factor", r.high_freq_factor);
  if (r.scaling == RopeScaling::longrope) {
    const auto pairs = static_cast<std::size_t>(c.rope_dims() / 2);
    m.add_numbers("short_factor", std::span(r.short_factor).first(pairs));
    m.add_numbers("long_factor", std::span(r.long_factor).first(pairs));
  }
  return m.text();
}

inline void write_json(JsonMembers& m, const Config& c, std::string_view type) {
  const bool qwen = type == "qwen2" || type == "qwen3";
  m.add_number("num_attention_heads", std::int64_t{c.attention.heads});
  m.add_number("num_key_value_heads", c.kv_heads());
  if (type != "mistral" && type != "qwen2") m.add_flag("attention_bias", c.attention.qkv_bias);
  m.add_number("attention_dropout", std::int64_t{0});
  m.add("rope_parameters", rope_json(c, type));
  if (qwen) m.add_flag("use_sliding_window", has_window(c)), m.add_number("max_window_layers", std::int64_t{0});
  if (qwen || type == "mistral") {
    if (has_window(c))
      m.add_number("sliding_window", c.window());
    else
      m.add("sliding_window", "null");
  }
  if (type != "granitemoehybrid") m.add_number("head_dim", c.head_dim());
  if (type == "recurrent_gemma") m.add_number("attention_window_size", c.window());
  if (type == "granitemoehybrid")
    m.add_text("position_embedding_type", c.attention.position == Position::rope ? "rope" : "nope");
  if (type.starts_with("granite")) m.add_number("attention_multiplier", scale_of(c));
}

inline bool passed_over(std::string_view name) {
  return name.starts_with("rope_f") || name.ends_with("rotary_emb.inv_freq");
}

/// Whatever the order of channels that turn, and however the frequencies of their rotation are written down.
inline bool same_meaning(Config& a, Config& b) {
  const Rope rope_a = a.attention.rope, rope_b = b.attention.rope;
  const int kept_of_a = keeps_first(a) ? rope_a.kept : 0, kept_of_b = keeps_first(b) ? rope_b.kept : 0;
  for (Config* c : {&a, &b}) {
    const auto dims = static_cast<int>(c->rope_dims());
    if (c->head_dim() > 0) c->attention.scale = scale_of(*c);
    if (c->window() == c->context) c->attention.window = 0;
    c->attention.rope = {.base = 1, .dims = dims};
  }
  const float scale = a.attention.scale;
  if (std::fabs(scale - b.attention.scale) <= 1e-6f * std::fabs(scale)) b.attention.scale = scale;
  if (!has_kind(a, Kind::attention) || a.attention.position != Position::rope) return true;
  const int dims = a.attention.rope.dims;
  if (dims != b.attention.rope.dims) return false;
  float of_a[Rope::most_pairs], of_b[Rope::most_pairs];
  const float factor_a = rope_frequencies(rope_a, dims, a.context, a.context, of_a);
  const float factor_b = rope_frequencies(rope_b, dims, b.context, b.context, of_b);
  const auto close = [](float p, float q) { return std::fabs(p - q) <= 1e-5f * std::fabs(p); };
  return kept_of_a == kept_of_b && close(factor_a, factor_b) && std::equal(of_a, of_a + dims / 2, of_b, close);
}

}  // namespace attention_files_parts

inline constexpr LayerFiles attention_files{.kind = Kind::attention,
                                            .rows = attention_files_parts::rows,
                                            .in_bitnet = true,
                                            .dense = attention_files_parts::dense,
                                            .unknown_to_llama_cpp = attention_files_parts::unknown_to_llama_cpp,
                                            .read_gguf = attention_files_parts::read_gguf,
                                            .write_gguf = attention_files_parts::write_gguf,
                                            .gguf_tensor = attention_files_parts::gguf_tensor,
                                            .words = attention_files_parts::words,
                                            .dense_type = attention_files_parts::dense_type,
                                            .unknown_to_transformers = attention_files_parts::unknown_to_transformers,
                                            .read_json = attention_files_parts::read_json,
                                            .write_json = attention_files_parts::write_json,
                                            .passed_over = attention_files_parts::passed_over,
                                            .same_meaning = attention_files_parts::same_meaning};

}  // namespace chimera::inline CHIMERA_ABI
