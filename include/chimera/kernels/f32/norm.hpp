// Root-mean-square normalisation, plain, and gated before it or behind.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>

#include <cmath>

namespace chimera {

/// x [rows, width], rows x_stride apart; z likewise, null for the plain norm.
/// u = x, or x silu(z);   y = w u / sqrt(mean(u^2) + eps), the mean over each run of `group` channels.
struct NormShape {
  std::int64_t rows, width, group;
  float eps;
};

/// Heads within tokens `stride` apart: a token's queries, and its keys behind them, which have norms of their own.
struct HeadNormShape {
  static constexpr std::int64_t most_head_dim = 256;

  std::int64_t tokens, heads, kv_heads, head_dim, stride;
  float eps;
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// Rows that one task of a backward pass reduces into one partial sum of the weight's gradient.
inline constexpr std::int64_t norm_rows = 64;

void rms_norm(const Cpu& q, NormShape s, const float* x, const float* w, float* y);

void gated_rms_norm(const Cpu& q, NormShape s, const float* x, const float* z, std::int64_t z_stride, const float* w,
                    float* y);

/// Bytes of `temp` that the two backward passes need.
std::int64_t norm_backward_bytes(std::int64_t rows, std::int64_t width);

/// y = w silu(z) x / sqrt(mean(x^2) + eps), where all groups share w [group].
void rms_norm_then_gate(const Cpu& q, NormShape s, const float* x, const float* z, std::int64_t z_stride,
                        const float* w, float* y);

/// dx =, dz = (rows z_stride apart, as z), dw +=. dx may be dy. Bytes of `temp`: as of the others.
void rms_norm_then_gate_backward(const Cpu& q, NormShape s, const float* x, const float* z, std::int64_t z_stride,
                                 const float* w, const float* dy, float* dx, float* dz, float* dw, Bump temp);

/// dx += (the residual stream's gradient), dw +=.
void rms_norm_backward(const Cpu& q, NormShape s, const float* x, const float* w, const float* dy, float* dx, float* dw,
                       Bump temp);

/// dx =, dz = (rows z_stride apart, as z), dw +=. dx may be dy.
void gated_rms_norm_backward(const Cpu& q, NormShape s, const float* x, const float* z, std::int64_t z_stride,
                             const float* w, const float* dy, float* dx, float* dz, float* dw, Bump temp);

/// Normalises every head by wq or wk [head_dim]; null: all are 1. y may be x; what is no query and no key is left as it
/// is.
void head_norm(const Cpu& q, const HeadNormShape& s, const float* x, const float* wq, const float* wk, float* y);

std::int64_t head_norm_backward_bytes(const HeadNormShape& s);

/// d: the gradient of y, which becomes that of x. dwq, dwk +=; null: nobody asks.
void head_norm_backward(const Cpu& q, const HeadNormShape& s, const float* x, const float* wq, const float* wk,
                        float* d, float* dwq, float* dwk, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

struct RmsNorm {
  template <int W>
  CHIMERA_INLINE static void run(NormShape s, const float* x, const float* z, std::int64_t z_stride, const float* w,
                                 float* y) {
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t g = 0; g < s.width; g += s.group) {
        const float* xr = x + r * s.width + g;
        const float* zr = z ? z + r * z_stride + g : nullptr;
        float* yr = y + r * s.width + g;
        Vec<W> squares;
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          Vec<W> u = io.load(xr + i);
          if (zr) {
            u *= silu<W>(io.load(zr + i));
            io.store(yr + i, u);
          }
          squares = fma<W>(u, u, squares);
        });
        const float inverse = 1.f / std::sqrt(sum<W>(squares) / static_cast<float>(s.group) + s.eps);
        const float* ur = zr ? yr : xr;
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> v = io.load(ur + i) * Vec<W>(inverse);
          io.store(yr + i, w ? v * io.load(w + g + i) : v);
        });
      }
  }
};

CHIMERA_FUNCTION void rms_norm(const Cpu& q, NormShape s, const float* x, const float* w, float* y) {
  parallel_rows(q, s.rows, 16, [&](std::int64_t at, std::int64_t n, int) {
    dispatch<RmsNorm>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width, nullptr, 0, w,
                      y + at * s.width);
  });
}

CHIMERA_FUNCTION void gated_rms_norm(const Cpu& q, NormShape s, const float* x, const float* z, std::int64_t z_stride,
                                     const float* w, float* y) {
  parallel_rows(q, s.rows, 16, [&](std::int64_t at, std::int64_t n, int) {
    dispatch<RmsNorm>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width, z + at * z_stride, z_stride, w,
                      y + at * s.width);
  });
}

/// With v = u r, r = 1 / sqrt(mean(u^2) + eps):  g = w dy,  du = r (g - v mean(g v)),  dw += dy v.
struct RmsNormBackward {
  template <int W>
  CHIMERA_INLINE static void run(NormShape s, const float* x, const float* z, std::int64_t z_stride, const float* w,
                                 const float* dy, float* dx, float* dz, float* dw) {
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t g = 0; g < s.width; g += s.group) {
        const float* xr = x + r * s.width + g;
        const float* zr = z ? z + r * z_stride + g : nullptr;
        const float* dyr = dy + r * s.width + g;
        float* dxr = dx + r * s.width + g;
        const auto grown = [=](auto io, std::int64_t i)
                               CHIMERA_LAMBDA { return w ? io.load(w + g + i) * io.load(dyr + i) : io.load(dyr + i); };
        Vec<W> squares, products;
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          Vec<W> u = io.load(xr + i);
          if (zr) u *= silu<W>(io.load(zr + i));
          squares = fma<W>(u, u, squares);
          products = fma<W>(u, grown(io, i), products);
        });
        const float n = static_cast<float>(s.group);
        const float inverse = 1.f / std::sqrt(sum<W>(squares) / n + s.eps);
        const Vec<W> scale(inverse), shift(sum<W>(products) / n * inverse * inverse);
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> xi = io.load(xr + i), dyi = io.load(dyr + i);
          const Vec<W> zi = zr ? io.load(zr + i) : Vec<W>();
          const Vec<W> gate = zr ? silu<W>(zi) : Vec<W>(1.f);
          const Vec<W> u = xi * gate;
          const Vec<W> du = scale * (grown(io, i) - u * shift);
          io.store(dw + g + i, fma<W>(dyi, u * scale, io.load(dw + g + i)));
          if (zr) {
            io.store(dxr + i, du * gate);
            io.store(dz + r * z_stride + g + i, du * xi * silu_slope<W>(zi));
          } else {
            io.store(dxr + i, io.load(dxr + i) + du);
          }
        });
      }
  }
};

constexpr std::int64_t norm_blocks(std::int64_t rows) { return (rows + norm_rows - 1) / norm_rows; }

CHIMERA_FUNCTION std::int64_t norm_backward_bytes(std::int64_t rows, std::int64_t width) {
  return bytes_of({norm_blocks(rows) * width});
}

/// What a norm's weights receive of each block of rows, [blocks, n], taken from temp: f(first row, rows, sums [n]) adds to
/// zeros. The blocks are the same for any number of threads.
template <class F>
float* norm_sums(const Cpu& q, std::int64_t rows, std::int64_t n, Bump& temp, F&& f) {
  float* const sums = temp.take(norm_blocks(rows) * n);
  parallel_rows(q, rows, norm_rows, [&](std::int64_t first, std::int64_t count, int) {
    float* const own = sums + first / norm_rows * n;
    std::fill_n(own, n, 0.f);
    f(first, count, own);
  });
  return sums;
}

CHIMERA_FUNCTION void rms_norm_backward(const Cpu& q, NormShape s, const float* x, const float* w, const float* dy,
                                        float* dx, float* dw, Bump temp) {
  const float* partial = norm_sums(q, s.rows, s.width, temp, [&](std::int64_t at, std::int64_t n, float* sums) {
    dispatch<RmsNormBackward>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width, nullptr, 0, w,
                              dy + at * s.width, dx + at * s.width, nullptr, sums);
  });
  sum_rows(q, norm_blocks(s.rows), s.width, s.width, partial, dw);
}

CHIMERA_FUNCTION void gated_rms_norm_backward(const Cpu& q, NormShape s, const float* x, const float* z,
                                              std::int64_t z_stride, const float* w, const float* dy, float* dx,
                                              float* dz, float* dw, Bump temp) {
  const float* partial = norm_sums(q, s.rows, s.width, temp, [&](std::int64_t at, std::int64_t n, float* sums) {
    dispatch<RmsNormBackward>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width, z + at * z_stride,
                              z_stride, w, dy + at * s.width, dx + at * s.width, dz + at * z_stride, sums);
  });
  sum_rows(q, norm_blocks(s.rows), s.width, s.width, partial, dw);
}

struct RmsNormThenGate {
  template <int W>
  CHIMERA_INLINE static void run(NormShape s, const float* x, const float* z, std::int64_t z_stride, const float* w,
                                 float* y) {
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t g = 0; g < s.width; g += s.group) {
        const float* xr = x + r * s.width + g;
        const float* zr = z + r * z_stride + g;
        float* yr = y + r * s.width + g;
        Vec<W> squares;
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> u = io.load(xr + i);
          squares = fma<W>(u, u, squares);
        });
        const Vec<W> inverse(1.f / std::sqrt(sum<W>(squares) / static_cast<float>(s.group) + s.eps));
        lanes<W>(s.group, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
          io.store(yr + i, io.load(xr + i) * inverse * io.load(w + i) * silu<W>(io.load(zr + i)));
        });
      }
  }
};

CHIMERA_FUNCTION void rms_norm_then_gate(const Cpu& q, NormShape s, const float* x, const float* z,
                                         std::int64_t z_stride, const float* w, float* y) {
  parallel_rows(q, s.rows, 16, [&](std::int64_t at, std::int64_t n, int) {
    dispatch<RmsNormThenGate>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width, z + at * z_stride,
                              z_stride, w, y + at * s.width);
  });
}

/// With v = x r, r = 1 / sqrt(mean(x^2) + eps):  g = w silu(z) dy,  dx = r (g - v mean(g v)),  dz = w v dy silu'(z),
/// dw += v silu(z) dy.
struct RmsNormThenGateBackward {
  template <int W>
  CHIMERA_INLINE static void run(NormShape s, const float* x, const float* z, std::int64_t z_stride, const float* w,
                                 const float* dy, float* dx, float* dz, float* dw) {
    for (std::int64_t r = 0; r < s.rows; ++r)
      for (std::int64_t g = 0; g < s.width; g += s.group) {
        const float* xr = x + r * s.width + g;
        const float* zr = z + r * z_stride + g;
        const float* dyr = dy + r * s.width + g;
        float* dxr = dx + r * s.width + g;
        float* dzr = dz + r * z_stride + g;
        Vec<W> squares, products;
        lanes<W>(s.group, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> u = io.load(xr + i);
          squares = fma<W>(u, u, squares);
          products = fma<W>(u * io.load(w + i), silu<W>(io.load(zr + i)) * io.load(dyr + i), products);
        });
        const float n = static_cast<float>(s.group);
        const float inverse = 1.f / std::sqrt(sum<W>(squares) / n + s.eps);
        const Vec<W> scale(inverse), shift(sum<W>(products) / n * inverse * inverse);
        lanes<W>(s.group, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
          const Vec<W> u = io.load(xr + i), zi = io.load(zr + i), d = io.load(dyr + i), wi = io.load(w + i);
          const Vec<W> gate = silu<W>(zi), v = u * scale;
          io.store(dw + i, fma<W>(d * gate, v, io.load(dw + i)));
          io.store(dzr + i, d * wi * v * silu_slope<W>(zi));
          io.store(dxr + i, scale * (d * wi * gate - u * shift));
        });
      }
  }
};

CHIMERA_FUNCTION void rms_norm_then_gate_backward(const Cpu& q, NormShape s, const float* x, const float* z,
                                                  std::int64_t z_stride, const float* w, const float* dy, float* dx,
                                                  float* dz, float* dw, Bump temp) {
  const float* partial = norm_sums(q, s.rows, s.group, temp, [&](std::int64_t at, std::int64_t n, float* sums) {
    dispatch<RmsNormThenGateBackward>(q.isa(), NormShape{n, s.width, s.group, s.eps}, x + at * s.width,
                                      z + at * z_stride, z_stride, w, dy + at * s.width, dx + at * s.width,
                                      dz + at * z_stride, sums);
  });
  sum_rows(q, norm_blocks(s.rows), s.group, s.group, partial, dw);
}

CHIMERA_FUNCTION void head_norm(const Cpu& q, const HeadNormShape& s, const float* x, const float* wq, const float* wk,
                                float* y) {
  parallel_rows(q, s.tokens, 16, [&](std::int64_t first, std::int64_t n, int) {
    const auto norm = [&](std::int64_t heads, std::int64_t at, const float* w) {
      dispatch<RmsNorm>(q.isa(), NormShape{heads, s.head_dim, s.head_dim, s.eps}, x + at, nullptr, 0, w, y + at);
    };
    for (std::int64_t t = first; t < first + n; ++t) {
      norm(s.heads, t * s.stride, wq);
      norm(s.kv_heads, t * s.stride + s.heads * s.head_dim, wk);
    }
  });
}

CHIMERA_FUNCTION std::int64_t head_norm_backward_bytes(const HeadNormShape& s) {
  return bytes_of({norm_blocks(s.tokens) * 2 * s.head_dim});
}

CHIMERA_FUNCTION void head_norm_backward(const Cpu& q, const HeadNormShape& s, const float* x, const float* wq,
                                         const float* wk, float* d, float* dwq, float* dwk, Bump temp) {
  const std::int64_t blocks = norm_blocks(s.tokens), row = 2 * s.head_dim;
  const float* partial = norm_sums(q, s.tokens, row, temp, [&](std::int64_t first, std::int64_t n, float* sums) {
    alignas(64) float dy[HeadNormShape::most_head_dim];
    for (std::int64_t t = first; t < first + n; ++t)
      for (std::int64_t h = 0; h < s.heads + s.kv_heads; ++h) {
        const bool query = h < s.heads;
        const std::int64_t at = t * s.stride + h * s.head_dim;
        std::copy_n(d + at, s.head_dim, dy);
        std::fill_n(d + at, s.head_dim, 0.f);
        dispatch<RmsNormBackward>(q.isa(), NormShape{1, s.head_dim, s.head_dim, s.eps}, x + at, nullptr, 0,
                                  query ? wq : wk, dy, d + at, nullptr, query ? sums : sums + s.head_dim);
      }
  });
  if (dwq) sum_rows(q, blocks, row, s.head_dim, partial, dwq);
  if (dwk) sum_rows(q, blocks, row, s.head_dim, partial + s.head_dim, dwk);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
