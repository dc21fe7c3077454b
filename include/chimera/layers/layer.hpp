// What every layer is, and the plain linear map most of them are made of.
//
// A layer is one file with four parts: its weights, forward, backward, and the decode step.
//   forward:  y += scale * layer(x)              x, y [B,T,width]; x is already normalised
//   backward: dx = scale * dlayer/dx . dy        weight gradients accumulate (+=)
//   step:     y += scale * layer(x) for one token, the past in `state`
// `state` (zero at the start of a sequence, state_floats for each) is what decoding carries; forward with a state reads the
// past from it and leaves the new past in it. `temp` is working memory, at least temp_floats(batch).
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/gemm.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

template <class L>
concept Layer = requires(const Cpu& q, Weights<L> w, Weights<L, float> dw, const Batch& batch, const float* x, float* y,
                         typename L::Activations& a, Bump& memory, Bump temp) {
  { L::params.size() } -> std::convertible_to<std::size_t>;
  { L::state_floats } -> std::convertible_to<std::int64_t>;
  { L::bind(memory, batch) } -> std::same_as<typename L::Activations>;
  { L::temp_floats(batch) } -> std::same_as<std::int64_t>;
  L::forward(q, w, batch, x, 1.f, y, a, y, temp);
  L::backward(q, w, dw, batch, x, x, 1.f, y, a, temp);
  L::step(q, w, std::int64_t{}, x, 1.f, y, y, temp);
};

/// What decoding carries for one sequence in two parts, each aligned. Kernels want one part of all sequences in a piece.
struct TwoPartState {
  std::int64_t first, second;  // floats

  constexpr std::int64_t second_at() const { return floats_of({first}); }
  constexpr std::int64_t floats() const { return floats_of({first, second}); }

  void gather(std::int64_t sequences, const float* state, float* firsts, float* seconds) const {
    for (std::int64_t b = 0; b < sequences; ++b, state += floats()) {
      std::copy_n(state, first, firsts + b * first);
      std::copy_n(state + second_at(), second, seconds + b * second);
    }
  }
  void scatter(std::int64_t sequences, const float* firsts, const float* seconds, float* state) const {
    for (std::int64_t b = 0; b < sequences; ++b, state += floats()) {
      std::copy_n(firsts + b * first, first, state);
      std::copy_n(seconds + b * second, second, state + second_at());
    }
  }
};

/// A dense matrix W [out, in] as it lies in the arena.
struct Linear {
  std::int64_t out, in;
};

/// y [rows, out] = scale x W^T + beta y.   Rows of x and y lie ldx and ldy apart.
inline void linear(const Cpu& q, Linear s, std::int64_t rows, float scale, const float* x, std::int64_t ldx,
                   const float* w, float beta, float* y, std::int64_t ldy) {
  gemm(q, rows, s.out, s.in, scale, row_major(x, ldx), transposed(w, s.in), beta, y, ldy);
}

/// dx [rows, in] = scale dy W + beta dx
inline void linear_input_gradient(const Cpu& q, Linear s, std::int64_t rows, float scale, const float* dy,
                                  std::int64_t ldy, const float* w, float beta, float* dx, std::int64_t ldx) {
  gemm(q, rows, s.in, s.out, scale, row_major(dy, ldy), row_major(w, s.in), beta, dx, ldx);
}

/// dW += scale dy^T x
inline void linear_weight_gradient(const Cpu& q, Linear s, std::int64_t rows, float scale, const float* dy,
                                   std::int64_t ldy, const float* x, std::int64_t ldx, float* dw) {
  gemm(q, s.out, s.in, rows, scale, transposed(dy, ldy), row_major(x, ldx), 1.f, dw, s.in);
}

}  // namespace chimera::inline CHIMERA_ABI
