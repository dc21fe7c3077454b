// y = x^ W^T of a ternary layer in integers: r + 128 as unsigned bytes times codes q as signed ones, whole groups of them
// in 32 bits, which nothing rounds (codes.hpp has the formulas).
//   y[row][o] = 1 / a_row sum_g s_og (sum_k (r + 128) q - 128 sum_k q)
//
// Panels are f32 words. Of x, for `gemm_tile_rows` rows: what finishes each row, then four bytes of each row to a word.
// Of W, for `gemm_tile_cols` rows: for each group its scales, -128 sum q of each row, then four codes to a word. The
// bytes of a word stand W numbers apart, so that they meet without leaving their lanes.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>
#include <chimera/kernels/ternary/codes.hpp>
#include <chimera/kernels/ternary/levels.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace chimera::inline CHIMERA_ABI {

/// y [rows, out] = alpha x^ W^T + beta y, with scales [out, groups] of W. Rows of x and y lie ldx and ldy apart.
/// beta == 0 never reads y. A row of x that has something that is no number, or infinite, gives nothing finite.
template <Device D>
void ternary_product(const D& q, const TernaryShape& s, std::int64_t rows, float alpha, const float* x,
                     std::int64_t ldx, const float* w, const float* scales, float beta, float* y, std::int64_t ldy);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace ternary_parts {

/// Words of a group.
constexpr std::int64_t group_words(const TernaryShape& s, int lanes) {
  return lanes * ceil_div(s.group_size(), 4 * lanes);
}

/// Floats of a panel of x, and of W.
constexpr std::int64_t panel_of_rows(const TernaryShape& s, int lanes) {
  return gemm_tile_rows(lanes) * (1 + s.groups() * group_words(s, lanes));
}
constexpr std::int64_t panel_of_codes(const TernaryShape& s, int lanes) {
  return gemm_tile_cols(lanes) * s.groups() * (2 + group_words(s, lanes));
}

/// `words` [rows][W] of a block of 4 W numbers of each row, of which n are there: f(row, number) is bytes, as words.
/// The others are what f makes of 0.
template <int W, class F>
CHIMERA_INLINE void pack_block(const float* x, std::int64_t ldx, std::int64_t rows, std::int64_t n, float* words, F f) {
  const auto pack = [&](auto load) CHIMERA_LAMBDA {
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* const from = x + r * ldx;
      const Ints<W> b0 = f(r, load(from, 0)), b1 = f(r, load(from, W)), b2 = f(r, load(from, 2 * W)),
                    b3 = f(r, load(from, 3 * W));
      const Ints<W> low = (b0 & 0xff) | ((b1 << 8) & 0xff00), high = ((b2 & 0xff) << 16) | (b3 << 24);
      from_bits<W>(low | high).store(words + r * W);
    }
  };
  if (n >= 4 * W)
    pack([](const float* p, std::int64_t i) CHIMERA_LAMBDA { return Vec<W>::load(p + i); });
  else
    pack([n](const float* p, std::int64_t i) CHIMERA_LAMBDA {
      return n >= i + W ? Vec<W>::load(p + i) : n > i ? Vec<W>::load(p + i, n - i) : Vec<W>();
    });
}

/// A panel of x from `rows` rows. Fewer than W floats behind it may be overwritten.
struct PackRows {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t ldx, std::int64_t rows, TernaryShape s, float alpha,
                                 float* to) {
    constexpr int P = gemm_tile_rows(W);
    const Vec<W> middle = 12582912.f + 128.f;  // 1.5 * 2^23: of a sum, the lowest byte is r + 128
    float a[P] = {}, words[P * W];
    for (std::int64_t r = 0; r < rows; ++r) {
      const float most = largest_magnitude<W>(x + r * ldx, s.in);
      a[r] = 127.f / most, to[r] = alpha * (most / 127.f);
    }
    to += P;
    const std::int64_t size = s.group_size();
    for (std::int64_t g = 0; g < s.in; g += size)
      for (std::int64_t k = 0; k < size; k += 4 * W, to += P * W) {
        pack_block<W>(x + g + k, ldx, rows, size - k, words, [&](std::int64_t r, const Vec<W>& number) CHIMERA_LAMBDA {
          return bits_of<W>(product<W>(number, Vec<W>(a[r])) + middle);
        });
        pack_panels<W, P>(row_major(words, W), rows, W, to, 0);
      }
  }
};

/// A panel of W from `rows` rows.
struct PackCodes {
  template <int W>
  CHIMERA_INLINE static void run(const float* w, const float* scales, std::int64_t rows, TernaryShape s, float* to) {
    constexpr int P = gemm_tile_cols(W);
    const std::int64_t size = s.group_size();
    float words[P * W];
    for (std::int64_t g = 0; g < s.groups(); ++g, w += size, ++scales) {
      Ints<W> sums[P];
      float* const start = to;
      to += 2 * P;
      for (std::int64_t k = 0; k < size; k += 4 * W, to += P * W) {
        pack_block<W>(w + k, s.in, rows, size - k, words, [&](std::int64_t r, const Vec<W>& number) CHIMERA_LAMBDA {
          const Vec<W> half = 0.5f * scales[r * s.groups()];
          const Ints<W> up(number.v > half.v), down(number.v < (-half).v);  // -1 where it holds
          const Ints<W> code = down - up;
          sums[r] = sums[r] + code;
          return code;
        });
        pack_panels<W, P>(row_major(words, W), rows, W, to, 0);
      }
      for (std::int64_t r = 0; r < rows; ++r) {
        start[r] = scales[r * s.groups()];
        std::int32_t sum = 0;
        for (int i = 0; i < W; ++i) sum -= 128 * sums[r].v[i];
        std::memcpy(start + P + r, &sum, sizeof sum);
      }
    }
  }
};

/// Panels of x that a task takes, of `panels` in all: few enough for a scratch, and so that threads end together.
constexpr std::int64_t panels_of_task(std::int64_t panels, std::int64_t fit, std::int64_t threads) {
  const std::int64_t most = std::clamp<std::int64_t>(std::min(fit, ceil_div(panels, threads)), 1, 12);
  const auto longest = [&](std::int64_t p) { return ceil_div(ceil_div(panels, p), threads) * p; };
  std::int64_t best = most;
  for (std::int64_t p = most; p > most / 2; --p)
    if (longest(p) < longest(best)) best = p;
  return best;
}

}  // namespace ternary_parts

template <Device D>
void ternary_product(const D& q, const TernaryShape& s, std::int64_t rows, float alpha, const float* x,
                     std::int64_t ldx, const float* w, const float* scales, float beta, float* y, std::int64_t ldy) {
  using namespace ternary_parts;
  const Isa isa = q.isa();
  const auto tile = tile_of(isa);
  const std::int64_t tall = gemm_tile_rows(lanes(isa)), wide = gemm_tile_cols(lanes(isa));
  const std::int64_t row_panel = panel_of_rows(s, lanes(isa)), code_panel = panel_of_codes(s, lanes(isa));
  constexpr std::int64_t scratch_floats = Cpu::scratch_bytes / std::int64_t{sizeof(float)};
  const std::int64_t block = tall * panels_of_task(ceil_div(rows, tall), scratch_floats / row_panel, q.at_once());
  const std::int64_t most_cols = wide * (static_cast<std::int64_t>(Cpu::shared_floats) / code_panel);
  for (std::int64_t j = 0; j < s.out; j += most_cols) {
    const std::int64_t cols = std::min(most_cols, s.out - j);
    parallel(q, ceil_div(cols, wide), [&](std::int64_t t, int) {
      const std::int64_t o = j + t * wide;
      dispatch<PackCodes>(isa, w + o * s.in, scales + o * s.groups(), std::min(wide, s.out - o), s,
                          q.shared() + t * code_panel);
    });
    parallel(q, ceil_div(rows, block), [&](std::int64_t t, int worker) {
      const std::int64_t end = std::min(rows, (t + 1) * block);
      float* const packed = q.scratch(worker);
      float results[14 * 32];  // of a tile's groups so far
      for (std::int64_t r = t * block, p = 0; r < end; r += tall, ++p)
        dispatch<PackRows>(isa, x + r * ldx, ldx, std::min(tall, end - r), s, alpha, packed + p * row_panel);
      for (std::int64_t c = 0; c < cols; c += wide)
        for (std::int64_t r = t * block, p = 0; r < end; r += tall, ++p)
          tile({.groups = s.groups(),
                .words = group_words(s, lanes(isa)),
                .x = packed + p * row_panel,
                .w = q.shared() + c / wide * code_panel,
                .rows = std::min(tall, end - r),
                .cols = std::min(wide, cols - c),
                .beta = beta,
                .y = y + r * ldy + j + c,
                .ldy = ldy,
                .results = results});
    });
  }
}

#if defined(CHIMERA_COMPILE)
template void ternary_product(const Cpu& q, const TernaryShape& s, std::int64_t rows, float alpha, const float* x,
                              std::int64_t ldx, const float* w, const float* scales, float beta, float* y,
                              std::int64_t ldy);
#endif

}  // namespace chimera::inline CHIMERA_ABI
#endif
