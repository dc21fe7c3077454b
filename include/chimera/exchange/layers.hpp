// What every layer says of files. To add a layer: write its file, add it here.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/exchange/layers/attention.hpp>
#include <chimera/exchange/layers/gated_deltanet.hpp>
#include <chimera/exchange/layers/mamba2.hpp>
#include <chimera/exchange/layers/mlstm.hpp>
#include <chimera/exchange/layers/moe.hpp>
#include <chimera/exchange/layers/rg_lru.hpp>
#include <chimera/exchange/layers/span_knot.hpp>
#include <chimera/exchange/layers/swiglu.hpp>
#include <chimera/exchange/layers/titans.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

namespace chimera::inline CHIMERA_ABI {

inline constexpr std::array layer_files{attention_files,      mamba2_files, rg_lru_files,
                                        gated_deltanet_files, mlstm_files,  span_knot_files,
                                        titans_files,         swiglu_files, moe_files};

/// Columns of that table, one std::tuple for each layer: layer_columns<&LayerFiles::kind, &LayerFiles::rows>. Who walks
/// the whole table brings all of its functions into a program; so who only reads GGUF files names what it calls.
template <auto... Columns>
inline constexpr auto layer_columns = [] {
  std::array<std::tuple<std::remove_cvref_t<decltype(layer_files[0].*Columns)>...>, layer_files.size()> table;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = {layer_files[i].*Columns...};
  return table;
}();

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
    for (const auto& [kind, rows] : layer_columns<&LayerFiles::kind, &LayerFiles::rows>)
      known = known || (kind == c.layers[i] && is_known(rows, family));
    if (!known) return std::string(c.layers.name(c.layers[i]));
  }
  return "";
}

CHIMERA_FUNCTION bool is_passed_over(std::string_view name) {
  for (const auto& [passed_over] : layer_columns<&LayerFiles::passed_over>)
    if (passed_over && passed_over(name)) return true;
  return false;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
