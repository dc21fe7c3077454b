// Names and shapes of weights, and where each lies in a flat arena of f32.
#pragma once

#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/memory.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace chimera {

/// What a weight is: how it may be stored, what decoding does with it, whether weight decay applies.
enum class Role : std::uint8_t {
  matrix,  // of a product: its rows may be stored in any format, and decoding multiplies with them as they are
  gate,    // of a small product that wants f32: never quantized
  taps,    // of a convolution [channels, taps]; decoding wants [taps, channels]
  vector,  // one number for each channel or head: f32, and no weight decay
  // One number for each expert, which is added to its score when experts are chosen. The loss knows nothing of it: its
  // place in a gradient counts how often each was chosen, and a Learner moves it by that.
  balance,
};

/// How a tensor starts: numbers drawn by a law, and what is made of each. Layers say it, with their paper's numbers.
struct Init {
  enum class Law : std::uint8_t {
    constant,     // a
    normal,       // N(0, a)
    uniform,      // U(a, b)
    log_uniform,  // e^U(ln a, ln b)
    even,         // a ... b in equal steps
  };
  enum class Then : std::uint8_t {
    as_drawn,
    log,
    inverse_softplus,  // x with softplus(x) = the number
    root_decay,        // x with e^-softplus(x) = the number's square root
  };
  Law law = Law::constant;
  float a = 0.f, b = 0.f;
  Then then = Then::as_drawn;

  static constexpr Init constant(float value) { return {.a = value}; }
  /// The deviation of GPT-2's plain matrices.
  static constexpr Init normal(float deviation = 0.02f) { return {Law::normal, deviation}; }
  /// What a branch adds to the residual stream, as in GPT-2: N(0, 0.02 / sqrt(2 layers)).
  static constexpr Init branch(int layers) {
    return normal(0.02f / constexpr_sqrt(2.f * static_cast<float>(layers > 0 ? layers : 1)));
  }
  /// N(0, 1 / sqrt(n)): sums of n products keep their input's deviation.
  static constexpr Init fan_in(std::int64_t n) { return normal(1.f / root(n)); }
  /// U(-1 / sqrt(n), 1 / sqrt(n)): a convolution's n taps.
  static constexpr Init taps(std::int64_t n) { return uniform(-1.f / root(n), 1.f / root(n)); }
  static constexpr Init uniform(float a, float b, Then then = Then::as_drawn) { return {Law::uniform, a, b, then}; }
  static constexpr Init even(float a, float b) { return {Law::even, a, b}; }
  static constexpr Init log_uniform(float a, float b, Then then) { return {Law::log_uniform, a, b, then}; }

  constexpr bool operator==(const Init&) const = default;

 private:
  static constexpr float root(std::int64_t n) { return constexpr_sqrt(static_cast<float>(n > 0 ? n : 1)); }
};

/// One tensor of a layer: rows x cols f32, row-major; a vector has one row. A size of 0: this config has none.
struct Tensor {
  static constexpr std::size_t most_parts = 6;

  std::string_view name;
  std::int64_t rows, cols;
  Role role = Role::matrix;
  Init init = Init::normal();
  std::array<std::int64_t, most_parts> parts{};  // rows of each: q, k and v, say; none: they are one
  std::int64_t each = 0;  // rows of each of the many matrices that it is a stack of, those of experts; 0: it is none

  constexpr std::int64_t size() const { return rows * cols; }
};

/// A vector of a layer: a norm's weights, biases.
constexpr Tensor vector_tensor(std::string_view name, std::int64_t size, Init init) {
  return {name, 1, size, Role::vector, init};
}

/// The end of the part, of rows divided like that, in which a row lies.
constexpr std::int64_t part_end(const std::array<std::int64_t, Tensor::most_parts>& parts, std::int64_t rows,
                                std::int64_t row) {
  std::int64_t end = 0;
  for (const std::int64_t part : parts)
    if (part > 0 && row < (end += part)) return end;
  return rows;
}

/// Offsets, in floats, of a layer's tensors in its slice of the arena; the last entry is the slice's size.
template <class Layer>
inline constexpr auto offsets = [] {
  std::array<std::size_t, Layer::params.size() + 1> o{};
  for (std::size_t i = 0; i < Layer::params.size(); ++i)
    o[i + 1] = o[i] + aligned_floats(static_cast<std::size_t>(Layer::params[i].size()));
  return o;
}();

/// Hands out consecutive, aligned pieces of memory. Without any it only counts: the same code sizes and binds.
/// Pass it by value to lend what is left and have it back on return.
struct Bump {
  std::byte* base = nullptr;
  std::size_t used = 0;  // bytes

  Bump() = default;
  explicit Bump(void* memory) : base(static_cast<std::byte*>(memory)) {}

  template <class T = float>
  T* take(std::int64_t n) {
    T* piece = base ? reinterpret_cast<T*>(base + used) : nullptr;
    used += aligned_bytes(static_cast<std::size_t>(n) * sizeof(T));
    return piece;
  }
};

/// Bytes that taking all these pieces uses.
template <class T = float>
constexpr std::int64_t bytes_of(std::initializer_list<std::int64_t> pieces) {
  std::int64_t total = 0;
  for (const std::int64_t piece : pieces)
    total += static_cast<std::int64_t>(aligned_bytes(static_cast<std::size_t>(piece) * sizeof(T)));
  return total;
}

}  // namespace chimera
