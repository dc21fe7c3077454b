// What every layer says of files. To add a layer: write its file, add it here.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/exchange/layers/attention.hpp>
#include <chimera/exchange/layers/gated_deltanet.hpp>
#include <chimera/exchange/layers/mamba2.hpp>
#include <chimera/exchange/layers/mlstm.hpp>
#include <chimera/exchange/layers/moe.hpp>
#include <chimera/exchange/layers/rg_lru.hpp>
#include <chimera/exchange/layers/swiglu.hpp>

#include <array>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

inline constexpr std::array layer_files{attention_files, mamba2_files, rg_lru_files, gated_deltanet_files,
                                        mlstm_files,     swiglu_files, moe_files};

/// The first word of the pattern that files of that family have no layer for; empty if they have all.
std::string word_unknown_to(Family family, const Config& c);

/// Whether a tensor of a file holds no weight.
bool is_passed_over(std::string_view name);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION std::string word_unknown_to(Family family, const Config& c) {
  for (int i = 0; i < c.layers.count; ++i) {
    bool known = false;
    for (const LayerFiles& layer : layer_files) known = known || (layer.kind == c.layers[i] && layer.known(family));
    if (!known) return std::string(c.layers.name(c.layers[i]));
  }
  return "";
}

CHIMERA_FUNCTION bool is_passed_over(std::string_view name) {
  for (const LayerFiles& layer : layer_files)
    if (layer.passed_over && layer.passed_over(name)) return true;
  return false;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
