// xLSTM's matrix memory in files: llama.cpp has no layer like it.
#pragma once

#include <chimera/exchange/layer_files.hpp>

namespace chimera::inline CHIMERA_ABI {

inline constexpr LayerFiles mlstm_files{.kind = Kind::mlstm, .rows = {}};

}  // namespace chimera::inline CHIMERA_ABI
