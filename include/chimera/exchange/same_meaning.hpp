// Whether weights of one model can be read into another.
#pragma once

#include <chimera/config/config_hash.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/layers.hpp>

namespace chimera::inline CHIMERA_ABI {

/// Whether weights mean the same in both: equal in all but what may differ between runs (config_hash), and in what
/// files say in several ways.
bool same_meaning(Config a, Config b);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION bool same_meaning(Config a, Config b) {
  for (const auto& [same] : layer_columns<&LayerFiles::same_meaning>)
    if (same && !same(a, b)) return false;
  return config_hash(a) == config_hash(b);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
