// SwiGLU in files: gate and up are tensors of their own but in granite.
#pragma once

#include <chimera/exchange/layer_files.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

namespace swiglu_files_parts {

inline constexpr std::array rows{
    FileRow{.ours = "ffn_gate_up.weight",
            .gguf = {"ffn_gate.weight"},
            .llama = {"mlp.gate_proj.weight"},
            .xlstm = {"ffn.proj_up_gate.weight"},
            .griffin = {"mlp_block.gate_proj.weight"},
            .part = 0},
    FileRow{.ours = "ffn_gate_up.weight",
            .gguf = {"ffn_up.weight"},
            .llama = {"mlp.up_proj.weight"},
            .xlstm = {"ffn.proj_up.weight"},
            .griffin = {"mlp_block.up_proj.weight"},
            .part = 1},
    FileRow{.ours = "ffn_gate_up.weight", .granite = {"shared_mlp.input_linear.weight"}},
    FileRow{.ours = "ffn_gate_up.bias",
            .llama = {"mlp.gate_proj.bias"},
            .griffin = {"mlp_block.gate_proj.bias"},
            .part = 0},
    FileRow{
        .ours = "ffn_gate_up.bias", .llama = {"mlp.up_proj.bias"}, .griffin = {"mlp_block.up_proj.bias"}, .part = 1},
    FileRow{.ours = "ffn_sub_norm.weight", .gguf = {"ffn_sub_norm.weight"}, .llama = {"mlp.ffn_sub_norm.weight"}},
    FileRow{.ours = "ffn_down.weight",
            .gguf = {"ffn_down.weight"},
            .granite = {"shared_mlp.output_linear.weight"},
            .llama = {"mlp.down_proj.weight"},
            .xlstm = {"ffn.proj_down.weight"},
            .griffin = {"mlp_block.down_proj.weight"},
            .bits = MoreBits::down},
    FileRow{.ours = "ffn_down.bias", .llama = {"mlp.down_proj.bias"}, .griffin = {"mlp_block.down_proj.bias"}}};

inline std::string unknown_to_llama_cpp(const Config& c) {
  return c.ffn.activation == Activation::swiglu && !c.ffn.bias
             ? ""
             : "its models of these layers have SwiGLU without biases as their feed-forward layers";
}

inline Result<void> read_gguf(const GgufKeys& k, Config& c) {
  constexpr std::string_view hidden = "feed_forward_length";
  c.ffn.hidden = k.fields.common(k.fields.per_layer(hidden, c.layers.count, 1, FileLimits::width), hidden);
  k.fields.demand(k.fields.integer("expert_count", 0, 1 << 16, 0) == 0, "expert_count: expected no experts");
  return {};
}
inline void write_gguf(const GgufNumbers& n, const Config& c) { n.number("feed_forward_length", c.ffn.hidden); }

/// What transformers calls the activations of its gates.
struct Gate {
  std::string_view name;
  Activation activation;
};
inline constexpr std::array<Gate, 4> gates{{{"silu", Activation::swiglu},
                                            {"swish", Activation::swiglu},
                                            {"relu2", Activation::relu2_gate},
                                            {"gelu_pytorch_tanh", Activation::geglu}}};

inline bool has_biases(std::string_view type) {
  return type == "llama" || type == "granite" || type == "recurrent_gemma";
}

inline std::string unknown_to_transformers(const Config& c, std::string_view type) {
  const std::string its = "its " + std::string(type) + " ";
  if (!c.ffn.gated()) return its + "has a gate in its feed-forward layers";
  if (type == "recurrent_gemma" && (c.ffn.activation != Activation::geglu || !c.ffn.bias))
    return its + "has GeGLU with biases";
  if (type == "xlstm" && c.ffn.activation != Activation::swiglu) return its + "has SwiGLU";
  return c.ffn.bias && !has_biases(type) ? its + "has no biases in its feed-forward layers" : "";
}

inline void read_json(const JsonKeys& k, Config& c) {
  if (k.xlstm()) return;  // layers/mlstm.hpp
  if (k.griffin()) {
    c.ffn = {.hidden = k.fields.integer("intermediate_size", 2, 2 * FileLimits::width) / 2,
             .activation = Activation::geglu,
             .bias = true};
    return;
  }
  c.ffn.hidden =
      k.fields.integer(k.granite_hybrid() ? "shared_intermediate_size" : "intermediate_size", 1, FileLimits::width);
  const std::string act = k.fields.text("hidden_act", k.type == "bitnet" ? "relu2" : "silu");
  const auto named = std::find_if(gates.begin(), gates.end(), [&](const Gate& g) { return g.name == act; });
  k.fields.demand(named != gates.end(), "\"hidden_act\": expected silu, relu2 or gelu_pytorch_tanh, found " + act);
  if (named != gates.end()) c.ffn.activation = named->activation;
  c.ffn.bias = k.fields.boolean("mlp_bias", false);
  k.fields.demand(!c.ffn.bias || has_biases(k.type), "\"mlp_bias\": expected false");
  if (k.granite_hybrid())
    k.fields.demand(k.fields.integer("num_local_experts", 0, 1 << 16, 8) == 0,
                    "\"num_local_experts\": expected 0: no experts");
}
inline void write_json(JsonMembers& m, const Config& c, std::string_view type) {
  if (type == "xlstm") return;
  if (type == "recurrent_gemma") return m.add_number("intermediate_size", std::int64_t{2} * c.ffn.hidden);
  m.add_number("intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_text("hidden_act", std::find_if(gates.begin(), gates.end(), [&](const Gate& g) {
                             return g.activation == c.ffn.activation;
                           })->name);
  if (has_biases(type)) m.add_flag("mlp_bias", c.ffn.bias);
  if (type != "granitemoehybrid") return;
  m.add_number("shared_intermediate_size", std::int64_t{c.ffn.hidden});
  m.add_number("num_local_experts", std::int64_t{0}), m.add_number("num_experts_per_tok", std::int64_t{0});
}

}  // namespace swiglu_files_parts

inline constexpr LayerFiles swiglu_files{.kind = std::nullopt,
                                         .rows = swiglu_files_parts::rows,
                                         .unknown_to_llama_cpp = swiglu_files_parts::unknown_to_llama_cpp,
                                         .read_gguf = swiglu_files_parts::read_gguf,
                                         .write_gguf = swiglu_files_parts::write_gguf,
                                         .unknown_to_transformers = swiglu_files_parts::unknown_to_transformers,
                                         .read_json = swiglu_files_parts::read_json,
                                         .write_json = swiglu_files_parts::write_json};

}  // namespace chimera::inline CHIMERA_ABI
