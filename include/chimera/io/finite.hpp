// Whether the numbers of a tensor from a file are numbers: NaN and infinity in floats and in the scales of blocks.
#pragma once

#include <chimera/core/format.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace chimera {

/// Of the tensor's blocks (of one number for F32, F16, BF16, F64), those that do not decode to finite numbers.
struct NotFinite {
  std::int64_t blocks = 0;
  std::int64_t first = -1;  // the first of them
};

namespace detail {

/// The places of the half-precision scales of a block, in bytes. Sources: ggml's ggml-common.h.
struct BlockScales {
  int count;
  std::array<std::size_t, 2> at;
};
constexpr BlockScales block_scales(Format format) {
  switch (format) {
    case Format::f16:
    case Format::q4_0:
    case Format::q5_0:
    case Format::q8_0: return {1, {0}};
    case Format::q4_1:
    case Format::q5_1:
    case Format::q4_k:
    case Format::q5_k: return {2, {0, 2}};
    case Format::q6_k: return {1, {208}};
    case Format::tq1_0: return {1, {52}};
    case Format::tq2_0: return {1, {64}};
    default: return {0, {}};
  }
}

}  // namespace detail

/// Goes over all of the data. Integer formats are always finite. TQ2_0 codes three values in two bits: the fourth code
/// counts as not finite.
inline NotFinite find_not_finite(Format format, std::span<const std::byte> data) {
  NotFinite found;
  const FormatInfo& info = *format_info(format);
  const detail::BlockScales scales = detail::block_scales(format);
  const auto bits = [](const std::byte* p, auto value) {
    std::memcpy(&value, p, sizeof value);
    return value;
  };
  const auto finite = [&](const std::byte* block) {
    if (format == Format::f32) return (bits(block, std::uint32_t{}) & 0x7F800000) != 0x7F800000;
    if (format == Format::bf16) return (bits(block, std::uint16_t{}) & 0x7F80) != 0x7F80;
    if (format == Format::f64) return (bits(block, std::uint64_t{}) & 0x7FF0000000000000) != 0x7FF0000000000000;
    for (int i = 0; i < scales.count; ++i)
      if ((bits(block + scales.at[static_cast<std::size_t>(i)], std::uint16_t{}) & 0x7C00) == 0x7C00) return false;
    if (format == Format::tq2_0)
      for (std::size_t i = 0; i < 64; i += 8) {
        const auto codes = bits(block + i, std::uint64_t{});
        if (codes & codes >> 1 & 0x5555555555555555) return false;
      }
    return true;
  };
  const auto bytes = static_cast<std::size_t>(info.bytes);
  for (std::size_t at = 0; at + bytes <= data.size(); at += bytes)
    if (!finite(data.data() + at) && found.blocks++ == 0) found.first = static_cast<std::int64_t>(at / bytes);
  return found;
}

}  // namespace chimera
