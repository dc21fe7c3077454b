// Kernels that treat each element alone: activations, gates, dropout, sums.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Splits [0, n) into runs of 8192 floats and calls f(begin, count) for each, in parallel.
template <class F>
void parallel_runs(const Cpu& q, std::int64_t n, F&& f) {
  constexpr std::int64_t run = 8192;
  parallel(q, (n + run - 1) / run, [&](std::int64_t i, int) { f(i * run, std::min(run, n - i * run)); });
}

/// Splits `rows` into runs of `rows_per_run` and calls f(first, count, worker).
template <class F>
void parallel_rows(const Cpu& q, std::int64_t rows, std::int64_t rows_per_run, F&& f) {
  parallel(q, (rows + rows_per_run - 1) / rows_per_run, [&](std::int64_t i, int worker) {
    f(i * rows_per_run, std::min(rows_per_run, rows - i * rows_per_run), worker);
  });
}

/// x = 0
void zero(const Cpu& q, std::int64_t n, float* x);

/// to = from
void copy(const Cpu& q, std::int64_t n, const float* from, float* to);

float dot(Isa isa, std::int64_t n, const float* x, const float* y);

/// y += a x
void add_scaled(const Cpu& q, std::int64_t n, float a, const float* x, float* y);

/// y[n] += the sum of the rows of x[rows, n], first to last.
void sum_rows(const Cpu& q, std::int64_t rows, std::int64_t stride, std::int64_t n, const float* x, float* y);

/// Adds a bias[n] to every row of x[rows, n].
void add_bias(const Cpu& q, std::int64_t rows, std::int64_t n, float a, const float* bias, float* x);

/// h = silu(gate) up.  gate_up [rows, 2n]: gate, then up; h [rows, n].
void swiglu(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h);

/// In place: gate_up [rows, 2n] becomes its gradient; h [rows, n] holds dL/dh and becomes h itself again.
void swiglu_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h);

/// Likewise h = gelu(gate) up.
void geglu(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h);
void geglu_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h);

/// Likewise h = relu(gate)^2 up   (BitNet b1.58 2B4T, 2504.12285).
void relu2_gate(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h);
void relu2_gate_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h);

/// Likewise h = relu(up)^2 of up [rows, n]   (So et al., 2109.08668).
void relu2(const Cpu& q, std::int64_t rows, std::int64_t n, const float* up, float* h);
void relu2_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* up, float* h);

/// x = cap tanh(x / cap)
void soft_cap(const Cpu& q, std::int64_t n, float cap, float* x);

/// y: what soft_cap made; d: its gradient, which becomes that of x.
void soft_cap_backward(const Cpu& q, std::int64_t n, float cap, const float* y, float* d);

/// y = gelu(a) b
void gelu_gate(const Cpu& q, std::int64_t n, const float* a, const float* b, float* y);

/// dy becomes db; da is written.
void gelu_gate_backward(const Cpu& q, std::int64_t n, const float* a, const float* b, float* dy, float* da);

/// y = sigmoid(gate) x for rows of n; those of gates lie gate_stride apart. y may be x.
void sigmoid_gate(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate, std::int64_t gate_stride,
                  const float* x, float* y);

/// dy becomes dx; dgate is written, its rows gate_stride apart, too.
void sigmoid_gate_backward(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate, std::int64_t gate_stride,
                           const float* x, float* dy, float* dgate);

/// x *= mask / (1 - rate), where mask is a function of (key, stream, index): the same call undoes nothing and repeats
/// everything, so backward applies it to the gradient.
void dropout(const Cpu& q, std::int64_t n, float rate, std::uint64_t key, std::uint64_t stream, float* x);

/// y [rows, n] = what drops out of x [rows, n] + beta y, likewise; beta is 0 or 1.
void dropout_rows(const Cpu& q, std::int64_t rows, std::int64_t n, float rate, std::uint64_t key, std::uint64_t stream,
                  const float* x, std::int64_t ldx, float beta, float* y, std::int64_t ldy);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void zero(const Cpu& q, std::int64_t n, float* x) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) { std::fill_n(x + at, c, 0.f); });
}

CHIMERA_FUNCTION void copy(const Cpu& q, std::int64_t n, const float* from, float* to) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) { std::copy_n(from + at, c, to + at); });
}

struct AddScaled {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float a, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(y + i, fma<W>(Vec<W>(a), io.load(x + i), io.load(y + i))); });
  }
};

/// y = a x; x and y may be the same.
struct Scaled {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float a, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, io.load(x + i) * Vec<W>(a)); });
  }
};

struct DotProduct {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* y, float* result) {
    Vec<W> s;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA { s = fma<W>(io.load(x + i), io.load(y + i), s); });
    *result = sum<W>(s);
  }
};

CHIMERA_FUNCTION float dot(Isa isa, std::int64_t n, const float* x, const float* y) {
  float result = 0.f;
  dispatch<DotProduct>(isa, n, x, y, &result);
  return result;
}

CHIMERA_FUNCTION void add_scaled(const Cpu& q, std::int64_t n, float a, const float* x, float* y) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) { dispatch<AddScaled>(q.isa(), c, a, x + at, y + at); });
}

struct SumRows {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t stride, std::int64_t n, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      Vec<W> s = io.load(y + i);
      for (std::int64_t r = 0; r < rows; ++r) s += io.load(x + r * stride + i);
      io.store(y + i, s);
    });
  }
};

CHIMERA_FUNCTION void sum_rows(const Cpu& q, std::int64_t rows, std::int64_t stride, std::int64_t n, const float* x,
                               float* y) {
  constexpr std::int64_t strip = 64;
  parallel(q, (n + strip - 1) / strip, [&](std::int64_t i, int) {
    dispatch<SumRows>(q.isa(), rows, stride, std::min(strip, n - i * strip), x + i * strip, y + i * strip);
  });
}

struct AddBias {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float a, const float* bias, float* x) {
    for (std::int64_t r = 0; r < rows; ++r, x += n)
      lanes<W>(n, [=](std::int64_t i, auto io)
                      CHIMERA_LAMBDA { io.store(x + i, fma<W>(Vec<W>(a), io.load(bias + i), io.load(x + i))); });
  }
};

CHIMERA_FUNCTION void add_bias(const Cpu& q, std::int64_t rows, std::int64_t n, float a, const float* bias, float* x) {
  parallel_rows(q, rows, 16,
                [&](std::int64_t at, std::int64_t c, int) { dispatch<AddBias>(q.isa(), c, n, a, bias, x + at * n); });
}

/// y = silu(gate) x; y may be x.
struct SiluGate {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* gate, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(y + i, silu<W>(io.load(gate + i)) * io.load(x + i)); });
  }
};

struct SwiGluRows {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* gate_up, float* h) {
    for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * n, h += n)
      lanes<W>(n, [=](std::int64_t i, auto io)
                      CHIMERA_LAMBDA { io.store(h + i, silu<W>(io.load(gate_up + i)) * io.load(gate_up + n + i)); });
  }
};

CHIMERA_FUNCTION void swiglu(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h) {
  parallel_rows(q, rows, 8, [&](std::int64_t at, std::int64_t c, int) {
    dispatch<SwiGluRows>(q.isa(), c, n, gate_up + at * 2 * n, h + at * n);
  });
}

struct SwiGluRowsBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float* gate_up, float* h) {
    for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * n, h += n)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> g = io.load(gate_up + i), u = io.load(gate_up + n + i), dh = io.load(h + i);
        const Vec<W> s = sigmoid<W>(g), silu = g * s;
        io.store(h + i, silu * u);
        io.store(gate_up + i, dh * u * s * fma<W>(g, Vec<W>(1.f) - s, Vec<W>(1.f)));
        io.store(gate_up + n + i, dh * silu);
      });
  }
};

CHIMERA_FUNCTION void swiglu_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h) {
  parallel_rows(q, rows, 8, [&](std::int64_t at, std::int64_t c, int) {
    dispatch<SwiGluRowsBackward>(q.isa(), c, n, gate_up + at * 2 * n, h + at * n);
  });
}

struct SoftCap {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float cap, float* x) {
    lanes<W>(n, [=](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(x + i, Vec<W>(cap) * tanh<W>(io.load(x + i) * Vec<W>(1.f / cap))); });
  }
};

CHIMERA_FUNCTION void soft_cap(const Cpu& q, std::int64_t n, float cap, float* x) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) { dispatch<SoftCap>(q.isa(), c, cap, x + at); });
}

struct SoftCapBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float cap, const float* y, float* d) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> t = io.load(y + i) * Vec<W>(1.f / cap);
      io.store(d + i, io.load(d + i) * (Vec<W>(1.f) - t * t));
    });
  }
};

CHIMERA_FUNCTION void soft_cap_backward(const Cpu& q, std::int64_t n, float cap, const float* y, float* d) {
  parallel_runs(q, n,
                [&](std::int64_t at, std::int64_t c) { dispatch<SoftCapBackward>(q.isa(), c, cap, y + at, d + at); });
}

/// GELU in its tanh form: x/2 (1 + tanh t), t = sqrt(2/pi) (x + 0.044715 x^3).
template <int W>
CHIMERA_INLINE Vec<W> gelu(const Vec<W>& x) {
  const Vec<W> t = tanh<W>(x * Vec<W>(0.7978845608f) * fma<W>(x * x, Vec<W>(0.044715f), Vec<W>(1.f)));
  return x * Vec<W>(0.5f) * (Vec<W>(1.f) + t);
}

template <int W>
CHIMERA_INLINE Vec<W> gelu_slope(const Vec<W>& x) {
  const Vec<W> z = x * x, one = 1.f, half = 0.5f;
  const Vec<W> t = tanh<W>(x * Vec<W>(0.7978845608f) * fma<W>(z, Vec<W>(0.044715f), one));
  const Vec<W> dt = Vec<W>(0.7978845608f) * fma<W>(z, Vec<W>(3.f * 0.044715f), one);
  return half * (one + t) + half * x * (one - t * t) * dt;
}

struct GeluGate {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* a, const float* b, float* y) {
    lanes<W>(
        n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, gelu<W>(io.load(a + i)) * io.load(b + i)); });
  }
};

CHIMERA_FUNCTION void gelu_gate(const Cpu& q, std::int64_t n, const float* a, const float* b, float* y) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) { dispatch<GeluGate>(q.isa(), c, a + at, b + at, y + at); });
}

struct GeluGateBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* a, const float* b, float* dy, float* da) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> x = io.load(a + i), d = io.load(dy + i);
      io.store(da + i, d * io.load(b + i) * gelu_slope<W>(x));
      io.store(dy + i, d * gelu<W>(x));
    });
  }
};

CHIMERA_FUNCTION void gelu_gate_backward(const Cpu& q, std::int64_t n, const float* a, const float* b, float* dy,
                                         float* da) {
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) {
    dispatch<GeluGateBackward>(q.isa(), c, a + at, b + at, dy + at, da + at);
  });
}

struct Gelu {
  template <int W>
  CHIMERA_INLINE static Vec<W> value(const Vec<W>& x) {
    return gelu<W>(x);
  }
  template <int W>
  CHIMERA_INLINE static Vec<W> slope(const Vec<W>& x) {
    return gelu_slope<W>(x);
  }
};

struct SquaredRelu {
  template <int W>
  CHIMERA_INLINE static Vec<W> value(const Vec<W>& x) {
    const Vec<W> r = max<W>(x, Vec<W>());
    return r * r;
  }
  template <int W>
  CHIMERA_INLINE static Vec<W> slope(const Vec<W>& x) {
    return Vec<W>(2.f) * max<W>(x, Vec<W>());
  }
};

template <class F>
struct GatedRows {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* gate_up, float* h) {
    for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * n, h += n)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        io.store(h + i, F::template value<W>(io.load(gate_up + i)) * io.load(gate_up + n + i));
      });
  }
};

template <class F>
struct GatedRowsBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float* gate_up, float* h) {
    for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * n, h += n)
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> g = io.load(gate_up + i), u = io.load(gate_up + n + i), dh = io.load(h + i);
        const Vec<W> value = F::template value<W>(g);
        io.store(h + i, value * u);
        io.store(gate_up + i, dh * u * F::template slope<W>(g));
        io.store(gate_up + n + i, dh * value);
      });
  }
};

struct SquaredReluAlone {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, float* y) {
    lanes<W>(n,
             [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, SquaredRelu::value<W>(io.load(x + i))); });
  }
};

struct SquaredReluAloneBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = io.load(x + i), d = io.load(y + i);
      io.store(y + i, SquaredRelu::value<W>(u));
      io.store(x + i, d * SquaredRelu::slope<W>(u));
    });
  }
};

namespace elementwise_parts {

/// Of rows of x [2n] and y [n].
template <class Kernel>
void run_gated(const Cpu& q, std::int64_t rows, std::int64_t n, auto* x, float* y) {
  parallel_rows(q, rows, 8, [&](std::int64_t at, std::int64_t c, int) {
    dispatch<Kernel>(q.isa(), c, n, x + at * 2 * n, y + at * n);
  });
}

}  // namespace elementwise_parts

CHIMERA_FUNCTION void geglu(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h) {
  elementwise_parts::run_gated<GatedRows<Gelu>>(q, rows, n, gate_up, h);
}

CHIMERA_FUNCTION void geglu_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h) {
  elementwise_parts::run_gated<GatedRowsBackward<Gelu>>(q, rows, n, gate_up, h);
}

CHIMERA_FUNCTION void relu2_gate(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate_up, float* h) {
  elementwise_parts::run_gated<GatedRows<SquaredRelu>>(q, rows, n, gate_up, h);
}

CHIMERA_FUNCTION void relu2_gate_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* gate_up, float* h) {
  elementwise_parts::run_gated<GatedRowsBackward<SquaredRelu>>(q, rows, n, gate_up, h);
}

CHIMERA_FUNCTION void relu2(const Cpu& q, std::int64_t rows, std::int64_t n, const float* up, float* h) {
  parallel_runs(q, rows * n,
                [&](std::int64_t at, std::int64_t c) { dispatch<SquaredReluAlone>(q.isa(), c, up + at, h + at); });
}

CHIMERA_FUNCTION void relu2_backward(const Cpu& q, std::int64_t rows, std::int64_t n, float* up, float* h) {
  parallel_runs(q, rows * n, [&](std::int64_t at, std::int64_t c) {
    dispatch<SquaredReluAloneBackward>(q.isa(), c, up + at, h + at);
  });
}

struct SigmoidGate {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* gate, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(y + i, sigmoid<W>(io.load(gate + i)) * io.load(x + i)); });
  }
};

CHIMERA_FUNCTION void sigmoid_gate(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate,
                                   std::int64_t gate_stride, const float* x, float* y) {
  parallel_rows(q, rows, 8, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      dispatch<SigmoidGate>(q.isa(), n, gate + t * gate_stride, x + t * n, y + t * n);
  });
}

struct SigmoidGateBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* gate, const float* x, float* dy, float* dgate) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> s = sigmoid<W>(io.load(gate + i)), d = io.load(dy + i) * s;
      io.store(dgate + i, d * io.load(x + i) * (Vec<W>(1.f) - s));
      io.store(dy + i, d);
    });
  }
};

CHIMERA_FUNCTION void sigmoid_gate_backward(const Cpu& q, std::int64_t rows, std::int64_t n, const float* gate,
                                            std::int64_t gate_stride, const float* x, float* dy, float* dgate) {
  parallel_rows(q, rows, 8, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      dispatch<SigmoidGateBackward>(q.isa(), n, gate + t * gate_stride, x + t * n, dy + t * n, dgate + t * gate_stride);
  });
}

CHIMERA_FUNCTION void dropout(const Cpu& q, std::int64_t n, float rate, std::uint64_t key, std::uint64_t stream,
                              float* x) {
  const float keep = 1.f / (1.f - rate);
  parallel_runs(q, n, [&](std::int64_t at, std::int64_t c) {
    for (std::int64_t i = 0; i < c; i += 4) {
      const auto w = philox(key, stream, static_cast<std::uint64_t>((at + i) / 4));
      for (std::int64_t j = 0; j < 4 && i + j < c; ++j)
        x[at + i + j] = unit(w[static_cast<std::size_t>(j)]) < rate ? 0.f : x[at + i + j] * keep;
    }
  });
}

CHIMERA_FUNCTION void dropout_rows(const Cpu& q, std::int64_t rows, std::int64_t n, float rate, std::uint64_t key,
                                   std::uint64_t stream, const float* x, std::int64_t ldx, float beta, float* y,
                                   std::int64_t ldy) {
  const float keep = 1.f / (1.f - rate);
  const std::int64_t draws = (n + 3) / 4;  // of a row
  parallel_rows(q, rows, 8, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t t = first; t < first + count; ++t)
      for (std::int64_t i = 0; i < n; i += 4) {
        const auto w = philox(key, stream, static_cast<std::uint64_t>(t * draws + i / 4));
        for (std::int64_t j = i; j < std::min(i + 4, n); ++j) {
          const float kept = unit(w[static_cast<std::size_t>(j - i)]) < rate ? 0.f : x[t * ldx + j] * keep;
          y[t * ldy + j] = beta == 0.f ? kept : y[t * ldy + j] + kept;
        }
      }
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
