// Experts in files: in our own alone.
#pragma once

#include <chimera/exchange/layer_files.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

namespace moe_files_parts {

inline std::string unknown_to_llama_cpp(const Config&) { return "its files of experts are not written"; }
inline std::string unknown_to_transformers(const Config& c, std::string_view) { return unknown_to_llama_cpp(c); }

}  // namespace moe_files_parts

inline constexpr LayerFiles moe_files{.kind = std::nullopt,
                                      .ffn = Ffn::moe,
                                      .rows = {},
                                      .unknown_to_llama_cpp = moe_files_parts::unknown_to_llama_cpp,
                                      .unknown_to_transformers = moe_files_parts::unknown_to_transformers};

}  // namespace chimera::inline CHIMERA_ABI
