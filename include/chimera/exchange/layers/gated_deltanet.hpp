// Gated DeltaNet in files: llama.cpp's qwen35, transformers' Qwen3_5.
#pragma once

#include <chimera/exchange/layer_files.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace gated_deltanet_files_parts {

using Shape = std::vector<std::int64_t>;

inline Shape conv(const Config&, std::int64_t channels, std::int64_t taps) { return {channels, 1, taps}; }

/// Of `before` rows or columns, and `dim` of each value head behind them, where each of the file lies in ours. In
/// transformers the value heads of a key head stand together; ours, and llama.cpp's, go round the key heads. Empty where
/// that is the same.
inline std::vector<std::int64_t> head_order(const Config& c, Family family, std::int64_t before, std::int64_t dim) {
  const auto r = c.gated_deltanet.resolved(c);
  const std::int64_t heads = r.value_heads, keys = r.key_heads, each = heads / keys;
  std::vector<std::int64_t> order;
  if (!is_hugging_face(family) || each == 1 || keys == 1) return order;
  for (std::int64_t i = 0; i < before; ++i) order.push_back(i);
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < dim; ++i) order.push_back(before + (h % each * keys + h / each) * dim + i);
  return order;
}
inline void order_qkv(FileWeight& w, const Config& c, Family family) {
  const auto r = c.gated_deltanet.resolved(c);
  w.our_rows = head_order(c, family, std::int64_t{2} * r.key_heads * r.key_dim, r.value_dim);
}
inline void order_z(FileWeight& w, const Config& c, Family family) {
  w.our_rows = head_order(c, family, 0, c.gated_deltanet.resolved(c).value_dim);
}
inline void order_heads(FileWeight& w, const Config& c, Family family) { w.our_rows = head_order(c, family, 0, 1); }
inline void order_out(FileWeight& w, const Config& c, Family family) {
  w.our_cols = head_order(c, family, 0, c.gated_deltanet.resolved(c).value_dim);
}

constexpr FileRow row(std::string_view ours, FileTensor gguf, FileTensor hugging_face, int part = -1,
                      decltype(FileRow::adapt) adapt = nullptr) {
  return {.ours = ours, .gguf = gguf, .llama = hugging_face, .part = part, .adapt = adapt};
}
inline constexpr std::array rows{
    row("gdn_in.weight", {"attn_qkv.weight"}, {"linear_attn.in_proj_qkv.weight"}, 0, order_qkv),
    row("gdn_in.weight", {"attn_gate.weight"}, {"linear_attn.in_proj_z.weight"}, 1, order_z),
    row("gdn_conv1d.weight", {"ssm_conv1d.weight"}, {"linear_attn.conv1d.weight", conv}, -1, order_qkv),
    row("gdn_gates.weight", {"ssm_alpha.weight"}, {"linear_attn.in_proj_a.weight"}, 0, order_heads),
    row("gdn_gates.weight", {"ssm_beta.weight"}, {"linear_attn.in_proj_b.weight"}, 1, order_heads),
    row("gdn_dt.bias", {"ssm_dt.bias"}, {"linear_attn.dt_bias"}, -1, order_heads),
    row("gdn_a_log", {"ssm_a", nullptr, true}, {"linear_attn.A_log"}, -1, order_heads),
    row("gdn_norm.weight", {"ssm_norm.weight"}, {"linear_attn.norm.weight"}),
    row("gdn_out.weight", {"ssm_out.weight"}, {"linear_attn.out_proj.weight"}, -1, order_out)};

inline constexpr std::array<std::string_view, 1> words{"linear_attention"};

inline std::string unknown_to_qwen35(const Config& c) {
  if (!has_kind(c, Kind::attention)) return "its qwen35 wants an attention layer";
  for (int i = 0; i < c.layers.count; ++i)
    if (c.layers[i] != Kind::attention && c.layers[i] != Kind::gated_deltanet)
      return "its qwen35 has no layer like " + std::string(c.layers.name(c.layers[i]));
  if (c.gated_deltanet.negative_eigenvalues) return "its qwen35 has no negative eigenvalues";
  return c.gated_deltanet.resolved(c).eps == c.norm_eps ? "" : "its qwen35 has one norm_eps for all norms";
}
inline std::string unknown_to_llama_cpp(const Config& c) {
  const auto r = c.gated_deltanet.resolved(c);
  if (r.key_dim != r.value_dim) return "its qwen35 wants key_dim and value_dim of Gated DeltaNet to be equal";
  return unknown_to_qwen35(c);
}
inline std::string unknown_to_transformers(const Config& c, std::string_view) { return unknown_to_qwen35(c); }

/// The blocks that are said to be recurrent, or all but each so many-th.
inline void gguf_blocks(const GgufKeys& k, Config& c) {
  if (k.architecture != "qwen35") return;
  constexpr std::string_view key = "attention.recurrent_layers";
  const int interval = k.fields.integer("full_attention_interval", 1, Layers::max, 4);
  std::vector<int> recurrent(static_cast<std::size_t>(c.layers.count), 0);
  for (std::size_t i = 0; i < recurrent.size(); ++i) recurrent[i] = (static_cast<int>(i) + 1) % interval != 0;
  if (k.fields.has(key)) recurrent = k.fields.per_layer(key, c.layers.count, 0, 1);
  for (std::size_t i = 0; i < recurrent.size(); ++i)
    if (recurrent[i] != 0) c.layers.kind[i] = Kind::gated_deltanet;
}
inline Result<void> read_gguf(const GgufKeys& k, Config& c) {
  FileFields<Gguf>& p = k.fields;
  GatedDeltaNetConfig& d = c.gated_deltanet;
  d.key_heads = p.integer("ssm.group_count", 1, FileLimits::heads);
  d.value_heads = p.integer("ssm.time_step_rank", 1, FileLimits::heads);
  d.key_dim = d.value_dim = p.integer("ssm.state_size", 1, 256);
  d.conv = p.integer("ssm.conv_kernel", 1, 8);
  p.demand(p.integer("ssm.inner_size", 1, 1 << 30) == d.value_heads * d.value_dim,
           "ssm.inner_size: expected ssm.time_step_rank * ssm.state_size");
  return {};
}
inline void write_gguf(const GgufNumbers& n, const Config& c) {
  const auto r = c.gated_deltanet.resolved(c);
  n.number("ssm.conv_kernel", r.conv);
  n.number("ssm.inner_size", std::int64_t{r.value_heads} * r.value_dim);
  n.number("ssm.state_size", r.key_dim);
  n.number("ssm.group_count", r.key_heads);
  n.number("ssm.time_step_rank", r.value_heads);
  std::vector<bool> recurrent;
  recurrent.reserve(static_cast<std::size_t>(c.layers.count));
  for (int i = 0; i < c.layers.count; ++i) recurrent.push_back(c.layers[i] == Kind::gated_deltanet);
  n.set("attention.recurrent_layers", recurrent);
}

inline void read_json(const JsonKeys& k, Config& c) {
  FileFields<JsonFields>& p = k.fields;
  GatedDeltaNetConfig& d = c.gated_deltanet;
  d.key_heads = p.integer("linear_num_key_heads", 1, FileLimits::heads, 16);
  d.value_heads = p.integer("linear_num_value_heads", 1, FileLimits::heads, 32);
  d.key_dim = p.integer("linear_key_head_dim", 1, 256, 128);
  d.value_dim = p.integer("linear_value_head_dim", 1, 256, 128);
  d.conv = p.integer("linear_conv_kernel_dim", 1, 8, 4);
}
inline void write_json(JsonMembers& json, const Config& c, std::string_view type) {
  if (type != "qwen3_5_text") return;
  const auto r = c.gated_deltanet.resolved(c);
  json.add_number("linear_num_key_heads", std::int64_t{r.key_heads});
  json.add_number("linear_num_value_heads", std::int64_t{r.value_heads});
  json.add_number("linear_key_head_dim", std::int64_t{r.key_dim});
  json.add_number("linear_value_head_dim", std::int64_t{r.value_dim});
  json.add_number("linear_conv_kernel_dim", std::int64_t{r.conv});
}

}  // namespace gated_deltanet_files_parts

inline constexpr LayerFiles gated_deltanet_files{
    .kind = Kind::gated_deltanet,
    .rows = gated_deltanet_files_parts::rows,
    .architecture = "qwen35",
    .unknown_to_llama_cpp = gated_deltanet_files_parts::unknown_to_llama_cpp,
    .gguf_blocks = gated_deltanet_files_parts::gguf_blocks,
    .read_gguf = gated_deltanet_files_parts::read_gguf,
    .write_gguf = gated_deltanet_files_parts::write_gguf,
    .words = gated_deltanet_files_parts::words,
    .dense_type = [](const Config&) { return std::string_view("qwen3_5_text"); },
    .unknown_to_transformers = gated_deltanet_files_parts::unknown_to_transformers,
    .read_json = gated_deltanet_files_parts::read_json,
    .write_json = gated_deltanet_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
