// What a number is by its bits: a compiler that was told of no NaN and no infinity takes comparisons with them away.
#pragma once

#include <chimera/core/version.hpp>

#include <bit>
#include <cstdint>

namespace chimera {

constexpr bool is_nan(float x) { return std::bit_cast<std::uint32_t>(x) << 1 > 0xFF000000u; }
constexpr bool is_finite(float x) { return std::bit_cast<std::uint32_t>(x) << 1 < 0xFF000000u; }
constexpr bool is_finite(double x) { return std::bit_cast<std::uint64_t>(x) << 1 < std::uint64_t{0x7FF} << 53; }
/// Neither NaN nor infinity, but the one that forbids.
constexpr bool is_minus_infinity(float x) { return std::bit_cast<std::uint32_t>(x) == 0xFF800000u; }

}  // namespace chimera
