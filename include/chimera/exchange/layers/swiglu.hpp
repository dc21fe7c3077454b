// SwiGLU in files: gate and up are tensors of their own but in granite.
#pragma once

#include <chimera/exchange/layer_files.hpp>

#include <array>
#include <cstdint>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

namespace swiglu_files_parts {

inline constexpr std::array rows{FileRow{.ours = "ffn_gate_up.weight",
                                         .gguf = {"ffn_gate.weight"},
                                         .llama = {"mlp.gate_proj.weight"},
                                         .xlstm = {"ffn.proj_up_gate.weight"},
                                         .part = 0},
                                 FileRow{.ours = "ffn_gate_up.weight",
                                         .gguf = {"ffn_up.weight"},
                                         .llama = {"mlp.up_proj.weight"},
                                         .xlstm = {"ffn.proj_up.weight"},
                                         .part = 1},
                                 FileRow{.ours = "ffn_gate_up.weight", .granite = {"shared_mlp.input_linear.weight"}},
                                 FileRow{.ours = "ffn_sub_norm.weight", .gguf = {"ffn_sub_norm.weight"}},
                                 FileRow{.ours = "ffn_down.weight",
                                         .gguf = {"ffn_down.weight"},
                                         .granite = {"shared_mlp.output_linear.weight"},
                                         .llama = {"mlp.down_proj.weight"},
                                         .xlstm = {"ffn.proj_down.weight"},
                                         .bits = MoreBits::down}};

inline Result<void> read_gguf(const GgufKeys& k, Config& c) {
  constexpr std::string_view hidden = "feed_forward_length";
  c.ffn.hidden = k.fields.common(k.fields.per_layer(hidden, c.layers.count, 1, FileLimits::width), hidden);
  k.fields.demand(k.fields.integer("expert_count", 0, 1 << 16, 0) == 0, "expert_count: expected no experts");
  return {};
}
inline void write_gguf(const GgufNumbers& n, const Config& c) { n.number("feed_forward_length", c.ffn.hidden); }

inline void read_json(const JsonKeys& k, Config& c) {
  if (k.xlstm()) return;  // layers/mlstm.hpp
  c.ffn.hidden =
      k.fields.integer(k.granite_hybrid() ? "shared_intermediate_size" : "intermediate_size", 1, FileLimits::width);
  const std::string act = k.fields.text("hidden_act", "silu");
  k.fields.demand(act == "silu" || act == "swish", "\"hidden_act\": expected silu or swish, found " + act);
  k.demand_flag("mlp_bias", false, false);
  if (k.granite_hybrid())
    k.fields.demand(k.fields.integer("num_local_experts", 0, 1 << 16, 8) == 0,
                    "\"num_local_experts\": expected 0: no experts");
}
inline void write_json(JsonMembers& m, const Config& c, std::string_view type) {
  if (type == "xlstm") return;
  m.add_number("intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_text("hidden_act", "silu");
  if (type == "llama" || type == "granite") m.add_flag("mlp_bias", false);
  if (type != "granitemoehybrid") return;
  m.add_number("shared_intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_number("num_local_experts", std::int64_t{0}), m.add_number("num_experts_per_tok", std::int64_t{0});
}

}  // namespace swiglu_files_parts

inline constexpr LayerFiles swiglu_files{.kind = std::nullopt,
                                         .rows = swiglu_files_parts::rows,
                                         .read_gguf = swiglu_files_parts::read_gguf,
                                         .write_gguf = swiglu_files_parts::write_gguf,
                                         .read_json = swiglu_files_parts::read_json,
                                         .write_json = swiglu_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
