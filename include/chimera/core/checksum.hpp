// CRC-32C (Castagnoli), the checksum of checkpoints and of TensorBoard's records.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera {

namespace checksum_parts {

/// So many bytes are read at once where the processor has no instruction: each has a table of 1 KiB. Nearly all of
/// x86-64 have one.
#if defined(__x86_64__)
inline constexpr std::size_t crc32c_bytes = 1;
#else
inline constexpr std::size_t crc32c_bytes = 8;
#endif

/// table[k][b]: the remainder of byte b followed by k zero bytes; polynomial 0x1EDC6F41, bits reversed.
template <std::size_t bytes>
inline constexpr auto crc32c_table = [] {
  std::array<std::array<std::uint32_t, 256>, bytes> table{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t r = b;
    for (int i = 0; i < 8; ++i) r = (r >> 1) ^ (r & 1 ? 0x82F63B78u : 0u);
    table[0][b] = r;
  }
  for (std::size_t k = 1; k < bytes; ++k)
    for (std::size_t b = 0; b < 256; ++b) table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 255];
  return table;
}();

template <std::size_t bytes = crc32c_bytes>
std::uint32_t crc32c_portable(std::uint32_t crc, const unsigned char* p, std::size_t n) {
  const auto& t = crc32c_table<bytes>;
  if constexpr (bytes == 8)
    for (; n >= 8; p += 8, n -= 8) {
      crc ^= static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
             static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
      crc = t[7][crc & 255] ^ t[6][crc >> 8 & 255] ^ t[5][crc >> 16 & 255] ^ t[4][crc >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^
            t[1][p[6]] ^ t[0][p[7]];
    }
  for (; n > 0; ++p, --n) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 255];
  return crc;
}

#if defined(__x86_64__)
/// The instruction of SSE 4.2.
__attribute__((__target__("sse4.2"))) inline std::uint32_t crc32c_sse42(std::uint32_t crc, const unsigned char* p,
                                                                        std::size_t n) {
  std::uint64_t wide = crc;
  for (; n >= 8; p += 8, n -= 8) {
    std::uint64_t word;
    std::memcpy(&word, p, sizeof word);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  crc = static_cast<std::uint32_t>(wide);
  for (; n > 0; ++p, --n) crc = __builtin_ia32_crc32qi(crc, *p);
  return crc;
}
#endif

}  // namespace checksum_parts

/// Of n bytes. To go on after a first part, hand in that part's result.
inline std::uint32_t crc32c(const void* data, std::size_t n, std::uint32_t before = 0) {
  const auto* p = static_cast<const unsigned char*>(data);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("sse4.2")) return ~checksum_parts::crc32c_sse42(~before, p, n);
#endif
  return ~checksum_parts::crc32c_portable(~before, p, n);
}

/// As TensorFlow stores it: rotated and offset, so that the checksum of bytes that hold checksums stays sound.
constexpr std::uint32_t masked_crc32c(std::uint32_t crc) { return (crc >> 15 | crc << 17) + 0xA282EAD8u; }

}  // namespace chimera
