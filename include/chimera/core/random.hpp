// Counter-based random numbers: a draw is a pure function of (key, stream, counter), so any part of a run can be
// repeated alone, and a checkpoint stores two integers.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cmath>
#include <cstdint>

namespace chimera {

/// Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011): four independent 32-bit words for each counter.
constexpr std::array<std::uint32_t, 4> philox(std::uint64_t key, std::uint64_t stream, std::uint64_t counter) {
  std::array<std::uint32_t, 4> c{static_cast<std::uint32_t>(counter), static_cast<std::uint32_t>(counter >> 32),
                                 static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)};
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0], p1 = std::uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    k0 += 0x9E3779B9, k1 += 0xBB67AE85;
  }
  return c;
}

/// In [0, 1), 24 bits.
constexpr float unit(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

__extension__ typedef unsigned __int128 Wide;

/// A sequence of draws: `key` names the run, `stream` the use. Its whole state is public and may be saved.
struct Random {
  std::uint64_t key = 0, stream = 0, counter = 0;

  std::uint32_t word() { return philox(key, stream, counter++)[0]; }
  float uniform() { return unit(word()); }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  /// In [0, n), n > 0; the bias of the multiplication is below n / 2^64.
  std::uint64_t below(std::uint64_t n) {
    const auto w = philox(key, stream, counter++);
    const std::uint64_t x = (std::uint64_t{w[0]} << 32) | w[1];
    return static_cast<std::uint64_t>((static_cast<Wide>(x) * n) >> 64);
  }
  /// Four standard normals (Box and Muller).
  std::array<float, 4> normals() {
    const auto w = philox(key, stream, counter++);
    std::array<float, 4> z;
    for (std::size_t i = 0; i < 4; i += 2) {
      const float radius = std::sqrt(-2.f * std::log((static_cast<float>(w[i] >> 8) + 1.f) * 0x1p-24f));
      const float angle = 6.283185307f * unit(w[i + 1]);
      z[i] = radius * std::cos(angle), z[i + 1] = radius * std::sin(angle);
    }
    return z;
  }
  float normal() { return normals()[0]; }
};

}  // namespace chimera
