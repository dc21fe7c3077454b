// Titans' memory in files: nobody else's have a layer like it, so its models are our own architecture's.
#pragma once

#include <chimera/exchange/layer_files.hpp>

namespace chimera::inline CHIMERA_ABI {

inline constexpr LayerFiles titans_files{.kind = Kind::titans, .rows = {}};

}  // namespace chimera::inline CHIMERA_ABI
