// The library's version, said once: CMake reads that line. Every header includes this one before all else, so that an
// old compiler says one sentence first.
#pragma once

#if __cplusplus < 202002L
#error "chimera: this compiler is too old or set to an older language; expected C++20 (-std=c++20)"
#include <chimera/nothing_more>  // is not there and so ends the compilation: 1,500 errors would hide the one above
#endif

#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "chimera: its numbers need the rules of floating point; compile files that include it with -fno-fast-math"
#include <chimera/nothing_more>
#endif

#include <string_view>

// Macros of other headers, as libstdc++ takes them away when it is first seen.
#undef max
#undef min

namespace chimera {

static_assert(0.1 - 0.1f != 0, "chimera: it needs double constants; compile without -fsingle-precision-constant");

inline constexpr std::string_view library_version = "0.2.0";

}  // namespace chimera
