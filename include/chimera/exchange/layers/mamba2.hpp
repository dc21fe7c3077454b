// Mamba-2 in files: llama.cpp's granitehybrid, transformers' GraniteMoeHybrid.
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/exchange/layer_files.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace mamba2_files_parts {

using Shape = std::vector<std::int64_t>;

inline Shape column(const Config&, std::int64_t, std::int64_t n) { return {n, 1}; }
inline Shape conv(const Config&, std::int64_t channels, std::int64_t taps) { return {channels, 1, taps}; }
inline Shape groups(const Config& c, std::int64_t, std::int64_t n) { return {c.mamba2.groups, n / c.mamba2.groups}; }

inline constexpr std::array rows{
    FileRow{.ours = "ssm_in.weight", .gguf = {"ssm_in.weight"}, .granite = {"mamba.in_proj.weight"}},
    FileRow{.ours = "ssm_conv1d.weight", .gguf = {"ssm_conv1d.weight"}, .granite = {"mamba.conv1d.weight", conv}},
    FileRow{.ours = "ssm_conv1d.bias", .gguf = {"ssm_conv1d.bias"}, .granite = {"mamba.conv1d.bias"}},
    FileRow{.ours = "ssm_dt.bias", .gguf = {"ssm_dt.bias"}, .granite = {"mamba.dt_bias"}},
    FileRow{.ours = "ssm_a_log", .gguf = {"ssm_a", column, true}, .granite = {"mamba.A_log"}},
    FileRow{.ours = "ssm_d", .gguf = {"ssm_d", column}, .granite = {"mamba.D"}},
    FileRow{.ours = "ssm_norm.weight", .gguf = {"ssm_norm.weight", groups}, .granite = {"mamba.norm.weight"}},
    FileRow{.ours = "ssm_out.weight", .gguf = {"ssm_out.weight"}, .granite = {"mamba.out_proj.weight"}}};

inline constexpr std::array<std::string_view, 2> words{"mamba", "linear_attention"};

inline bool limits_step(const Config& c) { return c.mamba2.dt_min > 0 || is_finite(c.mamba2.dt_max); }

inline std::string unknown_to_llama_cpp(const Config& c) {
  if (c.mamba2.expand != 2) return "its granitehybrid wants mamba2.expand to be 2";
  if (limits_step(c)) return "it does not limit the step size of Mamba-2";
  return has_kind(c, Kind::attention) ? "" : "its granitehybrid wants an attention layer";
}

/// Blocks without heads of keys.
inline void gguf_blocks(const GgufKeys& k, Config& c) {
  if (k.architecture != "granitehybrid") return;
  const auto kv_heads = k.fields.per_layer("attention.head_count_kv", c.layers.count, 0, FileLimits::heads);
  for (std::size_t i = 0; i < kv_heads.size(); ++i)
    if (kv_heads[i] == 0) c.layers.kind[i] = Kind::mamba2;
}

inline Result<void> read_gguf(const GgufKeys& k, Config& c) {
  FileFields<Gguf>& p = k.fields;
  Mamba2Config& m = c.mamba2;
  const int inner = p.integer("ssm.inner_size", 1, FileLimits::width);
  const int heads = p.integer("ssm.time_step_rank", 1, inner);
  p.demand(inner % c.width == 0 && inner % heads == 0,
           "ssm.inner_size: expected a multiple of embedding_length and of ssm.time_step_rank, found " +
               std::to_string(inner));
  m.expand = inner / c.width, m.head_dim = inner / heads;
  m.state = p.integer("ssm.state_size", 1, 256);
  m.groups = p.integer("ssm.group_count", 1, heads);
  m.conv = p.integer("ssm.conv_kernel", 1, 8);
  p.demand_neutral("ssm.dt_b_c_rms", {0});
  return {};
}
inline void write_gguf(const GgufNumbers& n, const Config& c) {
  n.number("ssm.conv_kernel", c.mamba2.conv);
  n.number("ssm.inner_size", c.mamba2.inner(c.width));
  n.number("ssm.state_size", c.mamba2.state);
  n.number("ssm.group_count", c.mamba2.groups);
  n.number("ssm.time_step_rank", c.mamba2.heads(c.width));
}

inline std::string unknown_to_transformers(const Config& c, std::string_view) {
  return has_kind(c, Kind::attention) ? "" : "its GraniteMoeHybrid wants an attention layer";
}

/// No float is above the largest one: as a limit it is none.
inline float step_limit(double limit) {
  constexpr float largest = std::numeric_limits<float>::max();
  return limit < static_cast<double>(largest) ? static_cast<float>(limit) : std::numeric_limits<float>::infinity();
}

inline void read_json(const JsonKeys& k, Config& c) {
  FileFields<JsonFields>& p = k.fields;
  Mamba2Config& m = c.mamba2;
  const int heads = p.integer("mamba_n_heads", 1, 1 << 16, 128);
  m.expand = p.integer("mamba_expand", 1, 8, 2);
  m.state = p.integer("mamba_d_state", 1, 256, 256);
  m.groups = p.integer("mamba_n_groups", 1, 1 << 16, 1);
  m.conv = p.integer("mamba_d_conv", 1, 8, 4);
  const std::int64_t inner = m.inner(c.width);
  m.head_dim = static_cast<int>(inner / heads);
  if (k.json.integer("mamba_d_head")) m.head_dim = p.integer("mamba_d_head", 1, 256);  // else "auto"
  p.demand(std::int64_t{m.head_dim} * heads == inner,
           "\"mamba_n_heads\": expected mamba_expand * hidden_size = mamba_n_heads * mamba_d_head, found " +
               std::to_string(inner) + " and " + std::to_string(heads) + " * " + std::to_string(m.head_dim));
  if (k.json.has("time_step_limit")) {
    const auto limits = k.json.numbers("time_step_limit");
    const bool pair = limits && limits->size() == 2 && (*limits)[0] < (*limits)[1] && (*limits)[1] > 0;
    p.demand(pair, "\"time_step_limit\": expected two numbers, the lower first");
    if (pair) m.dt_min = std::max(static_cast<float>((*limits)[0]), 0.f), m.dt_max = step_limit((*limits)[1]);
  }
  k.demand_flag("mamba_conv_bias", true, true);
  k.demand_flag("mamba_proj_bias", false, false);
}
/// What a model without Mamba-2 says of it must make sense, too.
inline void write_json(JsonMembers& json, const Config& c, std::string_view type) {
  if (type != "granitemoehybrid") return;
  const bool used = has_kind(c, Kind::mamba2);
  const Mamba2Config m = used ? c.mamba2 : Mamba2Config{};
  const std::int64_t inner = m.inner(c.width), head = used ? m.head_dim : inner;
  json.add_number("mamba_n_heads", inner / head), json.add_number("mamba_d_head", head);
  json.add_number("mamba_n_groups", std::int64_t{m.groups});
  json.add_number("mamba_d_state", std::int64_t{m.state});
  json.add_number("mamba_d_conv", std::int64_t{m.conv});
  json.add_number("mamba_expand", std::int64_t{m.expand});
  json.add_number("mamba_chunk_size", std::int64_t{m.chunk});
  if (used && limits_step(c)) {
    const float limits[]{m.dt_min, std::min(m.dt_max, std::numeric_limits<float>::max())};  // JSON has no infinity
    json.add_numbers("time_step_limit", limits);
  }
  json.add_flag("mamba_conv_bias", true), json.add_flag("mamba_proj_bias", false);
}

}  // namespace mamba2_files_parts

inline constexpr LayerFiles mamba2_files{.kind = Kind::mamba2,
                                         .rows = mamba2_files_parts::rows,
                                         .architecture = "granitehybrid",
                                         .unknown_to_llama_cpp = mamba2_files_parts::unknown_to_llama_cpp,
                                         .gguf_blocks = mamba2_files_parts::gguf_blocks,
                                         .read_gguf = mamba2_files_parts::read_gguf,
                                         .write_gguf = mamba2_files_parts::write_gguf,
                                         .words = mamba2_files_parts::words,
                                         .unknown_to_transformers = mamba2_files_parts::unknown_to_transformers,
                                         .read_json = mamba2_files_parts::read_json,
                                         .write_json = mamba2_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
