// Small models for the tests of this folder: the table of weights alone, so that nothing that computes is compiled.
#pragma once

#include "numeric.hpp"

#include <chimera/model/language_model.hpp>

#include <string>
#include <vector>

namespace chimera {

inline constexpr Config hybrid{.vocab = 272,
                               .width = 64,
                               .context = 128,
                               .layers = pattern("M A M"),
                               .attention = {.heads = 4, .kv_heads = 2},
                               .mamba2 = {.head_dim = 16, .state = 16, .groups = 2},
                               .ffn = {.hidden = 96},
                               .tied = false,
                               .embedding_scale = 3.f,
                               .residual_scale = 0.5f,
                               .logit_scale = 2.f};
inline constexpr Config hybrid_in_halves = [] {
  Config c = hybrid;
  c.attention.rope.layout = RopeLayout::halves;
  return c;
}();
inline constexpr Config no_positions = [] {
  Config c = hybrid;
  c.attention.position = Position::none, c.attention.scale = 0.2f, c.tied = true;
  return c;
}();
inline constexpr Config plain{.vocab = 272,
                              .width = 64,
                              .context = 128,
                              .layers = pattern("A A"),
                              .attention = {.heads = 4, .kv_heads = 2, .rope = {.base = 5e5f}},
                              .ffn = {.hidden = 96}};
inline constexpr Config bitnet{.vocab = 272,
                               .width = 256,
                               .context = 128,
                               .layers = pattern("A A"),
                               .attention = {.heads = 4, .kv_heads = 2},
                               .ffn = {.hidden = 256},
                               .sub_norm = true};
inline constexpr Config ternary = [] {
  Config c = hybrid;
  c.width = 256, c.attention.heads = 4, c.ffn.hidden = 256, c.ternary = {.on = true};
  return c;
}();
inline constexpr Config ternary_groups = [] {
  Config c = ternary;
  c.layers = pattern("M A+E M"), c.moe = {.experts = 3, .expert_hidden = 128}, c.ternary.group = 128;
  return c;
}();
inline constexpr Config ternary_bitnet = [] {
  Config c = bitnet;
  c.ternary.on = true;
  return c;
}();
/// As transformers has it.
inline constexpr Config ternary_relu2 = [] {
  Config c = ternary_bitnet;
  c.ffn.activation = Activation::relu2_gate;
  return c;
}();
/// What other families have: biases, norms of queries and keys, windows, heads that do not fill the width.
inline constexpr Config qwen2 = [] {
  Config c = plain;
  c.attention.qkv_bias = true;
  return c;
}();
inline constexpr Config qwen3 = [] {
  Config c = plain;
  c.attention.head_dim = 24, c.attention.qk_norm = true, c.tied = false;
  return c;
}();
/// Gated DeltaNet with more value heads than key heads, and attention with an output gate of which half the channels turn.
inline constexpr Config qwen35{
    .vocab = 272,
    .width = 64,
    .context = 128,
    .layers = pattern("GD A GD"),
    .attention = {.heads = 4, .kv_heads = 2, .rope = {.dims = 8}, .qk_norm = true, .output_gate = true},
    .gated_deltanet = {.key_heads = 2, .value_heads = 4, .key_dim = 32},
    .ffn = {.hidden = 96},
    .tied = false};
inline constexpr Config qwen3_in_halves = [] {
  Config c = qwen3;
  c.attention.rope.layout = RopeLayout::halves, c.attention.qkv_bias = c.attention.output_bias = true;
  return c;
}();
inline constexpr Config biased = [] {
  Config c = plain;
  c.attention.qkv_bias = c.attention.output_bias = c.ffn.bias = true;
  return c;
}();
inline constexpr Config mistral = [] {
  Config c = plain;
  c.ffn.activation = Activation::geglu, c.attention.window = 16;
  return c;
}();
inline constexpr Config granite = [] {
  Config c = plain;
  c.embedding_scale = 3.f, c.residual_scale = 0.5f, c.logit_scale = 2.f, c.attention.scale = 0.1f;
  c.attention.qkv_bias = c.attention.output_bias = true;
  return c;
}();
inline constexpr Config griffin{.vocab = 272,
                                .width = 64,
                                .context = 128,
                                .layers = pattern("R A+E SK TM"),
                                .attention = {.heads = 4, .kv_heads = 2, .window = 32},
                                .titans = {.persistent = 3, .segment = 16, .memory_heads = 2, .memory_depth = 2},
                                .ffn = {.hidden = 96},
                                .moe = {.experts = 3, .expert_hidden = 32},
                                .loop = {.first = 1, .last = 1, .most = 3, .stop = 0.25f},
                                .embedding_rank = 24};

/// As transformers has it.
inline constexpr Config recurrent_gemma = [] {
  Config c = griffin;
  c.layers = pattern("R A R"), c.embedding_rank = 0, c.loop = {}, c.attention.rope.dims = 8,
  c.attention.output_bias = true, c.rg_lru.bias = true;
  c.rg_lru.inner = 96, c.ffn.activation = Activation::geglu, c.ffn.bias = true;
  c.embedding_scale = 8.f, c.logit_cap = 30.f;
  return c;
}();
inline constexpr Config xlstm{.vocab = 272,
                              .width = 64,
                              .context = 128,
                              .layers = pattern("XM XM"),
                              .mlstm = {.heads = 2, .qk = 64, .v = 128},
                              .ffn = {.hidden = 93},
                              .tied = false,
                              .norm_eps = 1e-6f,
                              .logit_cap = 20.f};

template <const Config& C>
AnyModel table_of(std::string_view name) {
  using M = LanguageModel<C>;
  AnyModel m;
  m.name = name, m.config = &C, m.tensors = M::tensors;
  m.parameters = M::parameters, m.arena_floats = M::arena_floats, m.slot_count = M::slot_count;
  return m;
}

/// Random weights; between tensors of the arena there are zeros.
inline Floats weights_of(const AnyModel& m) {
  Floats w(m.arena_floats, 0.f);
  std::uint64_t seed = 1;
  for (const NamedTensor& t : m.tensors) {
    const Floats values = noise(t.size(), seed++);
    std::copy(values.begin(), values.end(), w.begin() + static_cast<std::ptrdiff_t>(t.offset));
  }
  return w;
}

inline std::string message(const Status& s) { return s ? "" : s.error().message; }
template <class T>
std::string message(const Result<T>& r) {
  return r ? "" : r.error().message;
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace chimera
