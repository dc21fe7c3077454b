// How many weights a model of a config has, known without compiling it.
#pragma once

#include <chimera/config/check.hpp>

#include <cstdint>

namespace chimera {

/// Weights of one block: two norms, the mixer, the SwiGLU, and the norms inside these.
constexpr std::int64_t block_parameters(const Config& c, Kind kind) {
  const std::int64_t width = c.width, hidden = c.ffn.hidden;
  const std::int64_t rest = 2 * width + 3 * hidden * width + (c.sub_norm ? hidden : 0);
  switch (kind) {
    case Kind::attention: {
      const std::int64_t rows = c.attention.heads * c.head_dim();
      return rest + 2 * (rows + c.kv_heads() * c.head_dim()) * width + (c.sub_norm ? rows : 0);
    }
    case Kind::mamba2: {
      const std::int64_t inner = c.ssm_inner(), heads = c.ssm_heads();
      const std::int64_t channels = inner + std::int64_t{2} * c.mamba2.groups * c.mamba2.state;
      return rest + (2 * inner + channels + heads) * width + channels * (c.mamba2.conv + 1) + 3 * heads + inner;
    }
    case Kind::rg_lru: {
      const std::int64_t inner = c.rnn_inner(), biases = c.rg_lru.bias ? 2 * inner + width : 0;
      return rest + 3 * inner * width + biases + inner * (c.rg_lru.conv + 4) + 2 * inner * (inner / c.rnn_heads());
    }
    default: return 0;
  }
}

/// As LanguageModel<C>::parameters, for a config that breaks no rule and has no layers to come.
constexpr std::int64_t parameter_count(const Config& c) {
  std::int64_t n = (c.tied ? 1 : 2) * std::int64_t{c.vocab} * c.width + c.width;
  for (int i = 0; i < c.layers.count; ++i) n += block_parameters(c, c.layers[i]);
  return n;
}

}  // namespace chimera
