// xLSTM's matrix memory in files: transformers' xlstm, which has nothing else. llama.cpp has no layer like it.
#pragma once

#include <chimera/exchange/layer_files.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

namespace mlstm_files_parts {

inline constexpr std::array rows{
    FileRow{.ours = "mlstm_in.weight", .xlstm = {"mlstm_layer.q.weight"}, .part = 0},
    FileRow{.ours = "mlstm_in.weight", .xlstm = {"mlstm_layer.k.weight"}, .part = 1},
    FileRow{.ours = "mlstm_in.weight", .xlstm = {"mlstm_layer.v.weight"}, .part = 2},
    FileRow{.ours = "mlstm_in.weight", .xlstm = {"mlstm_layer.ogate_preact.weight"}, .part = 3},
    FileRow{.ours = "mlstm_gates.weight", .xlstm = {"mlstm_layer.igate_preact.weight"}, .part = 0},
    FileRow{.ours = "mlstm_gates.weight", .xlstm = {"mlstm_layer.fgate_preact.weight"}, .part = 1},
    FileRow{.ours = "mlstm_input_gate.bias", .xlstm = {"mlstm_layer.igate_preact.bias"}},
    FileRow{.ours = "mlstm_forget_gate.bias", .xlstm = {"mlstm_layer.fgate_preact.bias"}},
    FileRow{.ours = "mlstm_norm.weight", .xlstm = {"mlstm_layer.multihead_norm.weight"}},
    FileRow{.ours = "mlstm_out.weight", .xlstm = {"mlstm_layer.out_proj.weight"}}};

inline std::string_view dense_type(const Config&) { return "xlstm"; }

inline std::string unknown_to_transformers(const Config& c, std::string_view) {
  const MlstmConfig m = c.mlstm.resolved(c);
  if (c.tied) return "its xlstm has an output matrix of its own: tied must be false";
  if (c.logit_cap == 0) return "its xlstm caps logits: logit_cap must be above 0";
  if (m.qk % 64 != 0 || m.v % 64 != 0) return "its xlstm wants mlstm.qk and mlstm.v to be multiples of 64";
  return m.norm_eps == c.norm_eps ? "" : "its xlstm has one eps for all norms: mlstm.norm_eps must be norm_eps";
}

/// A width that is said as a share of the model's: the whole part of share * width.
inline double share_of(const JsonKeys& k, std::string_view key, int width, double otherwise) {
  const double bounded = static_cast<double>(k.fields.number(key, 1e-6, 64, otherwise));
  const auto exact = k.json.number(key);
  return width * (k.fields.status() && exact ? *exact : bounded);
}

/// A share whose product with the width has `part` as its whole part.
inline std::string share_text(int part, int width) {
  double share = static_cast<double>(part) / width;
  if (share * width < part) share = std::nextafter(share, 1e9);
  char text[32];
  return real_text({text, std::to_chars(text, text + sizeof text, share).ptr});
}

inline void read_json(const JsonKeys& k, Config& c) {
  if (!k.xlstm()) return;
  FileFields<JsonFields>& p = k.fields;
  MlstmConfig& m = c.mlstm;
  m.heads = p.integer("num_heads", 1, FileLimits::heads, 8);
  m.qk = static_cast<int>(share_of(k, "qk_dim_factor", c.width, 0.5));
  m.v = static_cast<int>(share_of(k, "v_dim_factor", c.width, 1));
  m.gate_cap = p.number("gate_soft_cap", 1e-3, 50, 15);
  m.norm_eps = c.norm_eps;
  c.logit_cap = p.number("output_logit_soft_cap", 1e-3, 1e6, 30);
  const int unit = p.integer("ffn_round_up_to_multiple_of", 1, FileLimits::width, 64);
  const double units = std::floor((share_of(k, "ffn_proj_factor", c.width, 2.667) + unit - 1) / unit);
  p.demand(units * unit <= FileLimits::width, "\"ffn_proj_factor\": expected a smaller feed-forward layer");
  if (p.status()) c.ffn.hidden = static_cast<int>(units) * unit;
  for (const char* key : {"embedding_dim", "num_blocks"})
    if (k.json.has(key)) {
      const int same = key[0] == 'e' ? c.width : c.layers.count;
      p.demand(p.integer(key, 1, FileLimits::width) == same, "\"" + std::string(key) + "\": expected what " +
                                                                 (key[0] == 'e' ? "hidden_size" : "num_hidden_layers") +
                                                                 " is, " + std::to_string(same));
    }
  const std::string mode = p.text("weight_mode", "single");
  p.demand(mode == "single", "\"weight_mode\": expected single, found " + mode);
  k.demand_flag("use_bias", false, false), k.demand_flag("add_out_norm", true, true);
  p.demand(std::fabs(p.number("eps", 0, 1, 1e-6) - 1e-6f) < 1e-9f, "\"eps\": expected 1e-6");
}

inline void write_json(JsonMembers& json, const Config& c, std::string_view type) {
  if (type != "xlstm") return;
  const MlstmConfig m = c.mlstm.resolved(c);
  json.add_number("embedding_dim", std::int64_t{c.width}), json.add_number("num_blocks", std::int64_t{c.layers.count});
  json.add_number("num_heads", std::int64_t{m.heads});
  json.add("qk_dim_factor", share_text(m.qk, c.width)), json.add("v_dim_factor", share_text(m.v, c.width));
  json.add("ffn_proj_factor", share_text(c.ffn.hidden, c.width));
  json.add_number("ffn_round_up_to_multiple_of", std::int64_t{std::gcd(c.ffn.hidden, 64)});
  for (const auto& [key, value] :
       {std::pair("gate_soft_cap", m.gate_cap), std::pair("output_logit_soft_cap", c.logit_cap),
        std::pair("norm_eps", c.norm_eps), std::pair("eps", 1e-6f)})
    json.add(key, real_text(to_text(value)));
  json.add_number("chunk_size", std::int64_t{m.chunk});
  json.add_text("mode", "inference"), json.add_text("weight_mode", "single");
  json.add_flag("use_bias", false), json.add_flag("add_out_norm", true);
}

}  // namespace mlstm_files_parts

inline constexpr LayerFiles mlstm_files{.kind = Kind::mlstm,
                                        .rows = mlstm_files_parts::rows,
                                        .dense_type = mlstm_files_parts::dense_type,
                                        .unknown_to_transformers = mlstm_files_parts::unknown_to_transformers,
                                        .read_json = mlstm_files_parts::read_json,
                                        .write_json = mlstm_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
