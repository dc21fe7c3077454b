// Matrices of a chunk of tokens, so small that they stay in the caches: their products, triangular systems, transposes,
// and rows that are scaled and added. Rows and columns are padded to whole tiles where a comment says so.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace small_matrices_parts {

using gemm_parts::broadcast;

/// c - a b
template <int W>
CHIMERA_INLINE Vec<W> minus_product(const Vec<W>& a, const Vec<W>& b, const Vec<W>& c) {
  CHIMERA_IN_ORDER
  return Vec<W>(c.v - a.v * b.v);
}

/// Rows of a tile of results in registers; it has two vectors of columns.
template <int W>
inline constexpr int tile_rows = W == 16 ? 8 : 4;

/// Which products of A^T B count for row i of the result: all, or those of the steps p <= i or p >= i.
enum class Steps : std::uint8_t { all, up_to_row, from_row };

/// C[m,n] = A^T B + beta C with A [k,m], B [k,n]: both are read along their rows. All rows and columns are padded. With
/// `upper`, tiles below the diagonal of C are left as they are.
struct SmallProduct {
  struct Shape {
    std::int64_t m, n, k;
    Steps steps = Steps::all;
    bool upper = false;
  };

  template <int W>
  CHIMERA_INLINE static void run(Shape s, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                                 float beta, float* c, std::int64_t ldc) {
    constexpr int rows = tile_rows<W>, cols = 2 * W;
    for (std::int64_t j = 0; j < s.n; j += cols)
      for (std::int64_t i = 0; i < s.m; i += rows) {
        if (s.upper && j + cols <= i) break;
        const std::int64_t first = s.steps == Steps::from_row ? i : 0;
        const std::int64_t end = s.steps == Steps::up_to_row ? std::min(i + rows, s.k) : s.k;
        tile<W>(first, end, a + i, lda, b + j, ldb, beta, c + i * ldc + j, ldc);
      }
  }

 private:
  template <int W>
  CHIMERA_INLINE static void tile(std::int64_t first, std::int64_t end, const float* a, std::int64_t lda,
                                  const float* b, std::int64_t ldb, float beta, float* c, std::int64_t ldc) {
    using V = Vec<W>;
    constexpr int rows = tile_rows<W>;
    V s[rows][2];
    a += first * lda, b += first * ldb;
    for (std::int64_t p = first; p < end; ++p, a += lda, b += ldb) {
      const V b0 = V::load(b), b1 = V::load(b + W);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const V x = broadcast<W>(a[r]);
        s[r][0] = fma<W>(x, b0, s[r][0]);
        s[r][1] = fma<W>(x, b1, s[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        float* o = c + r * ldc + h * W;
        (beta == 0 ? s[r][h] : fma<W>(broadcast<W>(beta), V::load(o), s[r][h])).store(o);
      }
  }
};

/// Solves e_i = y_i - sum_s m[s][i] x_s with x_i = scale_i e_i, over s < i from the first row to the last, or over s > i
/// from the last to the first. y [n,cols] becomes e; x [n,cols] is written; m [n,n], rows ldm apart.
template <bool backwards>
struct Substitution {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, std::int64_t cols, const float* m, std::int64_t ldm,
                                 const float* scale, float* y, float* x, std::int64_t ld) {
    constexpr int rows = tile_rows<W>;
    for (std::int64_t j = 0; j < cols; j += 2 * W)
      for (std::int64_t at = 0; at < n; at += rows) {
        const std::int64_t i = backwards ? (n - 1) / rows * rows - at : at;
        block<W>(i, n, m, ldm, scale, y + j, x + j, ld);
      }
  }

 private:
  template <int W>
  CHIMERA_INLINE static void block(std::int64_t i, std::int64_t n, const float* m, std::int64_t ldm, const float* scale,
                                   float* y, float* x, std::int64_t ld) {
    using V = Vec<W>;
    constexpr int rows = tile_rows<W>;
    V s[rows][2];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) s[r][0] = V::load(y + (i + r) * ld), s[r][1] = V::load(y + (i + r) * ld + W);
    for (std::int64_t p = backwards ? i + rows : 0; p < (backwards ? n : i); ++p) {
      const V x0 = V::load(x + p * ld), x1 = V::load(x + p * ld + W);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const V a = broadcast<W>(m[p * ldm + i + r]);
        s[r][0] = minus_product<W>(a, x0, s[r][0]);
        s[r][1] = minus_product<W>(a, x1, s[r][1]);
      }
    }
#pragma GCC unroll 8
    for (int step = 0; step < rows; ++step) {
      const int r = backwards ? rows - 1 - step : step;
      if (i + r >= n) continue;
      const V x0 = s[r][0] * broadcast<W>(scale[i + r]), x1 = s[r][1] * broadcast<W>(scale[i + r]);
      s[r][0].store(y + (i + r) * ld), s[r][1].store(y + (i + r) * ld + W);
      x0.store(x + (i + r) * ld), x1.store(x + (i + r) * ld + W);
#pragma GCC unroll 8
      for (int t = 0; t < rows; ++t)
        if (backwards ? t < r : t > r) {
          const V a = broadcast<W>(m[(i + r) * ldm + i + t]);
          s[t][0] = minus_product<W>(a, x0, s[t][0]);
          s[t][1] = minus_product<W>(a, x1, s[t][1]);
        }
    }
  }
};

/// to [cols, rows] = the transpose of from [rows, cols], both padded.
struct Transposed {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t cols, const float* from, std::int64_t ld_from,
                                 float* to, std::int64_t ld_to) {
    for (std::int64_t i = 0; i < rows; i += W)
      for (std::int64_t j = 0; j < cols; j += W) {
        Vec<W> r[W];
#pragma GCC unroll 16
        for (int l = 0; l < W; ++l) r[l] = Vec<W>::load(from + (i + l) * ld_from + j);
        transpose<W>(r);
#pragma GCC unroll 16
        for (int l = 0; l < W; ++l) r[l].store(to + (j + l) * ld_to + i);
      }
  }
};

/// y_r = v_r - a_r y_r
struct RowsMinus {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* v, std::int64_t ldv, const float* a,
                                 float* y, std::int64_t ldy) {
    for (std::int64_t r = 0; r < rows; ++r, v += ldv, y += ldy)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        io.store(y + i, minus_product<W>(Vec<W>(a[r]), io.load(y + i), io.load(v + i)));
      });
  }
};

/// y_r = a_r x_r; y may be x.
struct RowsScaled {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* a, const float* x, std::int64_t ldx,
                                 float* y, std::int64_t ldy) {
    for (std::int64_t r = 0; r < rows; ++r, x += ldx, y += ldy)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, io.load(x + i) * Vec<W>(a[r])); });
  }
};

/// y_r += a_r x_r; dots_r += a_r (x_r . w_r)
struct RowsAdded {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* a, const float* x, const float* w,
                                 float* y, std::int64_t ld, float* dots) {
    for (std::int64_t r = 0; r < rows; ++r, x += ld, w += ld, y += ld) {
      Vec<W> products;
      const Vec<W> factor(a[r]);
      lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> v = io.load(x + i) * factor;
        products = fma<W>(v, io.load(w + i), products);
        io.store(y + i, io.load(y + i) + v);
      });
      dots[r] += sum<W>(products);
    }
  }
};

/// x += y, rows of n numbers ld apart.
struct MatrixAdded {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* y, float* x, std::int64_t ld) {
    for (std::int64_t r = 0; r < rows; ++r, x += ld, y += ld)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(x + i, io.load(x + i) + io.load(y + i)); });
  }
};

}  // namespace small_matrices_parts

}  // namespace chimera::inline CHIMERA_ABI
#endif
