// Griffin's recurrence in files: neither llama.cpp nor transformers has a layer like it.
#pragma once

#include <chimera/exchange/layer_files.hpp>

namespace chimera::inline CHIMERA_ABI {

inline constexpr LayerFiles rg_lru_files{.kind = Kind::rg_lru, .rows = {}};

}  // namespace chimera::inline CHIMERA_ABI
