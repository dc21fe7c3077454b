// Names and shapes of weights, and where each lies in a flat arena of f32.
#pragma once

#include <chimera/core/memory.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace chimera {

/// How a tensor starts. Numbers: the Mamba-2 and Griffin reference code, and GPT-2 for the plain matrices.
enum class Init : std::uint8_t {
  zero,
  one,
  normal,         // N(0, 0.02)
  branch_output,  // N(0, 0.02 / sqrt(2 layers)): what a branch adds to the residual stream
  conv,           // U(-1/sqrt(taps), 1/sqrt(taps))
  fan_in,         // N(0, 1/sqrt(cols))
  a_log,          // ln U(1, 16)
  dt_bias,        // inverse softplus of exp(U(ln 0.001, ln 0.1))
  rg_lambda,      // softplus(value) = -ln rho with rho^2 ~ U(0.9^2, 0.999^2)
};

/// One tensor of a layer: rows x cols f32, row-major; a vector has one row.
struct Tensor {
  std::string_view name;
  std::int64_t rows, cols;
  Init init = Init::normal;
  bool decay = true;  // weight decay applies
  int parts = 1;      // equal runs of rows that decoding multiplies side by side: gate and up

  constexpr std::int64_t size() const { return rows * cols; }
};

/// Offsets, in floats, of a layer's tensors in its slice of the arena; the last entry is the slice's size.
template <class Layer>
inline constexpr auto offsets = [] {
  std::array<std::size_t, Layer::params.size() + 1> o{};
  for (std::size_t i = 0; i < Layer::params.size(); ++i)
    o[i + 1] = o[i] + aligned_floats(static_cast<std::size_t>(Layer::params[i].size()));
  return o;
}();

/// A layer's slice of an arena of weights (T = const float) or of gradients (T = float).
template <class Layer, class T = const float>
struct Weights {
  T* base;

  constexpr T* operator[](std::size_t param) const { return base + offsets<Layer>[param]; }
};

/// Hands out consecutive, aligned pieces of an arena. A null arena only counts: the same code sizes and binds.
/// Pass it by value to lend what is left and have it back on return.
struct Bump {
  float* base = nullptr;
  std::size_t used = 0;  // floats

  float* take(std::int64_t floats) {
    float* piece = base ? base + used : nullptr;
    used += aligned_floats(static_cast<std::size_t>(floats));
    return piece;
  }
};

/// Floats that taking all these pieces uses.
constexpr std::int64_t floats_of(std::initializer_list<std::int64_t> pieces) {
  std::int64_t total = 0;
  for (const std::int64_t piece : pieces)
    total += static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(piece)));
  return total;
}

}  // namespace chimera
