// The linear maps that layers are made of: plain, or of ternary weights. Both are functions of the same names, and
// linear_map<C> says which a matrix of the config C is.
//   linear:           y [rows, out] = scale x W^T + beta y
//   linear_backward:  dW += scale dy^T x, then dx = scale dy W + beta dx
// Rows of x and dx, and of y and dy, lie ldx and ldy apart. `temp` has linear_bytes.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/ternary/product.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// A matrix of a layer in training: f32, row-major, as it lies in the arena.
struct Matrix {
  const float* w;
};
struct MatrixGradient {
  float* w;
};

/// A matrix W [out, in] as it is.
struct Linear {
  std::int64_t out, in;
};

constexpr std::int64_t linear_bytes(Linear, std::int64_t) { return 0; }

inline void linear(const Device auto& q, Linear s, Matrix m, std::int64_t rows, float scale, const float* x,
                   std::int64_t ldx, float beta, float* y, std::int64_t ldy, Bump = {}) {
  training_gemm(q, rows, s.out, s.in, scale, row_major(x, ldx), transposed(m.w, s.in), beta, y, ldy);
}

/// dx [rows, in] = scale dy W + beta dx
inline void linear_input_gradient(const Device auto& q, Linear s, Matrix m, std::int64_t rows, float scale,
                                  const float* dy, std::int64_t ldy, float beta, float* dx, std::int64_t ldx,
                                  Bump = {}) {
  training_gemm(q, rows, s.in, s.out, scale, row_major(dy, ldy), row_major(m.w, s.in), beta, dx, ldx);
}

/// dW += scale dy^T x
inline void linear_weight_gradient(const Device auto& q, Linear s, Matrix, MatrixGradient dm, std::int64_t rows,
                                   float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx,
                                   Bump = {}) {
  training_gemm(q, s.out, s.in, rows, scale, transposed(dy, ldy), row_major(x, ldx), 1.f, dm.w, s.in);
}

/// A matrix W whose products are those of its ternary weights W^ with x rounded to 8 bits, x^. Gradients are those of
/// the product, dx = dy W^ and dW = dy^T x^, as if nothing had been rounded; deep zeros are left out of dW.
struct TernaryLinear {
  TernaryShape shape;
  DeepZero deep;
};

constexpr std::int64_t linear_bytes(const TernaryLinear& s, std::int64_t rows) {
  const std::int64_t weights = s.shape.out * s.shape.in;
  return bytes_of({s.shape.out * s.shape.groups(), std::max(weights, rows * s.shape.in), weights});
}

inline void linear(const Device auto& q, const TernaryLinear& s, Matrix m, std::int64_t rows, float scale,
                   const float* x, std::int64_t ldx, float beta, float* y, std::int64_t ldy, Bump temp) {
  float* scales = temp.take(s.shape.out * s.shape.groups());
  ternary_scales(q, s.shape, m.w, scales);
  ternary_product(q, s.shape, rows, scale, x, ldx, m.w, scales, beta, y, ldy);
}

inline void linear_input_gradient(const Device auto& q, const TernaryLinear& s, Matrix m, std::int64_t rows,
                                  float scale, const float* dy, std::int64_t ldy, float beta, float* dx,
                                  std::int64_t ldx, Bump temp) {
  float* scales = temp.take(s.shape.out * s.shape.groups());
  float* rounded = temp.take(s.shape.out * s.shape.in);
  ternary_scales(q, s.shape, m.w, scales);
  ternary_weights(q, s.shape, m.w, scales, rounded);
  linear_input_gradient(q, Linear{s.shape.out, s.shape.in}, Matrix{rounded}, rows, scale, dy, ldy, beta, dx, ldx);
}

inline void linear_weight_gradient(const Device auto& q, const TernaryLinear& s, Matrix m, MatrixGradient dm,
                                   std::int64_t rows, float scale, const float* dy, std::int64_t ldy, const float* x,
                                   std::int64_t ldx, Bump temp) {
  const std::int64_t out = s.shape.out, in = s.shape.in;
  float* scales = temp.take(out * s.shape.groups());
  float* rounded = temp.take(rows * in);
  float* dweights = temp.take(out * in);
  ternary_scales(q, s.shape, m.w, scales);
  rounded_rows(q, rows, in, x, ldx, rounded);
  training_gemm(q, out, in, rows, scale, transposed(dy, ldy), row_major(rounded, in), 0.f, dweights, in);
  ternary_gradient(q, s.shape, s.deep, m.w, scales, dweights, dm.w);
}

/// Both gradients; dx may be x.
inline void linear_backward(const Device auto& q, const auto& s, Matrix m, MatrixGradient dm, std::int64_t rows,
                            float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx,
                            float beta, float* dx, Bump temp = {}) {
  linear_weight_gradient(q, s, m, dm, rows, scale, dy, ldy, x, ldx, temp);
  linear_input_gradient(q, s, m, rows, scale, dy, ldy, beta, dx, ldx, temp);
}

/// What the matrix `t` of a config is.
template <const auto& C>
constexpr auto linear_map(const Tensor& t) {
  if constexpr (C.ternary.on)
    return TernaryLinear{{t.rows, t.cols, C.ternary.group, t.parts}, {C.ternary.deep_zero, C.ternary.most_zeros}};
  else
    return Linear{t.rows, t.cols};
}

}  // namespace chimera::inline CHIMERA_ABI
