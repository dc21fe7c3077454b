// The library's version, said once: CMake reads this line.
#pragma once

#include <string_view>

namespace chimera {

inline constexpr std::string_view library_version = "0.1.0";

}  // namespace chimera
