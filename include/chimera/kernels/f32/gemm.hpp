// f32 matrix product: packed panels around one register tile (Van Zee and van de Geijn, "BLIS", 2015).
//
// Every element of C is summed over k in order, in blocks of `gemm_depth(k)`, whatever the split into tasks: results
// are the same, bit for bit, for every number of threads, and for `gemm` and `gemm_serial`.
//
// With Precision::bf16 a large product rounds A and B to BF16 while it packs them, two steps of k in a word, and sums
// in f32 as vdpbf16ps does: the odd step of a pair, then the even one; numbers below the normal ones are 0. Processors
// without that instruction get the same bits by f32.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

/// C[m,n] = alpha A[m,k] B[k,n] + beta C by plain loops, summed in double: what tests compare with.
void gemm_reference(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a, ConstView b, float beta,
                    float* c, std::int64_t ldc);

/// Steps of k between two visits of C, in equal blocks. One packed panel of B then fills half of a 32 KiB L1 cache.
inline constexpr std::int64_t gemm_most_depth = 256;

constexpr std::int64_t gemm_depth(std::int64_t k, std::int64_t most = gemm_most_depth) {
  return round_up(ceil_div(k, ceil_div(k, most)), 16);
}

/// Rows of A packed at once (L2) and columns of B packed at once by `gemm_serial`.
inline constexpr std::int64_t gemm_rows = 168, gemm_cols = 512;

/// Up to this m, a packed B would serve a few tiles only: each task packs its own columns.
inline constexpr std::int64_t gemm_few_rows = 32;

/// What `gemm_serial` uses of the worker's scratch.
inline constexpr std::int64_t gemm_scratch_floats = 200'000;

template <int W>
struct GemmTile {
  static constexpr int rows = gemm_tile_rows(W), cols = gemm_tile_cols(W);
  /// Floats of one packed panel of A; transposing stores overhang by less than W.
  static constexpr std::int64_t panel_a = rows * gemm_most_depth + W;
};

static_assert(gemm_rows % GemmTile<16>::rows == 0 && gemm_rows % GemmTile<8>::rows == 0 &&
              gemm_cols % GemmTile<16>::cols == 0);

static_assert(gemm_scratch_floats >= gemm_rows / 6 * GemmTile<8>::panel_a + gemm_cols * gemm_most_depth &&
              gemm_scratch_floats >= gemm_rows / 14 * GemmTile<16>::panel_a + gemm_cols * gemm_most_depth &&
              gemm_scratch_floats * std::int64_t{sizeof(float)} <= Cpu::scratch_bytes / 2);

namespace gemm_parts {

/// The block of C that one task computes.
struct GemmGrid {
  std::int64_t rows, cols;
};

/// Blocks of equal size, at least two for each thread if they stay large enough to be worth their packing, and as many
/// for each thread as for every other.
constexpr GemmGrid gemm_grid(std::int64_t m, std::int64_t n, std::int64_t tile_rows, std::int64_t threads) {
  std::int64_t down = ceil_div(m, gemm_rows), across = ceil_div(n, gemm_cols);
  while (down * across < 2 * threads) {
    const std::int64_t rows = m / down, cols = n / across;
    if (rows < 48 && cols < 128) break;
    if (rows >= 48 && 2 * rows > cols)
      down *= 2;
    else
      across *= 2;
  }
  down = round_up(down, threads / std::gcd(threads, across));
  return {round_up(ceil_div(m, down), tile_rows), round_up(ceil_div(n, across), 64)};
}

/// A product with one row or one column: y[rows] = matrix x, y with a stride.
struct VectorProduct {
  bool possible = false;
  std::int64_t rows = 0;
  ConstView matrix;
  const float* x = nullptr;
  std::int64_t stride = 0;
};

constexpr VectorProduct as_vector_product(std::int64_t m, std::int64_t n, ConstView a, ConstView b, std::int64_t ldc) {
  if (m == 1 && a.col == 1 && (b.col == 1 || b.row == 1)) return {true, n, b.transpose(), a.p, 1};
  if (n == 1 && b.row == 1 && (a.col == 1 || a.row == 1)) return {true, m, a, b.p, ldc};
  return {};
}

}  // namespace gemm_parts

/// C[m,n] = alpha A[m,k] B[k,n] + beta C on the calling thread, C row-major with ldc floats from row to row. beta == 0
/// never reads C. Inside a task `scratch` is the worker's; its first gemm_scratch_floats are used.
void gemm_serial(Isa isa, float* scratch, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                 ConstView b, float beta, float* c, std::int64_t ldc);

/// C[m,n] = alpha A[m,k] B[k,n] + beta C on all threads, C row-major with ldc floats from row to row. beta == 0 never
/// reads C. Uses the scratch of all workers and the shared scratch.
void gemm(const Cpu& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a, ConstView b,
          float beta, float* c, std::int64_t ldc);

/// Whether a product of training is one that the device's precision is for.
constexpr bool is_large_product(std::int64_t m, std::int64_t n, std::int64_t k) {
  return m > gemm_few_rows && n > 1 && k > 0 && m * n * k >= 1 << 18;
}

/// The same as the device's precision says, for more than 32 rows and 2^18 products. A template, so that nothing but
/// training compiles it.
template <Device D>
void training_gemm(const D& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a, ConstView b,
                   float beta, float* c, std::int64_t ldc);

/// `count` products of one shape, whose matrices begin a_stride, b_stride and c_stride floats apart.
void gemm_batched(const Cpu& q, std::int64_t count, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                  ConstView a, std::int64_t a_stride, ConstView b, std::int64_t b_stride, float beta, float* c,
                  std::int64_t ldc, std::int64_t c_stride);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void gemm_reference(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                                     ConstView b, float beta, float* c, std::int64_t ldc) {
  for (std::int64_t i = 0; i < m; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      double s = 0;
      for (std::int64_t p = 0; p < k; ++p) s += double{*a.from(i, p).p} * double{*b.from(p, j).p};
      float& out = c[i * ldc + j];
      out = static_cast<float>(double{alpha} * s + (beta == 0 ? 0 : double{beta} * double{out}));
    }
}

namespace gemm_parts {

/// x in every lane, made where it is used: g++ 12 lifts the Vec<W>(x) of alpha and beta over the k loop of a tile,
/// which has no register left for them.
template <int W>
CHIMERA_INLINE Vec<W> broadcast(float x) {
  return Vec<W>(x - typename Vec<W>::Native{});
}

/// Numbers below the normal ones become 0.
template <int W>
CHIMERA_INLINE Vec<W> flushed(const Vec<W>& x) {
  const Ints<W> bits = bits_of<W>(x), magnitude = bits & 0x7fffffff;
  return from_bits<W>(Ints<W>(magnitude.v < 0x00800000 ? (bits.v & INT32_MIN) : bits.v));
}

#if defined(__x86_64__)
/// to [pairs][P] = BF16 of rows 2 i and 2 i + 1 of `from` side by side, by AVX-512 BF16. Some lanes behind both may be
/// read, and written.
template <int P>
__attribute__((__noinline__)) CHIMERA_AVX512 void pair_rows(std::int64_t pairs, const float* from, float* to) {
  using Native = Vec<16>::Native;
  alignas(64) static constexpr std::int16_t in_turns[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                            21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                            11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  Native order;
  std::memcpy(&order, in_turns, sizeof order);
  for (std::int64_t p = 0; p < pairs; ++p, from += 2 * P, to += P)
#pragma GCC unroll 2
    for (int l = 0; l < P; l += 16) {
      const Native even = Vec<16>::load(from + l).v, odd = Vec<16>::load(from + P + l).v;
      Native both, pair;
      asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(even), "v"(odd));
      asm("vpermw %1, %2, %0" : "=v"(pair) : "v"(both), "v"(order));
      Vec<16>(pair).store(to + l);
    }
}
#endif

/// As `pack_panels`, with two steps of k in a word: out[panel][pair][line], the even step in the low half. An odd last step
/// has a partner of 0.
template <int W, int P>
CHIMERA_INLINE void pack_pairs(ConstView v, std::int64_t vectors, std::int64_t k, float* out, std::int64_t panel_stride,
                               [[maybe_unused]] bool native) {
  constexpr std::int64_t step = 32, lanes_of_panel = (P + W - 1) / W * W;
  for (std::int64_t p0 = 0; p0 < k; p0 += step)
    for (std::int64_t i = 0; i < vectors; i += P) {
      const std::int64_t n = std::min(step, k - p0);
      float some[step * P + 2 * W] = {};
      pack_panels<W, P>(v.from(i, p0), std::min<std::int64_t>(P, vectors - i), n, some, 0);
      if (n % 2 != 0) std::fill_n(some + n * P, P, 0.f);
      float* to = out + i / P * panel_stride + p0 / 2 * P;
#if defined(__x86_64__)
      if constexpr (W == 16)
        if (native) {
          pair_rows<P>((n + 1) / 2, some, to);
          continue;
        }
#endif
      for (std::int64_t p = 0; p < n; p += 2, to += P) {
        float pairs[lanes_of_panel];
#pragma GCC unroll 8
        for (int l = 0; l < P; l += W) {
          const Ints<W> even = to_bf16<W>(flushed<W>(Vec<W>::load(some + p * P + l)));
          const Ints<W> odd = to_bf16<W>(flushed<W>(Vec<W>::load(some + (p + 1) * P + l)));
          from_bits<W>(even | (odd << 16)).store(pairs + l);
        }
        std::memcpy(to, pairs, P * sizeof(float));
      }
    }
}

/// How panels hold steps of k, and what a tile makes of them: s += A B for `words` words.
struct Floats {
  static constexpr std::int64_t steps = 1;  // of a word
  template <int W, int P>
  CHIMERA_INLINE static void pack_lines(ConstView v, std::int64_t vectors, std::int64_t k, float* out,
                                        std::int64_t panel_stride, bool) {
    pack_panels<W, P>(v, vectors, k, out, panel_stride);
  }
  template <int W>
  CHIMERA_INLINE static void add(std::int64_t words, const float* a, const float* b, Vec<W> (&s)[GemmTile<W>::rows][2],
                                 bool) {
    using V = Vec<W>;
    for (std::int64_t p = 0; p < words; ++p, a += GemmTile<W>::rows, b += GemmTile<W>::cols) {
      const V b0 = V::load(b), b1 = V::load(b + W);
#pragma GCC unroll 14
      for (int r = 0; r < GemmTile<W>::rows; ++r) {
        const V x = broadcast<W>(a[r]);
        s[r][0] = fma<W>(x, b0, s[r][0]);
        s[r][1] = fma<W>(x, b1, s[r][1]);
      }
    }
  }
};

#if defined(__x86_64__)
/// sums [14][32] = A B by vdpbf16ps, of panels of pairs. A function by itself, whose rows are constants: else g++ 12
/// keeps some of the sums in memory.
template <int... r>
__attribute__((__noinline__)) CHIMERA_AVX512 void add_pairs(std::integer_sequence<int, r...>, std::int64_t words,
                                                            const float* a, const float* b, float* sums) {
  using Native = Vec<16>::Native;
  constexpr int rows = sizeof...(r);
  Native left[rows] = {}, right[rows] = {};
  for (std::int64_t p = 0; p < words; ++p, a += rows, b += 32) {
    const Native b0 = Vec<16>::load(b).v, b1 = Vec<16>::load(b + 16).v;
    const auto add = [&](const float* from, Native& s0, Native& s1) CHIMERA_LAMBDA CHIMERA_AVX512 {
      Native x;
      asm("vpbroadcastd %1, %0" : "=v"(x) : "m"(*from));
      asm("vdpbf16ps %2, %1, %0" : "+v"(s0) : "v"(x), "v"(b0));
      asm("vdpbf16ps %2, %1, %0" : "+v"(s1) : "v"(x), "v"(b1));
    };
    (add(a + r, left[r], right[r]), ...);
  }
  ((Vec<16>(left[r]).store(sums + 32 * r), Vec<16>(right[r]).store(sums + 32 * r + 16)), ...);
}
#endif

struct Pairs {
  static constexpr std::int64_t steps = 2;
  template <int W, int P>
  CHIMERA_INLINE static void pack_lines(ConstView v, std::int64_t vectors, std::int64_t k, float* out,
                                        std::int64_t panel_stride, bool native) {
    pack_pairs<W, P>(v, vectors, k, out, panel_stride, native);
  }
  template <int W>
  CHIMERA_INLINE static void add(std::int64_t words, const float* a, const float* b, Vec<W> (&s)[GemmTile<W>::rows][2],
                                 bool native) {
    using V = Vec<W>;
#if defined(__x86_64__)
    if constexpr (W == 16)
      if (native) {
        float sums[GemmTile<W>::rows][2 * W];
        add_pairs(std::make_integer_sequence<int, GemmTile<W>::rows>(), words, a, b, &sums[0][0]);
#pragma GCC unroll 14
        for (int r = 0; r < GemmTile<W>::rows; ++r) s[r][0] = V::load(sums[r]), s[r][1] = V::load(sums[r] + W);
        return;
      }
#endif
    (void)native;
    const auto odd = [](const V& pair) CHIMERA_LAMBDA {
      return from_bits<W>(bits_of<W>(pair) & static_cast<std::int32_t>(0xffff0000));
    };
    const auto even = [](const V& pair) CHIMERA_LAMBDA { return from_bf16<W>(bits_of<W>(pair)); };
    for (std::int64_t p = 0; p < words; ++p, a += GemmTile<W>::rows, b += GemmTile<W>::cols)
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        const V pair = V::load(b + h * W);
#pragma GCC unroll 14
        for (int r = 0; r < GemmTile<W>::rows; ++r) {
          const V x = broadcast<W>(a[r]);
          const V first = flushed<W>(fma<W>(odd(x), odd(pair), s[r][h]));
          s[r][h] = flushed<W>(fma<W>(even(x), even(pair), first));
        }
      }
  }
};

/// Packs k x n of B into panels that are `words` words deep.
template <class Products>
struct PackB {
  template <int W>
  CHIMERA_INLINE static void run(ConstView b, std::int64_t n, std::int64_t k, float* out, std::int64_t words,
                                 bool native) {
    constexpr int cols = GemmTile<W>::cols;
    Products::template pack_lines<W, cols>(b.transpose(), n, k, out, cols * words, native);
  }
};

/// C[m,n] = alpha A[m,k] B[k,n] + beta C for m <= gemm_rows and a packed B, with `depth` steps of k at a time.
template <class Products>
struct MultiplyPacked {
  /// One tile: C[rows,cols] = alpha A B + beta C with rows <= Tile::rows, cols <= Tile::cols and both panels packed.
  template <int W>
  CHIMERA_INLINE static void tile(std::int64_t rows, std::int64_t cols, std::int64_t words, float alpha, const float* a,
                                  const float* b, float beta, float* c, std::int64_t ldc, bool native) {
    using V = Vec<W>;
    using Tile = GemmTile<W>;
    for (std::int64_t r = 0; r < rows; ++r) {
      __builtin_prefetch(c + r * ldc, 1);
      __builtin_prefetch(c + r * ldc + cols - 1, 1);
    }
    V s[Tile::rows][2];
    Products::template add<W>(words, a, b, s, native);
    const bool whole = rows == Tile::rows && cols == Tile::cols;
    const auto bytes = static_cast<std::size_t>(cols) * sizeof(float);
    float edge[Tile::rows * Tile::cols];
    if (!whole) {
      std::memset(edge, 0, sizeof edge);
      for (std::int64_t r = 0; r < rows && beta != 0; ++r) std::memcpy(edge + r * Tile::cols, c + r * ldc, bytes);
    }
    float* const out = whole ? c : edge;
    const std::int64_t stride = whole ? ldc : Tile::cols;
#pragma GCC unroll 14
    for (int r = 0; r < Tile::rows; ++r) {
#pragma GCC unroll 2
      for (int h = 0; h < 2; ++h) {
        float* o = out + r * stride + h * W;
        const V x = s[r][h] * broadcast<W>(alpha);
        (beta == 0 ? x : fma<W>(broadcast<W>(beta), V::load(o), x)).store(o);
      }
    }
    if (!whole)
      for (std::int64_t r = 0; r < rows; ++r) std::memcpy(c + r * ldc, edge + r * Tile::cols, bytes);
  }

  template <int W>
  CHIMERA_INLINE static void run(float* scratch, std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t depth,
                                 float alpha, ConstView a, const float* b, float beta, float* c, std::int64_t ldc,
                                 bool native) {
    using Tile = GemmTile<W>;
    const std::int64_t all = ceil_div(k, Products::steps);
    for (std::int64_t p = 0; p < k; p += depth, beta = 1) {
      const std::int64_t steps = std::min(depth, k - p), words = ceil_div(steps, Products::steps);
      Products::template pack_lines<W, Tile::rows>(a.from(0, p), m, steps, scratch, Tile::panel_a, native);
      for (std::int64_t j = 0; j < n; j += Tile::cols)
        for (std::int64_t i = 0; i < m; i += Tile::rows)
          tile<W>(std::min<std::int64_t>(Tile::rows, m - i), std::min<std::int64_t>(Tile::cols, n - j), words, alpha,
                  scratch + i / Tile::rows * Tile::panel_a, b + j * all + p / Products::steps * Tile::cols, beta,
                  c + i * ldc + j, ldc, native);
    }
  }
};

/// y[i] = alpha sum_p a(i, p) x[p] + beta y[i] for a matrix that is contiguous in one direction; y with a stride.
struct MatrixVector {
  template <int W, int rows>
  CHIMERA_INLINE static void dots(std::int64_t k, float alpha, ConstView a, const float* x, float beta, float* y,
                                  std::int64_t stride) {
    using V = Vec<W>;
    V s[rows][2];
    std::int64_t p = 0;
    for (; p + 2 * W <= k; p += 2 * W) {
      const V x0 = V::load(x + p), x1 = V::load(x + p + W);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        s[r][0] = fma<W>(V::load(a.p + r * a.row + p), x0, s[r][0]);
        s[r][1] = fma<W>(V::load(a.p + r * a.row + p + W), x1, s[r][1]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      float t = sum<W>(s[r][0] + s[r][1]);
      for (std::int64_t l = p; l < k; ++l) t += a.p[r * a.row + l] * x[l];
      float& o = y[r * stride];
      o = beta == 0 ? alpha * t : beta * o + alpha * t;
    }
  }

  template <int W>
  CHIMERA_INLINE static void run(std::int64_t m, std::int64_t k, float alpha, ConstView a, const float* x, float beta,
                                 float* y, std::int64_t stride) {
    using V = Vec<W>;
    if (a.col == 1) {
      std::int64_t i = 0;
      for (; i + 4 <= m; i += 4) dots<W, 4>(k, alpha, a.from(i, 0), x, beta, y + i * stride, stride);
      for (; i < m; ++i) dots<W, 1>(k, alpha, a.from(i, 0), x, beta, y + i * stride, stride);
      return;
    }
    constexpr std::int64_t block = 256;
    for (std::int64_t i0 = 0; i0 < m; i0 += block) {
      const std::int64_t n = std::min(block, m - i0);
      float s[block] = {};
      for (std::int64_t p = 0; p < k; ++p) {
        const V xp = x[p];
        const float* from = a.from(i0, p).p;
        std::int64_t i = 0;
        for (; i + W <= n; i += W) fma<W>(xp, V::load(from + i), V::load(s + i)).store(s + i);
        for (; i < n; ++i) s[i] += x[p] * from[i];
      }
      for (std::int64_t i = 0; i < n; ++i) {
        float& o = y[(i0 + i) * stride];
        o = beta == 0 ? alpha * s[i] : beta * o + alpha * s[i];
      }
    }
  }
};

inline void multiply_serial(Isa isa, float* scratch, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                            ConstView a, ConstView b, float beta, float* c, std::int64_t ldc) {
  float* const rest = scratch + gemm_cols * gemm_most_depth;
  const std::int64_t depth = gemm_depth(k);
  for (std::int64_t j = 0; j < n; j += gemm_cols) {
    const std::int64_t cols = std::min(gemm_cols, n - j);
    for (std::int64_t p = 0; p < k; p += depth) {
      const std::int64_t steps = std::min(depth, k - p);
      dispatch<PackB<Floats>>(isa, b.from(p, j), cols, steps, scratch, steps, false);
      for (std::int64_t i = 0; i < m; i += gemm_rows)
        dispatch<MultiplyPacked<Floats>>(isa, rest, std::min(gemm_rows, m - i), cols, steps, depth, alpha, a.from(i, p),
                                         static_cast<const float*>(scratch), p == 0 ? beta : 1.f, c + i * ldc + j, ldc,
                                         false);
    }
  }
}

/// Packs B for all threads, as much of it as the shared scratch holds, then computes blocks of C. A task packs
/// `pack_cols` columns at most: pack(worker, first k, first column, steps of k, columns, to, words of a panel).
template <class Products, std::int64_t pack_cols, class Pack>
void multiply_shared(const Cpu& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                     const Pack& pack, float beta, float* c, std::int64_t ldc) {
  const Isa isa = q.isa();
  constexpr std::int64_t most_blocks = 8;
  const bool native = isa == Isa::avx512_bf16;
  const std::int64_t depth = gemm_depth(k, gemm_most_depth * Products::steps), blocks = ceil_div(k, depth);
  const std::int64_t part = ceil_div(blocks, ceil_div(blocks, most_blocks)) * depth;
  const std::int64_t most_cols =
      static_cast<std::int64_t>(Cpu::shared_floats) / ceil_div(part, Products::steps) / pack_cols * pack_cols;
  float* const packed = q.shared();
  for (std::int64_t p = 0; p < k; p += part)
    for (std::int64_t j = 0; j < n; j += most_cols) {
      const std::int64_t steps = std::min(part, k - p), cols = std::min(most_cols, n - j);
      const std::int64_t deep = ceil_div(steps, depth), words = ceil_div(steps, Products::steps);
      parallel(q, ceil_div(cols, pack_cols) * deep, [&](std::int64_t t, int worker) {
        const std::int64_t s = t / deep * pack_cols, d = t % deep * depth;
        pack(worker, p + d, j + s, std::min(depth, steps - d), std::min(pack_cols, cols - s),
             packed + s * words + d / Products::steps * gemm_tile_cols(lanes(isa)), words);
      });
      const GemmGrid grid = gemm_grid(m, cols, gemm_tile_rows(lanes(isa)), q.at_once());
      const std::int64_t across = ceil_div(cols, grid.cols);
      parallel(q, ceil_div(m, grid.rows) * across, [&](std::int64_t t, int worker) {
        const std::int64_t r = t / across * grid.rows, s = t % across * grid.cols;
        dispatch<MultiplyPacked<Products>>(isa, q.scratch(worker), std::min(grid.rows, m - r),
                                           std::min(grid.cols, cols - s), steps, depth, alpha, a.from(r, p),
                                           packed + s * words, p == 0 ? beta : 1.f, c + r * ldc + j + s, ldc, native);
      });
    }
}

template <class Products>
void multiply_shared(const Cpu& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                     ConstView b, float beta, float* c, std::int64_t ldc) {
  const auto pack = [&](int, std::int64_t p, std::int64_t j, std::int64_t steps, std::int64_t cols, float* out,
                        std::int64_t words) {
    dispatch<PackB<Products>>(q.isa(), b.from(p, j), cols, steps, out, words, q.isa() == Isa::avx512_bf16);
  };
  multiply_shared<Products, 128>(q, m, n, k, alpha, a, pack, beta, c, ldc);
}

}  // namespace gemm_parts

CHIMERA_FUNCTION void gemm_serial(Isa isa, float* scratch, std::int64_t m, std::int64_t n, std::int64_t k, float alpha,
                                  ConstView a, ConstView b, float beta, float* c, std::int64_t ldc) {
  using namespace gemm_parts;
  if (k <= 0) return gemm_reference(m, n, 0, alpha, a, b, beta, c, ldc);
  if (const VectorProduct v = as_vector_product(m, n, a, b, ldc); v.possible)
    return dispatch<MatrixVector>(isa, v.rows, k, alpha, v.matrix, v.x, beta, c, v.stride);
  multiply_serial(isa, scratch, m, n, k, alpha, a, b, beta, c, ldc);
}

CHIMERA_FUNCTION void gemm(const Cpu& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                           ConstView b, float beta, float* c, std::int64_t ldc) {
  using namespace gemm_parts;
  if (m <= 0 || n <= 0) return;
  if (k <= 0 || m * n * k < 1 << 18) return gemm_serial(q.isa(), q.scratch(0), m, n, k, alpha, a, b, beta, c, ldc);
  const auto share = [&](std::int64_t size) { return round_up(ceil_div(size, 4 * q.at_once()), 64); };
  if (const VectorProduct v = as_vector_product(m, n, a, b, ldc); v.possible) {
    const std::int64_t rows = share(v.rows);
    return parallel(q, ceil_div(v.rows, rows), [&](std::int64_t t, int) {
      const std::int64_t i = t * rows;
      dispatch<MatrixVector>(q.isa(), std::min(rows, v.rows - i), k, alpha, v.matrix.from(i, 0), v.x, beta,
                             c + i * v.stride, v.stride);
    });
  }
  if (m > gemm_few_rows) return multiply_shared<Floats>(q, m, n, k, alpha, a, b, beta, c, ldc);
  const std::int64_t cols = std::min(gemm_cols, share(n));
  parallel(q, ceil_div(n, cols), [&](std::int64_t t, int worker) {
    const std::int64_t j = t * cols;
    multiply_serial(q.isa(), q.scratch(worker), m, std::min(cols, n - j), k, alpha, a, b.from(0, j), beta, c + j, ldc);
  });
}

template <Device D>
void training_gemm(const D& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a, ConstView b,
                   float beta, float* c, std::int64_t ldc) {
  if (is_large_product(m, n, k) && q.precision() == Precision::bf16)
    return gemm_parts::multiply_shared<gemm_parts::Pairs>(q, m, n, k, alpha, a, b, beta, c, ldc);
  gemm(q, m, n, k, alpha, a, b, beta, c, ldc);
}
#if defined(CHIMERA_COMPILE)
template void training_gemm(const Cpu& q, std::int64_t m, std::int64_t n, std::int64_t k, float alpha, ConstView a,
                            ConstView b, float beta, float* c, std::int64_t ldc);
#endif

CHIMERA_FUNCTION void gemm_batched(const Cpu& q, std::int64_t count, std::int64_t m, std::int64_t n, std::int64_t k,
                                   float alpha, ConstView a, std::int64_t a_stride, ConstView b, std::int64_t b_stride,
                                   float beta, float* c, std::int64_t ldc, std::int64_t c_stride) {
  for (std::int64_t i = 0; i < count; ++i, a.p += a_stride, b.p += b_stride, c += c_stride)
    gemm(q, m, n, k, alpha, a, b, beta, c, ldc);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
