// Matrices as products read them: views, and panels of a few lines that lie side by side.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace chimera {

/// Element (i, j) of a matrix at p[i * row + j * col], strides in floats.
struct ConstView {
  const float* p = nullptr;
  std::int64_t row = 0, col = 0;

  constexpr ConstView from(std::int64_t i, std::int64_t j) const { return {p + i * row + j * col, row, col}; }
  constexpr ConstView transpose() const { return {p, col, row}; }
};

constexpr ConstView row_major(const float* p, std::int64_t stride) { return {p, stride, 1}; }

constexpr ConstView transposed(const float* p, std::int64_t stride) { return {p, 1, stride}; }

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

constexpr std::int64_t ceil_div(std::int64_t x, std::int64_t unit) { return (x + unit - 1) / unit; }

constexpr std::int64_t round_up(std::int64_t x, std::int64_t unit) { return ceil_div(x, unit) * unit; }

/// The tile of C that products keep in registers, with vectors of `lanes` floats.
constexpr int gemm_tile_rows(int lanes) { return lanes == 16 ? 14 : 6; }

constexpr int gemm_tile_cols(int lanes) { return 2 * lanes; }

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// r[i][j] <-> r[j][i]: 4 x 4 inside the 128-bit lanes, then the lanes.
template <int W>
CHIMERA_INLINE void transpose(Vec<W> (&r)[W]) {
  constexpr auto zip_low = [](int i) { return i / 4 * 4 + i % 4 / 2 + (i % 2) * W; };
  constexpr auto zip_high = [](int i) { return i / 4 * 4 + i % 4 / 2 + 2 + (i % 2) * W; };
  constexpr auto low_pair = [](int i) { return i / 4 * 4 + i % 2 + (i % 4 / 2) * W; };
  constexpr auto high_pair = [](int i) { return i / 4 * 4 + i % 2 + 2 + (i % 4 / 2) * W; };
#pragma GCC unroll 4
  for (int i = 0; i < W; i += 4) {
    const Vec<W> a = shuffle<zip_low, W>(r[i], r[i + 1]), b = shuffle<zip_high, W>(r[i], r[i + 1]);
    const Vec<W> c = shuffle<zip_low, W>(r[i + 2], r[i + 3]), d = shuffle<zip_high, W>(r[i + 2], r[i + 3]);
    r[i] = shuffle<low_pair, W>(a, c);
    r[i + 1] = shuffle<high_pair, W>(a, c);
    r[i + 2] = shuffle<low_pair, W>(b, d);
    r[i + 3] = shuffle<high_pair, W>(b, d);
  }
  if constexpr (W >= 8) {
    constexpr auto even = [](int i) { return i % 8 < 4 ? i : i - 4 + W; };
    constexpr auto odd = [](int i) { return i % 8 < 4 ? i + 4 : i + W; };
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
      if (i & 4) continue;
      const Vec<W> a = r[i], b = r[i + 4];
      r[i] = shuffle<even, W>(a, b);
      r[i + 4] = shuffle<odd, W>(a, b);
    }
  }
  if constexpr (W == 16) {
    constexpr auto low = [](int i) { return i < 8 ? i : i - 8 + W; };
    constexpr auto high = [](int i) { return i < 8 ? i + 8 : i + W; };
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const Vec<W> a = r[i], b = r[i + 8];
      r[i] = shuffle<low, W>(a, b);
      r[i + 8] = shuffle<high, W>(a, b);
    }
  }
}

/// Packs lines of v (rows of A; columns of B when v is B transposed) into panels of P: out[panel][p][line]. What stands
/// for lines that do not exist only reaches tiles that nobody stores. Panels start panel_stride floats apart; fewer
/// than W floats behind a panel may be overwritten if P is not a multiple of W.
template <int W, int P>
CHIMERA_INLINE void pack_panels(ConstView v, std::int64_t vectors, std::int64_t k, float* out,
                                std::int64_t panel_stride) {
  // Contiguous lines are visited a few steps of k at a time, so that each cache line is fetched once for all panels.
  const std::int64_t step = v.row == 1 ? 8 : k;
  for (std::int64_t p0 = 0; p0 < k; p0 += step) {
    const std::int64_t end = std::min(p0 + step, k);
    float* panel = out;
    for (std::int64_t i = 0; i < vectors; i += P, panel += panel_stride) {
      const float* from = v.p + i * v.row;
      const std::int64_t last = std::min<std::int64_t>(P, vectors - i) - 1;
      std::int64_t p = p0;
      if (v.row == 1 && last == P - 1) {
        for (; p < end; ++p) std::memcpy(panel + p * P, from + p * v.col, P * sizeof(float));
      } else if (v.col == 1) {
        for (; p + W <= end; p += W) {
#pragma GCC unroll 4
          for (int i0 = (P - 1) / W * W; i0 >= 0; i0 -= W) {  // downwards: each mends the overhang of the one before
            Vec<W> r[W];
#pragma GCC unroll 16
            for (int l = 0; l < W; ++l)
              if (i0 + l < P) r[l] = Vec<W>::load(from + std::min<std::int64_t>(i0 + l, last) * v.row + p);
            transpose<W>(r);
#pragma GCC unroll 16
            for (int l = 0; l < W; ++l) r[l].store(panel + (p + l) * P + i0);
          }
        }
      }
      for (; p < end; ++p)
        for (int l = 0; l < P; ++l) panel[p * P + l] = from[std::min<std::int64_t>(l, last) * v.row + p * v.col];
    }
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
