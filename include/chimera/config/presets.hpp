// Ready-made models in families. Those for tests and demos are a nano of about 1M weights (of Chimera 5.x, 25M) and a
// tiny of about 35M.
#pragma once

#include <chimera/config/config.hpp>

#include <boost/hana/tuple.hpp>

#include <string_view>

namespace chimera {

namespace presets_parts {

/// The layers that all of Chimera 5.x have: their sizes follow from the width and the heads.
consteval Config chimera_5(int vocab, int width, int heads, int hidden) {
  return {.vocab = vocab,
          .width = width,
          .context = 4'096,
          .layers = pattern("GD XM GD TM+E GD XM GD SK+E", 28),
          .gated_deltanet = {.key_heads = heads, .value_heads = heads, .key_dim = width / heads},
          .span_knot = {.heads = heads, .norm_weights = false},
          .titans = {.heads = heads},
          .ffn = {.hidden = hidden},
          .loop = {.first = 4, .last = 23, .most = 6, .stop = 0.01f}};
}

}  // namespace presets_parts

namespace presets {

// Mamba-2 + attention, the form that GGUF calls granitehybrid.

/// Bytes; 0.9M weights.
inline constexpr Config nano{.vocab = 512,
                             .width = 128,
                             .context = 1'024,
                             .layers = pattern("M M M A", 4),
                             .attention = {.heads = 4, .kv_heads = 2},
                             .mamba2 = {.head_dim = 32, .state = 32},
                             .ffn = {.hidden = 320}};
inline constexpr Config tiny{.vocab = 512,
                             .width = 512,
                             .context = 2'048,
                             .layers = pattern("M M M A", 10),
                             .attention = {.heads = 8, .kv_heads = 4},
                             .mamba2 = {.head_dim = 64, .state = 64},
                             .ffn = {.hidden = 1'280}};

/// Bytes in windows of 64: 0.81M weights for Tiny Shakespeare, within the budget of nanoGPT's CPU recipe.
inline constexpr Config shakespeare{.vocab = 272,
                                    .width = 128,
                                    .context = 1'024,
                                    .layers = pattern("M M M A", 4),
                                    .attention = {.heads = 4, .kv_heads = 2},
                                    .mamba2 = {.head_dim = 32, .state = 32},
                                    .ffn = {.hidden = 256}};

/// Seed scale S1: 28 Mamba-2 and 4 attention layers.
inline constexpr Config hybrid_700m{.vocab = 65'536,
                                    .width = 1'280,
                                    .context = 8'192,
                                    .layers = placed(Kind::mamba2, Kind::attention, 32, {5, 13, 21, 29}),
                                    .attention = {.heads = 20, .kv_heads = 4},
                                    .ffn = {.hidden = 2'560},
                                    .checkpointing = true};

// Griffin's RG-LRU and sliding-window attention, three to one (seed scale S3).

inline constexpr Config griffin_nano{.vocab = 512,
                                     .width = 128,
                                     .context = 1'024,
                                     .layers = pattern("R R R A", 4),
                                     .attention = {.heads = 4, .kv_heads = 2, .window = 128},
                                     .ffn = {.hidden = 320}};
inline constexpr Config griffin_tiny{.vocab = 512,
                                     .width = 512,
                                     .context = 2'048,
                                     .layers = pattern("R R R A", 12),
                                     .attention = {.heads = 8, .kv_heads = 4, .window = 512},
                                     .ffn = {.hidden = 1'280}};
inline constexpr Config griffin_small{.vocab = 50'304,
                                      .width = 768,
                                      .context = 8'192,
                                      .layers = pattern("R R R A", 12),
                                      .attention = {.heads = 12, .kv_heads = 4, .window = 1'024},
                                      .ffn = {.hidden = 2'304}};
inline constexpr Config griffin_base{.vocab = 50'304,
                                     .width = 2'048,
                                     .context = 8'192,
                                     .layers = pattern("R R R A", 24),
                                     .attention = {.heads = 16, .kv_heads = 4, .window = 2'048},
                                     .ffn = {.hidden = 7'424},
                                     .checkpointing = true};
inline constexpr Config griffin_large{.vocab = 50'304,
                                      .width = 2'560,
                                      .context = 8'192,
                                      .layers = pattern("R R R A", 32),
                                      .attention = {.heads = 20, .kv_heads = 5, .window = 2'048},
                                      .ffn = {.hidden = 9'216},
                                      .checkpointing = true};

// xLSTM's matrix memory alone, the form that transformers calls xlstm.

inline constexpr Config xlstm_nano{.vocab = 512,
                                   .width = 128,
                                   .context = 1'024,
                                   .layers = pattern("XM", 4),
                                   .mlstm = {.heads = 2},
                                   .ffn = {.hidden = 320},
                                   .tied = false,
                                   .norm_eps = 1e-6f,
                                   .logit_cap = 30.f};

// Titans' neural memory, in segments of attention.

inline constexpr Config titans_nano{.vocab = 512,
                                    .width = 128,
                                    .context = 1'024,
                                    .layers = pattern("TM", 4),
                                    .titans = {.heads = 4},
                                    .ffn = {.hidden = 256}};

// Gated DeltaNet and gated attention, three to one, the form that GGUF calls qwen35.

inline constexpr Config gdn_nano{
    .vocab = 512,
    .width = 128,
    .context = 1'024,
    .layers = pattern("GD GD GD A", 4),
    .attention = {.heads = 4, .kv_heads = 2, .rope = {.dims = 16}, .qk_norm = true, .output_gate = true},
    .ffn = {.hidden = 320}};
inline constexpr Config gdn_tiny{
    .vocab = 512,
    .width = 512,
    .context = 2'048,
    .layers = pattern("GD GD GD A", 12),
    .attention = {.heads = 8, .kv_heads = 4, .rope = {.dims = 32}, .qk_norm = true, .output_gate = true},
    .ffn = {.hidden = 1'280}};

// Mamba-2 with attention placed where it serves most (seed scale S4).

inline constexpr Config strategic_nano{.vocab = 512,
                                       .width = 128,
                                       .context = 1'024,
                                       .layers = pattern("A M M A"),
                                       .attention = {.heads = 4, .kv_heads = 2},
                                       .mamba2 = {.head_dim = 32, .state = 32},
                                       .ffn = {.hidden = 384}};
inline constexpr Config strategic_tiny{.vocab = 512,
                                       .width = 512,
                                       .context = 2'048,
                                       .layers = strategic(12, 5),
                                       .attention = {.heads = 8, .kv_heads = 4},
                                       .mamba2 = {.head_dim = 64, .state = 64},
                                       .ffn = {.hidden = 1'280}};
inline constexpr Config strategic_1_3b{.vocab = 65'536,
                                       .width = 2'048,
                                       .context = 8'192,
                                       .layers = strategic(24, 7),
                                       .attention = {.heads = 16, .kv_heads = 4},
                                       .ffn = {.hidden = 5'376},
                                       .checkpointing = true};
inline constexpr Config strategic_2_7b{.vocab = 65'536,
                                       .width = 2'560,
                                       .context = 8'192,
                                       .layers = strategic(32, 9),
                                       .attention = {.heads = 20, .kv_heads = 5},
                                       .ffn = {.hidden = 5'376},
                                       .checkpointing = true};
inline constexpr Config strategic_6_7b{.vocab = 65'536,
                                       .width = 4'096,
                                       .context = 8'192,
                                       .layers = strategic(32, 10),
                                       .attention = {.heads = 32, .kv_heads = 8},
                                       .ffn = {.hidden = 7'680},
                                       .checkpointing = true};
inline constexpr Config strategic_13b{.vocab = 65'536,
                                      .width = 5'120,
                                      .context = 8'192,
                                      .layers = strategic(40, 8),
                                      .attention = {.heads = 40, .kv_heads = 8},
                                      .ffn = {.hidden = 7'680},
                                      .checkpointing = true};

// Chimera 5.x: Gated DeltaNet, xLSTM's and Titans' memories and span knots, experts in every fourth layer, and a loop
// through 20 of 28 layers. The vocabulary is o200k's where nothing else is said.

inline constexpr int o200k = 200'192;  // 200,073 words, and room up to a multiple of 256

inline constexpr Config chimera_nano_4k = presets_parts::chimera_5(4'096, 256, 4, 512);
inline constexpr Config chimera_tiny_16k = presets_parts::chimera_5(16'384, 256, 4, 768);
inline constexpr Config chimera_tiny = [] {
  Config c = presets_parts::chimera_5(o200k, 256, 4, 512);
  c.embedding_rank = 64;
  return c;
}();
inline constexpr Config chimera_small = [] {
  Config c = presets_parts::chimera_5(o200k, 512, 8, 1'024);
  c.embedding_rank = 128;
  return c;
}();
inline constexpr Config chimera_medium = [] {
  Config c = presets_parts::chimera_5(o200k, 1'024, 8, 2'048);
  c.embedding_rank = 256;
  return c;
}();
inline constexpr Config chimera_full = [] {
  Config c = presets_parts::chimera_5(o200k, 2'560, 20, 6'912);
  c.mlstm.heads = 8, c.titans.persistent = 64, c.titans.memory_heads = 10, c.moe.experts = 16, c.checkpointing = true;
  return c;
}();

}  // namespace presets

/// A preset as a type: its config, and the name that programs know it by.
template <const Config& C>
struct Preset {
  static constexpr const Config& config = C;
  std::string_view name;
};

/// Every preset, smallest first in each family.
inline constexpr auto all_presets = boost::hana::make_tuple(
    Preset<presets::shakespeare>{"shakespeare"}, Preset<presets::nano>{"nano"}, Preset<presets::tiny>{"tiny"},
    Preset<presets::hybrid_700m>{"hybrid-700m"}, Preset<presets::griffin_nano>{"griffin-nano"},
    Preset<presets::griffin_tiny>{"griffin-tiny"}, Preset<presets::griffin_small>{"griffin-small"},
    Preset<presets::griffin_base>{"griffin-base"}, Preset<presets::griffin_large>{"griffin-large"},
    Preset<presets::xlstm_nano>{"xlstm-nano"}, Preset<presets::titans_nano>{"titans-nano"},
    Preset<presets::gdn_nano>{"gdn-nano"}, Preset<presets::gdn_tiny>{"gdn-tiny"},
    Preset<presets::strategic_nano>{"strategic-nano"}, Preset<presets::strategic_tiny>{"strategic-tiny"},
    Preset<presets::strategic_1_3b>{"strategic-1.3b"}, Preset<presets::strategic_2_7b>{"strategic-2.7b"},
    Preset<presets::strategic_6_7b>{"strategic-6.7b"}, Preset<presets::strategic_13b>{"strategic-13b"},
    Preset<presets::chimera_nano_4k>{"chimera-nano-4k"}, Preset<presets::chimera_tiny_16k>{"chimera-tiny-16k"},
    Preset<presets::chimera_tiny>{"chimera-tiny"}, Preset<presets::chimera_small>{"chimera-small"},
    Preset<presets::chimera_medium>{"chimera-medium"}, Preset<presets::chimera_full>{"chimera-full"});

}  // namespace chimera
