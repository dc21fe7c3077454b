// A config that compiles; each case spoils one thing of it. `// error:` in a case's first line is what the compiler's
// first error must contain. LanguageModel<C> asks Check<C> first.
#pragma once

#include <chimera/config/check.hpp>

using namespace chimera;

inline constexpr Config good{.vocab = 512,
                             .width = 128,
                             .layers = pattern("M R A", 3),
                             .attention = {.heads = 4, .kv_heads = 2},
                             .mamba2 = {.head_dim = 32, .state = 32},
                             .ffn = {.hidden = 256}};

inline constexpr Config with_experts = [] {
  Config c = good;
  c.layers = pattern("A+E A", 2);
  return c;
}();
