// Whether the numbers of a tensor from a file are numbers: NaN and infinity in floats and in the scales of blocks.
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace chimera {

/// What of a tensor does not decode to finite numbers.
struct NotFinite {
  std::int64_t count = 0;   // floats, or scales of blocks
  std::int64_t block = -1;  // the first block that has one (of one number for F64, F32, F16, BF16)
};

namespace finite_parts {

/// Looks at the T at byte `at` of each block.
template <class T, class Bad>
NotFinite scan_blocks(std::span<const std::byte> data, std::size_t block_bytes, std::size_t at, Bad&& bad) {
  const auto bad_at = [&](std::size_t block) {
    T value;
    std::memcpy(&value, data.data() + block * block_bytes + at, sizeof value);
    return bad(value);
  };
  NotFinite found;
  const std::size_t blocks = data.size() / block_bytes;
  for (std::size_t i = 0; i < blocks; ++i) found.count += bad_at(i);
  if (found.count > 0)
    for (found.block = 0; !bad_at(static_cast<std::size_t>(found.block));) ++found.block;
  return found;
}

}  // namespace finite_parts

/// Goes over all of the data. Integers are always finite. TQ2_0 codes three values in two bits: the fourth code counts
/// as not finite. Where the scales lie: ggml's ggml-common.h.
NotFinite find_not_finite(Format format, std::span<const std::byte> data);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION NotFinite find_not_finite(Format format, std::span<const std::byte> data) {
  NotFinite found;
  const auto bytes = static_cast<std::size_t>(format_info(format)->bytes);
  const auto scan = [&]<class T>(std::size_t at, T /*type*/, auto bad) {
    const NotFinite here = finite_parts::scan_blocks<T>(data, bytes, at, bad);
    if (here.count > 0 && (found.count == 0 || here.block < found.block)) found.block = here.block;
    found.count += here.count;
  };
  // All bits of the exponent are set.
  const auto half = [&](std::size_t at) {
    scan(at, std::uint16_t{}, [](std::uint16_t bits) { return (bits & 0x7C00) == 0x7C00; });
  };
  switch (format) {
    case Format::f64:
      scan(0, std::uint64_t{}, [](std::uint64_t bits) { return (bits << 1) >= std::uint64_t{0x7FF} << 53; });
      break;
    case Format::f32: scan(0, std::uint32_t{}, [](std::uint32_t bits) { return (bits << 1) >= 0xFF000000u; }); break;
    case Format::bf16: scan(0, std::uint16_t{}, [](std::uint16_t bits) { return (bits & 0x7F80) == 0x7F80; }); break;
    case Format::f16:
    case Format::q4_0:
    case Format::q5_0:
    case Format::q8_0: half(0); break;
    case Format::q4_1:
    case Format::q5_1:
    case Format::q4_k:
    case Format::q5_k: half(0), half(2); break;
    case Format::q6_k:
    case Format::tq1_0: half(bytes - 2); break;
    case Format::tq2_0:
      half(64);
      for (std::size_t at = 0; at < 64; at += 8)
        scan(at, std::uint64_t{}, [](std::uint64_t codes) { return (codes & codes >> 1 & 0x5555555555555555) != 0; });
      break;
    case Format::i8:
    case Format::i16:
    case Format::i32:
    case Format::i64: break;
  }
  return found;
}

}  // namespace chimera
#endif
