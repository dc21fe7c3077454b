// A model's Config from the metadata and the tensors of a GGUF file.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/config_text.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/file_fields.hpp>
#include <chimera/exchange/layers.hpp>
#include <chimera/io/gguf.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// The key of a whole config in a GGUF file of ours: lines of config_text.hpp.
inline constexpr std::string_view config_key = "chimera.config";

/// From the metadata and the tensors' shapes of architecture llama, qwen2, qwen3, qwen35, granite, granitehybrid,
/// bitnet, or our own.
Result<Config> config_from_gguf(const Gguf& file);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<Config> config_from_gguf(const Gguf& file) {
  const auto architecture = file.text("general.architecture");
  if (!architecture) return architecture.error();
  if (*architecture == "chimera") {
    const auto text = file.text(config_key);
    if (!text) return text.error();
    return config_from_lines(*text);
  }
  const bool granite = *architecture == "granitehybrid" || *architecture == "granite";
  const bool bitnet = *architecture == "bitnet";
  constexpr std::array<std::string_view, 4> others{"llama", "qwen2", "qwen3", "qwen35"};
  if (!granite && !bitnet && std::find(others.begin(), others.end(), *architecture) == others.end())
    return Error{
        "general.architecture: expected llama, qwen2, qwen3, qwen35, granite, granitehybrid, bitnet or chimera, "
        "found " +
        std::string(*architecture)};

  FileFields<Gguf> p(file, std::string(*architecture) + ".");
  const GgufKeys keys{file, *architecture, p};
  Config c;
  c.sub_norm = bitnet;
  c.width = p.integer("embedding_length", 1, FileLimits::width);
  c.context = p.integer("context_length", 1, FileLimits::context);
  c.layers.count = p.integer("block_count", 1, Layers::max);
  c.norm_eps = p.number("attention.layer_norm_rms_epsilon", 1e-12, 1);
  for (const auto& [blocks] : layer_columns<&LayerFiles::gguf_blocks>)
    if (blocks) blocks(keys, c);
  for (const auto& [kind, ffn, read] : layer_columns<&LayerFiles::kind, &LayerFiles::ffn, &LayerFiles::read_gguf>)
    if (read && is_used(kind, ffn, c))
      if (Result<void> s = read(keys, c); !s) return s.error();
  if (granite) {  // 0 means off
    const auto scale = [&](const char* key, float& value) {
      if (const float given = p.number(key, -1e6, 1e6, 0); given != 0) value = given;
    };
    scale("embedding_scale", c.embedding_scale);
    scale("residual_scale", c.residual_scale);
    scale("logit_scale", c.logit_scale);
  } else {
    for (const char* key : {"embedding_scale", "residual_scale", "logit_scale"}) p.demand_neutral(key, {0, 1});
  }
  p.demand_neutral("final_logit_softcapping", {0, 30});  // 30: what llama.cpp's own saver writes of any model
  for (const char* key : {"swin_norm", "rescale_every_n_layers", "n_deepstack_layers", "nextn_predict_layers",
                          "embedding_length_per_layer_input", "hyper_connection.count"})
    p.demand_neutral(key, {0});
  p.demand_neutral("deepstack_mapping", {-1});
  p.demand_neutral("embedding_length_out", {static_cast<double>(c.width), 0});
  const std::string activation = p.text("hidden_activation", "silu");
  p.demand(activation == "silu" || activation == "swish", "hidden_activation: expected silu, found " + activation);

  const GgufTensor* embedding = file.tensor("token_embd.weight");
  if (!embedding) return Error{"the file has no tensor token_embd.weight"};
  p.demand(embedding->ne[1] <= FileLimits::vocab, "token_embd.weight: expected at most " +
                                                      std::to_string(FileLimits::vocab) + " rows, found " +
                                                      std::to_string(embedding->ne[1]));
  c.vocab = static_cast<int>(std::min<std::int64_t>(embedding->ne[1], FileLimits::vocab));
  p.demand(p.integer("vocab_size", 1, FileLimits::vocab, c.vocab) == c.vocab,
           "vocab_size: expected the " + std::to_string(c.vocab) + " rows of token_embd.weight");
  c.tied = !file.tensor("output.weight");
  return checked_config(c, p);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
