// Text as numbers: what the tables of tokens, words and pieces compare and hash.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/version.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace chimera {

/// Up to 32 bytes of text as numbers, with zeros behind: quick to compare and to hash.
struct ShortText {
  static constexpr std::size_t most = 32;
  std::array<std::uint64_t, 4> words{};

  bool operator==(const ShortText&) const = default;

  /// `end`: of the memory that may be read.
  static ShortText of(std::string_view text, const char* end);

  /// Spreads well enough for tables, and is no defence against someone who looks for collisions.
  std::uint64_t hash(std::size_t bytes) const;

 private:
  /// Masks that leave the first n bytes.
  static constexpr auto masks = [] {
    std::array<std::array<std::uint64_t, 4>, most + 1> masks{};
    for (std::size_t n = 0; n <= most; ++n) {
      std::array<unsigned char, most> bytes{};
      std::fill_n(bytes.begin(), n, static_cast<unsigned char>(255));
      masks[n] = std::bit_cast<std::array<std::uint64_t, 4>>(bytes);
    }
    return masks;
  }();
};

/// A hash of any bytes: of up to 32 that of their ShortText, of more that of each 32 and the rest.
std::uint64_t hash_bytes(std::string_view bytes);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION std::uint64_t hash_bytes(std::string_view bytes) {
  std::uint64_t h = 0;
  for (; bytes.size() > ShortText::most; bytes.remove_prefix(ShortText::most))
    h = std::rotl(h, 19) ^ ShortText::of(bytes.substr(0, ShortText::most), bytes.data() + bytes.size()).hash(32);
  return h ^ ShortText::of(bytes, bytes.data() + bytes.size()).hash(bytes.size());
}

CHIMERA_FUNCTION ShortText ShortText::of(std::string_view text, const char* end) {
  ShortText t;
  if (end - text.data() < static_cast<std::ptrdiff_t>(most)) {
    std::memcpy(t.words.data(), text.data(), text.size());
    return t;
  }
  std::memcpy(t.words.data(), text.data(), most);
  for (std::size_t i = 0; i < t.words.size(); ++i) t.words[i] &= masks[text.size()][i];
  return t;
}

CHIMERA_FUNCTION std::uint64_t ShortText::hash(std::size_t bytes) const {
  constexpr std::uint64_t a = 0x9E3779B97F4A7C15, b = 0xC2B2AE3D27D4EB4F;
  std::uint64_t h = words[0] * a ^ std::rotl(words[1] * b, 32) ^ bytes;
  if (bytes > 16) h ^= std::rotl(words[2] * b, 13) ^ std::rotl(words[3] * a, 45);
  h = (h ^ h >> 32) * a;
  return h ^ h >> 32;
}

}  // namespace chimera
#endif
