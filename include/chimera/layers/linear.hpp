// The linear maps that layers are made of: plain, or of ternary weights, each with an adapter or without. linear_map<C>
// says which a matrix of the config C is.
//   linear:           y [rows, out] = scale x W^T + beta y
//   linear_backward:  dW += scale dy^T x, then dx = scale dy W + beta dx
// A matrix of a base has no dW; what its adapter gets lies in AdapterPass::gradients.
// Rows of x and dx, and of y and dy, lie ldx and ldy apart. `temp` has linear_bytes.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/stored_product.hpp>
#include <chimera/kernels/ternary/product.hpp>
#include <chimera/layers/adapter.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// A matrix of a layer in training: f32, row-major, as it lies in the arena; or one of a base, as it is stored perhaps,
/// and with an adapter perhaps.
struct Matrix {
  const float* w = nullptr;
  const StoredMatrix* stored = nullptr;  // in place of w; of a ternary matrix, what its weights are rounded to
  const Adapter* adapter = nullptr;
  const AdapterPass* pass = nullptr;

  static constexpr Matrix of(const BaseTensor& t, const AdapterPass* pass) {
    return {t.values, t.stored, t.adapter, pass};
  }
};
struct MatrixGradient {
  float* w = nullptr;  // null: it gets none
};

namespace linear_parts {

/// x [rows, in] as the adapter reads it, with what drops out; in `dropped`, unless nothing does.
inline ConstView adapter_input(const Device auto& q, std::int64_t in, const Matrix& m, std::int64_t rows,
                               const float* x, std::int64_t ldx, float* dropped) {
  const AdapterPass& p = *m.pass;
  if (p.dropout == 0.f) return row_major(x, ldx);
  dropout_rows(q, rows, in, p.dropout, p.seed, p.stream + m.adapter->number, x, ldx, 0.f, dropped, in);
  return row_major(dropped, in);
}

/// h [rows, columns] = x A^T
inline void adapter_down(const Device auto& q, std::int64_t in, const Matrix& m, std::int64_t rows, ConstView x,
                         float* h) {
  const std::int64_t ranks = m.adapter->ranks();
  training_gemm(q, rows, ranks, in, 1.f, x, transposed(m.pass->weights + m.adapter->a, in), 0.f, h, ranks);
}

/// Calls f(part, its B's first row, its first column of h).
template <class F>
void each_part(const Adapter& a, F&& f) {
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const Adapter::Part& part = a.parts[static_cast<std::size_t>(i)];
    f(part, row, i * a.rank);
    row += part.rows;
  }
}

/// y += scale s B A x
inline void adapter_forward(const Device auto& q, std::int64_t in, const Matrix& m, std::int64_t rows, float scale,
                            const float* x, std::int64_t ldx, float* y, std::int64_t ldy) {
  const Adapter& a = *m.adapter;
  Bump room{m.pass->room};
  float* h = room.take(rows * a.ranks());
  float* dropped = room.take(0);
  adapter_down(q, in, m, rows, adapter_input(q, in, m, rows, x, ldx, dropped), h);
  each_part(a, [&](const Adapter::Part& part, std::int64_t row, std::int64_t column) {
    training_gemm(q, rows, part.rows, a.rank, scale * a.scale, row_major(h + column, a.ranks()),
                  transposed(m.pass->weights + a.b + row * a.rank, a.rank), 1.f, y + part.first, ldy);
  });
}

/// g [rows, columns] = scale s dy B
inline void adapter_up_gradient(const Device auto& q, const Matrix& m, std::int64_t rows, float scale, const float* dy,
                                std::int64_t ldy, float* g) {
  const Adapter& a = *m.adapter;
  each_part(a, [&](const Adapter::Part& part, std::int64_t row, std::int64_t column) {
    training_gemm(q, rows, a.rank, part.rows, scale * a.scale, row_major(dy + part.first, ldy),
                  row_major(m.pass->weights + a.b + row * a.rank, a.rank), 0.f, g + column, a.ranks());
  });
}

/// dB += scale s dy^T h with h = x A^T, dA += g^T x
inline void adapter_weight_gradient(const Device auto& q, std::int64_t in, const Matrix& m, std::int64_t rows,
                                    float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx,
                                    const float* g, Bump room) {
  const Adapter& a = *m.adapter;
  float* h = room.take(rows * a.ranks());
  const ConstView input = adapter_input(q, in, m, rows, x, ldx, room.take(0));
  adapter_down(q, in, m, rows, input, h);
  each_part(a, [&](const Adapter::Part& part, std::int64_t row, std::int64_t column) {
    training_gemm(q, part.rows, a.rank, rows, scale * a.scale, transposed(dy + part.first, ldy),
                  row_major(h + column, a.ranks()), 1.f, m.pass->gradients + a.b + row * a.rank, a.rank);
  });
  training_gemm(q, a.ranks(), in, rows, 1.f, transposed(g, a.ranks()), input, 1.f, m.pass->gradients + a.a, in);
}

/// dx += g A
inline void adapter_input_gradient(const Device auto& q, std::int64_t in, const Matrix& m, std::int64_t rows,
                                   const float* g, float* dx, std::int64_t ldx, Bump room) {
  const std::int64_t ranks = m.adapter->ranks();
  const AdapterPass& p = *m.pass;
  const ConstView a = row_major(p.weights + m.adapter->a, in);
  if (p.dropout == 0.f) return training_gemm(q, rows, in, ranks, 1.f, row_major(g, ranks), a, 1.f, dx, ldx);
  room.take(rows * ranks);
  float* dropped = room.take(rows * in);
  training_gemm(q, rows, in, ranks, 1.f, row_major(g, ranks), a, 0.f, dropped, in);
  dropout_rows(q, rows, in, p.dropout, p.seed, p.stream + m.adapter->number, dropped, in, 1.f, dx, ldx);
}

}  // namespace linear_parts

/// A matrix W [out, in] as it is.
struct Linear {
  std::int64_t out, in;
};

constexpr std::int64_t linear_bytes(Linear, std::int64_t) { return 0; }

namespace linear_parts {

constexpr std::int64_t inputs(Linear s) { return s.in; }

inline void product(const Device auto& q, Linear s, const Matrix& m, std::int64_t rows, float scale, const float* x,
                    std::int64_t ldx, float beta, float* y, std::int64_t ldy, Bump) {
  if (m.stored) return stored_product(q, *m.stored, rows, scale, x, ldx, beta, y, ldy);
  training_gemm(q, rows, s.out, s.in, scale, row_major(x, ldx), transposed(m.w, s.in), beta, y, ldy);
}

inline void input_gradient(const Device auto& q, Linear s, const Matrix& m, std::int64_t rows, float scale,
                           const float* dy, std::int64_t ldy, float beta, float* dx, std::int64_t ldx, Bump) {
  if (m.stored) return stored_input_gradient(q, *m.stored, rows, scale, dy, ldy, beta, dx, ldx);
  training_gemm(q, rows, s.in, s.out, scale, row_major(dy, ldy), row_major(m.w, s.in), beta, dx, ldx);
}

inline void weight_gradient(const Device auto& q, Linear s, const Matrix&, MatrixGradient dm, std::int64_t rows,
                            float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx, Bump) {
  training_gemm(q, s.out, s.in, rows, scale, transposed(dy, ldy), row_major(x, ldx), 1.f, dm.w, s.in);
}

}  // namespace linear_parts

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

namespace linear_parts {

constexpr std::int64_t inputs(const TernaryLinear& s) { return s.shape.in; }

inline void product(const Device auto& q, const TernaryLinear& s, const Matrix& m, std::int64_t rows, float scale,
                    const float* x, std::int64_t ldx, float beta, float* y, std::int64_t ldy, Bump temp) {
  if (m.stored) {
    float* rounded = temp.take(rows * s.shape.in);
    rounded_rows(q, rows, s.shape.in, x, ldx, rounded);
    return stored_product(q, *m.stored, rows, scale, rounded, s.shape.in, beta, y, ldy);
  }
  float* scales = temp.take(s.shape.out * s.shape.groups());
  ternary_scales(q, s.shape, m.w, scales);
  ternary_product(q, s.shape, rows, scale, x, ldx, m.w, scales, beta, y, ldy);
}

inline void input_gradient(const Device auto& q, const TernaryLinear& s, const Matrix& m, std::int64_t rows,
                           float scale, const float* dy, std::int64_t ldy, float beta, float* dx, std::int64_t ldx,
                           Bump temp) {
  if (m.stored) return stored_input_gradient(q, *m.stored, rows, scale, dy, ldy, beta, dx, ldx);
  float* scales = temp.take(s.shape.out * s.shape.groups());
  float* rounded = temp.take(s.shape.out * s.shape.in);
  ternary_scales(q, s.shape, m.w, scales);
  ternary_weights(q, s.shape, m.w, scales, rounded);
  input_gradient(q, Linear{s.shape.out, s.shape.in}, {rounded}, rows, scale, dy, ldy, beta, dx, ldx, temp);
}

inline void weight_gradient(const Device auto& q, const TernaryLinear& s, const Matrix& m, MatrixGradient dm,
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

}  // namespace linear_parts

/// y [rows, out] = scale x W^T + beta y
void linear(const Device auto& q, const auto& s, const Matrix& m, std::int64_t rows, float scale, const float* x,
            std::int64_t ldx, float beta, float* y, std::int64_t ldy, Bump temp = {}) {
  linear_parts::product(q, s, m, rows, scale, x, ldx, beta, y, ldy, temp);
  if (m.adapter) linear_parts::adapter_forward(q, linear_parts::inputs(s), m, rows, scale, x, ldx, y, ldy);
}

/// The gradients of what is learned, unless `x` is null, then dx = scale dy W + beta dx, unless `dx` is null; dx may be
/// x.
void linear_gradients(const Device auto& q, const auto& s, const Matrix& m, MatrixGradient dm, std::int64_t rows,
                      float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx, float beta,
                      float* dx, std::int64_t lddx, Bump temp) {
  using namespace linear_parts;
  Bump room;
  float* g = nullptr;
  if (m.adapter) {
    room = Bump{m.pass->room};
    g = room.take(rows * m.adapter->ranks());
    adapter_up_gradient(q, m, rows, scale, dy, ldy, g);
    if (x) adapter_weight_gradient(q, inputs(s), m, rows, scale, dy, ldy, x, ldx, g, room);
  }
  if (x && dm.w) weight_gradient(q, s, m, dm, rows, scale, dy, ldy, x, ldx, temp);
  if (!dx) return;
  input_gradient(q, s, m, rows, scale, dy, ldy, beta, dx, lddx, temp);
  if (m.adapter) adapter_input_gradient(q, inputs(s), m, rows, g, dx, lddx, room);
}

/// dx [rows, in] = scale dy W + beta dx
void linear_input_gradient(const Device auto& q, const auto& s, const Matrix& m, std::int64_t rows, float scale,
                           const float* dy, std::int64_t ldy, float beta, float* dx, std::int64_t ldx, Bump temp = {}) {
  linear_gradients(q, s, m, {}, rows, scale, dy, ldy, nullptr, 0, beta, dx, ldx, temp);
}

/// dW += scale dy^T x, or what its adapter gets
void linear_weight_gradient(const Device auto& q, const auto& s, const Matrix& m, MatrixGradient dm, std::int64_t rows,
                            float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx,
                            Bump temp = {}) {
  linear_gradients(q, s, m, dm, rows, scale, dy, ldy, x, ldx, 0.f, nullptr, 0, temp);
}

/// Both; dx may be x.
void linear_backward(const Device auto& q, const auto& s, const Matrix& m, MatrixGradient dm, std::int64_t rows,
                     float scale, const float* dy, std::int64_t ldy, const float* x, std::int64_t ldx, float beta,
                     float* dx, Bump temp = {}) {
  linear_gradients(q, s, m, dm, rows, scale, dy, ldy, x, ldx, beta, dx, ldx, temp);
}

/// w [out, in] += scale B A: what the two are together. `adapters`: the arena.
void merge_adapter(const Device auto& q, std::int64_t in, const Adapter& a, const float* adapters, float* w) {
  linear_parts::each_part(a, [&](const Adapter::Part& part, std::int64_t row, std::int64_t column) {
    gemm(q, part.rows, in, a.rank, a.scale, row_major(adapters + a.b + row * a.rank, a.rank),
         row_major(adapters + a.a + column * in, in), 1.f, w + part.first * in, in);
  });
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
