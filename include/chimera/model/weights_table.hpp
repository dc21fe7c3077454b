// The table of a model's weights: what optimizers, checkpoints and files walk.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// One row of a model's table of weights, in arena order. Names are those of GGUF: blk.3.ssm_in.weight.
struct NamedTensor {
  std::array<char, 48> text{};  // zero-terminated
  std::int64_t rows = 0, cols = 0;
  std::size_t offset = 0;  // floats from the start of the arena
  Role role = Role::vector;
  Init init{};
  std::array<std::int64_t, Tensor::most_parts> parts{};  // rows of each; none: they are one
  std::int64_t each = 0;                                 // rows of each matrix of a stack of them; 0: it is none
  std::size_t slot = 0;                                  // in the table of packed weights

  /// Whether decoding multiplies with its rows; it holds all other weights as f32.
  constexpr bool packed() const { return role == Role::matrix; }
  /// Taps of a convolution [channels, taps], which decoding wants as [taps, channels].
  constexpr bool taps() const { return role == Role::taps; }
  constexpr bool is_vector() const { return role == Role::vector || role == Role::balance; }
  /// Whether weight decay applies.
  constexpr bool decays() const { return !is_vector(); }
  constexpr std::string_view name() const { return text.data(); }
  /// The block that it is of; -1: of none.
  constexpr int block() const {
    constexpr std::string_view of_block = "blk.";
    if (!name().starts_with(of_block)) return -1;
    int n = 0;
    for (std::size_t at = of_block.size(); text[at] >= '0' && text[at] <= '9'; ++at) n = 10 * n + (text[at] - '0');
    return n;
  }
  constexpr std::int64_t size() const { return rows * cols; }
};

}  // namespace chimera::inline CHIMERA_ABI
