// The library's version, said once: CMake reads that line. Every header includes this one before all else, so that an
// old compiler says one sentence first.
#pragma once

#if __cplusplus < 202002L
#error "chimera: this compiler is too old or set to an older language; expected C++20 (-std=c++20)"
#include <chimera/nothing_more>  // is not there and so ends the compilation: 1,500 errors would hide the one above
#endif

#include <string_view>

// Macros of other headers, as libstdc++ takes them away when it is first seen.
#undef max
#undef min

namespace chimera {

inline constexpr std::string_view library_version = "0.1.0";

}  // namespace chimera
