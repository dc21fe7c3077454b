// Products of training with a matrix that stays as it is stored (formats/stored_matrix.hpp): a part of it is decoded
// where the product packs its panels, and no whole copy is ever made. A large product has the bits of the one with the
// decoded matrix, and takes longer by the decoding alone, once for all rows.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/formats/stored_matrix.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// y [n, rows of W] = scale x W^T + beta y. Templates as training_gemm is one.
template <Device D>
void stored_product(const D& q, const StoredMatrix& w, std::int64_t n, float scale, const float* x, std::int64_t ldx,
                    float beta, float* y, std::int64_t ldy);

/// dx [n, columns of W] = scale dy W + beta dx
template <Device D>
void stored_input_gradient(const D& q, const StoredMatrix& w, std::int64_t n, float scale, const float* dy,
                           std::int64_t ldy, float beta, float* dx, std::int64_t ldx);

/// x [n, columns of W] = scale times the rows of W that tokens name.
template <Device D>
void stored_embed(const D& q, const StoredMatrix& w, std::int64_t n, const std::int32_t* tokens, float scale, float* x);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace stored_product_parts {

inline constexpr std::int64_t strip = 32;  // rows that are decoded at once
static_assert(strip % gemm_tile_cols(16) == 0 && strip % gemm_tile_cols(8) == 0 && strip % gemm_tile_cols(4) == 0);
static_assert(strip * (2 * gemm_most_depth + 16) * std::int64_t{sizeof(float)} <= Cpu::scratch_bytes);

/// C[m, n] = alpha A B + beta C, where B is W^T, or W.
template <class Products>
void multiply(const Cpu& q, const StoredMatrix& w, bool transposed_w, std::int64_t m, float alpha, ConstView a,
              float beta, float* c, std::int64_t ldc) {
  const Isa isa = q.isa();
  const bool native = isa == Isa::avx512_bf16;
  const std::int64_t n = transposed_w ? w.rows : w.cols, k = transposed_w ? w.cols : w.rows;
  const auto pack = [&](int worker, std::int64_t p, std::int64_t j, std::int64_t steps, std::int64_t cols, float* out,
                        std::int64_t words) {
    using Pack = gemm_parts::PackB<Products>;
    float* const some = q.scratch(worker);
    if (transposed_w) {
      const std::int64_t ld = steps + 16;  // rows a power of two apart would share lines of the cache
      for (std::int64_t i = 0; i < cols; i += strip) {
        const std::int64_t count = std::min(strip, cols - i);
        decode_part(isa, w, j + i, count, p, steps, some, ld);
        dispatch<Pack>(isa, transposed(some, ld), count, steps, out + i * words, words, native);
      }
    } else {
      for (std::int64_t i = 0; i < steps; i += strip) {
        const std::int64_t count = std::min(strip, steps - i);
        decode_part(isa, w, p + i, count, j, cols, some, cols);
        dispatch<Pack>(isa, row_major(some, cols), cols, count, out + i / Products::steps * gemm_tile_cols(lanes(isa)),
                       words, native);
      }
    }
  };
  gemm_parts::multiply_shared<Products, 256>(q, m, n, k, alpha, a, pack, beta, c, ldc);  // the longest block
}

inline void multiply(const Cpu& q, const StoredMatrix& w, bool transposed_w, std::int64_t m, float alpha, ConstView a,
                     float beta, float* c, std::int64_t ldc) {
  if (m <= 0) return;
  const bool large = transposed_w ? is_large_product(m, w.rows, w.cols) : is_large_product(m, w.cols, w.rows);
  if (large && q.precision() == Precision::bf16)
    multiply<gemm_parts::Pairs>(q, w, transposed_w, m, alpha, a, beta, c, ldc);
  else
    multiply<gemm_parts::Floats>(q, w, transposed_w, m, alpha, a, beta, c, ldc);
}

}  // namespace stored_product_parts

template <Device D>
void stored_product(const D& q, const StoredMatrix& w, std::int64_t n, float scale, const float* x, std::int64_t ldx,
                    float beta, float* y, std::int64_t ldy) {
  stored_product_parts::multiply(q, w, true, n, scale, row_major(x, ldx), beta, y, ldy);
}

template <Device D>
void stored_input_gradient(const D& q, const StoredMatrix& w, std::int64_t n, float scale, const float* dy,
                           std::int64_t ldy, float beta, float* dx, std::int64_t ldx) {
  stored_product_parts::multiply(q, w, false, n, scale, row_major(dy, ldy), beta, dx, ldx);
}

template <Device D>
void stored_embed(const D& q, const StoredMatrix& w, std::int64_t n, const std::int32_t* tokens, float scale,
                  float* x) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t) {
      float* const row = x + t * w.cols;
      decode_part(q.isa(), w, tokens[t], 1, 0, w.cols, row, w.cols);
      dispatch<Scaled>(q.isa(), w.cols, scale, row, row);
    }
  });
}
#if defined(CHIMERA_COMPILE)
template void stored_product(const Cpu& q, const StoredMatrix& w, std::int64_t n, float scale, const float* x,
                             std::int64_t ldx, float beta, float* y, std::int64_t ldy);
template void stored_input_gradient(const Cpu& q, const StoredMatrix& w, std::int64_t n, float scale, const float* dy,
                                    std::int64_t ldy, float beta, float* dx, std::int64_t ldx);
template void stored_embed(const Cpu& q, const StoredMatrix& w, std::int64_t n, const std::int32_t* tokens, float scale,
                           float* x);
#endif

}  // namespace chimera::inline CHIMERA_ABI
#endif
