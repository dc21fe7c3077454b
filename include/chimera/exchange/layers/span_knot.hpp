// Span knots in files: neither llama.cpp nor transformers has a layer like it.
#pragma once

#include <chimera/exchange/layer_files.hpp>

namespace chimera::inline CHIMERA_ABI {

inline constexpr LayerFiles span_knot_files{.kind = Kind::span_knot, .rows = {}};

}  // namespace chimera::inline CHIMERA_ABI
