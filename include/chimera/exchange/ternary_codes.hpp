// Weights -1, 0 and 1 as codes 0, 1 and 2 of two bits, four to a byte, as files hold them in two orders.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace chimera {

/// Each run of `run` weights lies in run / 4 bytes: byte i holds the weights i, i + run / 4, i + run / 2 and
/// i + 3 run / 4, the first of them in its lowest bits or in its highest.
struct CodeOrder {
  std::int64_t run;
  bool highest_first;

  /// transformers' of a matrix of that size, whose rows are a multiple of 4.
  static constexpr CodeOrder rows(std::int64_t size) { return {size, false}; }
  /// I2_S, that of BitNet's own runtime on x86.
  static constexpr CodeOrder runs() { return {128, true}; }
};

/// Of -1, 0 and 1, a multiple of order.run.
std::vector<std::byte> pack_codes(CodeOrder order, std::span<const float> weights);

/// Fills the weights, four for each byte. An error for the code 3, which means nothing.
Result<void> unpack_codes(CodeOrder order, std::span<const std::byte> codes, std::span<float> weights);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

namespace ternary_codes_parts {

/// Calls f(weight, byte, shift) for each of n weights.
template <class F>
void each_code(CodeOrder order, std::size_t n, F f) {
  const auto run = static_cast<std::size_t>(order.run), quarter = run / 4;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t place = i % run / quarter;
    f(i, i / run * quarter + i % quarter, 2 * (order.highest_first ? 3 - place : place));
  }
}

}  // namespace ternary_codes_parts

CHIMERA_FUNCTION std::vector<std::byte> pack_codes(CodeOrder order, std::span<const float> weights) {
  std::vector<std::byte> codes(weights.size() / 4);
  ternary_codes_parts::each_code(order, weights.size(), [&](std::size_t i, std::size_t byte, std::size_t shift) {
    codes[byte] |= static_cast<std::byte>(static_cast<unsigned>(weights[i] + 1.f) << shift);
  });
  return codes;
}

CHIMERA_FUNCTION Result<void> unpack_codes(CodeOrder order, std::span<const std::byte> codes,
                                           std::span<float> weights) {
  bool known = true;
  ternary_codes_parts::each_code(order, weights.size(), [&](std::size_t i, std::size_t byte, std::size_t shift) {
    const int code = std::to_integer<int>(codes[byte] >> shift) & 3;
    known = known && code != 3;
    weights[i] = static_cast<float>(code - 1);
  });
  if (!known) return Error{"expected the codes 0, 1 and 2 of the weights -1, 0 and 1, found 3"};
  return {};
}

}  // namespace chimera
#endif
