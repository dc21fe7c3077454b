// Gated DeltaNet in files.
#pragma once

#include <chimera/exchange/layer_files.hpp>

namespace chimera::inline CHIMERA_ABI {

inline constexpr LayerFiles gated_deltanet_files{.kind = Kind::gated_deltanet, .rows = {}};

}  // namespace chimera::inline CHIMERA_ABI
