// Ready-made models: families, each with a nano (about 1M weights), and all but one with a tiny (about 35M), for tests
// and demos.
#pragma once

#include <chimera/config/config.hpp>

#include <boost/hana/tuple.hpp>

#include <string_view>

namespace chimera {

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
    Preset<presets::strategic_6_7b>{"strategic-6.7b"}, Preset<presets::strategic_13b>{"strategic-13b"});

}  // namespace chimera
