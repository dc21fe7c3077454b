#include <chimera/config/config.hpp>

inline constexpr chimera::Config mine{
    .vocab = 4096,
    .width = 256,
    .context = 2048,
    .layers = chimera::pattern("M M A", 6),  // six layers, the words in turn
    .attention = {.heads = 4, .kv_heads = 2, .rope = {.base = 100'000}},
    .mamba2 = {.head_dim = 64, .state = 64},
    .ffn = {.hidden = 704}};
