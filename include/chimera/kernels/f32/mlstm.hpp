// xLSTM's matrix memory in chunks (Beck et al., 2405.04517, section 2.3; in the chunkwise form of 2503.13427, with its
// soft caps): inside a chunk it is a masked product of matrices, between chunks one state is passed on.
//
//   m_t = max(ln f_t + m_{t-1}, i_t),   C_t = e^{ln f_t + m_{t-1} - m_t} C_{t-1} + e^{i_t - m_t} k_t v_t^T,  n_t likewise
//   of k_t alone;   h_t = C_t^T q_t / N_t,   N_t = max(|n_t . q_t|, e^{-m_t}) + 1e-6,   q scaled by 1 / sqrt(channels)
//   in a chunk, F_t = sum_{s <= t} ln f_s,  a_s = i_s - F_s,  M_t = max(m_0, max_{s <= t} a_s) = m_t - F_t:
//   W_ts = e^{a_s - M_t} for s <= t,  r_t = e^{m_0 - M_t}:   h_t = (sum_s W_ts (q_t . k_s) v_s + r_t C_0^T q_t) / N_t
//
// What is not seen of documents before is masked, and m starts again at 0, so that N_t is that of a fresh run. Backward
// takes m as a constant: h depends on it through the 1e-6 alone.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/norm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace chimera {

/// One token's row of `qkvo`: q and k [heads, qk], v and the output gate o [heads, v]. One token's gates: i [heads],
/// f [heads].
struct MlstmShape {
  std::int64_t heads, qk, v, chunk;

  constexpr std::int64_t inner() const { return heads * v; }
  constexpr std::int64_t row() const { return 2 * heads * (qk + v); }
  constexpr std::int64_t keys() const { return heads * qk; }
  constexpr std::int64_t values() const { return 2 * heads * qk; }
  constexpr std::int64_t output_gate() const { return 2 * heads * qk + inner(); }
  constexpr std::int64_t matrix() const { return qk * v; }
  /// A head's state: C [qk, v], n [qk], m.
  constexpr std::int64_t state() const {
    return static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(matrix() + qk + 1)));
  }
  constexpr std::int64_t chunks(std::int64_t length) const { return (length + chunk - 1) / chunk; }
  float scale() const { return 1.f / std::sqrt(static_cast<float>(qk)); }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace mlstm_parts {

inline constexpr float denominator_eps = 1e-6f;

/// Numbers of which differences are taken, as large as a sum over a chunk: each a float and what it leaves out.
template <std::int64_t most>
struct Exact {
  float rounded[most], rest[most];

  void set(std::int64_t t, double x) {
    rounded[t] = static_cast<float>(x);
    rest[t] = static_cast<float>(x - double{rounded[t]});
  }
};

/// Exponents of one head over one chunk, and what documents cut off.
struct Decay {
  static constexpr std::int64_t max_chunk = 128;

  std::int64_t first = 0, n = 0;  // tokens first .. first + n - 1 of the row
  Exact<max_chunk> a;             // a_s
  Exact<max_chunk> top;           // M_t
  float seen[max_chunk];          // r_t where the state passed in is seen, else 0
  float least[max_chunk];         // e^{-m_t}: below it |n . q| counts for nothing
  float kept[max_chunk];          // e^{a_s - M_last} where the state passed on sees s, else 0
  float total = 0;                // r_last
  float m = 0;                    // of the state passed on
  std::int64_t from[max_chunk];   // first token of the chunk that t sees, relative to the chunk

  /// gates [B,T,2 heads]: i and ln f. `before`: m of the state passed in.
  Decay(const MlstmShape& s, const Batch& batch, std::int64_t b, std::int64_t chunk, const float* gates, std::int64_t h,
        float before)
      : first(chunk * s.chunk), n(std::min(s.chunk, batch.length - first)) {
    const std::int32_t* start = batch.document_start ? batch.document_start + b * batch.length : nullptr;
    const float* gate = gates + (b * batch.length + first) * 2 * s.heads + h;
    const std::int64_t newest = std::max<std::int64_t>(first - 1, 0);  // token in the state passed in
    double sum = 0, most = double{before}, exponents[max_chunk];
    for (std::int64_t t = 0; t < n; ++t, gate += 2 * s.heads) {
      const std::int64_t begin = start ? start[first + t] : 0;
      if (begin > newest && begin == first + t) sum = most = 0;
      sum += double{gate[s.heads]};
      exponents[t] = double{gate[0]} - sum;
      most = std::max(most, exponents[t]);
      a.set(t, exponents[t]), top.set(t, most);
      seen[t] = begin <= newest ? std::exp(static_cast<float>(double{before} - most)) : 0.f;
      m = static_cast<float>(sum + most);
      least[t] = std::exp(-m);
      from[t] = std::max<std::int64_t>(0, begin - first);
    }
    for (std::int64_t t = 0; t < n; ++t)
      kept[t] = t >= from[n - 1] ? std::exp(static_cast<float>(exponents[t] - most)) : 0.f;
    total = seen[n - 1];
  }
};

}  // namespace mlstm_parts

/// What forward keeps for backward, in floats: the states that chunks start from, and n_t . q_t.
constexpr std::int64_t mlstm_states(const MlstmShape& s, const Batch& b) {
  return b.sequences * s.heads * s.chunks(b.length) * s.state();
}

/// Bytes of a worker's scratch, of backward, which uses more.
constexpr std::int64_t mlstm_scratch_bytes(const MlstmShape& s) {
  const std::int64_t square = s.chunk * s.chunk, keys = s.chunk * s.qk;
  return bytes_of({gemm_scratch_floats, square, square, keys, keys, s.chunk, s.qk});
}

/// raw [rows, 2 heads], products without biases; gates [rows, 2 heads]: i = cap tanh((raw + bias) / cap) and ln f, the
/// logarithm of the sigmoid of the same of f.
void mlstm_gates(const Cpu& q, std::int64_t rows, std::int64_t heads, float cap, const float* raw,
                 const float* input_bias, const float* forget_bias, float* gates);

/// d: the gradient of gates, which becomes that of raw; dinput_bias and dforget_bias [heads] +=.
void mlstm_gates_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, float cap, const float* raw,
                          const float* input_bias, const float* forget_bias, float* d, float* dinput_bias,
                          float* dforget_bias);

/// qkvo [B,T,row], gates [B,T,2 heads]: i and ln f -> h [B,T,heads,v].
/// states [B,heads,chunks,state]: the state each chunk starts from; dots [B,T,heads]: n_t . q_t. initial and last
/// [B,heads,state] may be null (a zero start, nobody asks); they may be the same memory. Without a backward pass to
/// come, states and dots may be null: forward then works in `last`.
void mlstm(const Cpu& q, const MlstmShape& s, const Batch& batch, const float* qkvo, const float* gates,
           const float* initial, float* h, float* states, float* dots, float* last);

/// Gradients of `mlstm`: of q, k and v in dqkvo [B,T,row] =, dgates [B,T,2 heads] =.
struct MlstmGradients {
  float* dqkvo;
  float* dgates;
  const float* dlast = nullptr;  // of C and n of the last state [B,heads,state], null: zero
  float* dinitial = nullptr;     // =, likewise, if asked for
};

/// Bytes of `temp`.
std::int64_t mlstm_backward_bytes(const MlstmShape& s, const Batch& b);

void mlstm_backward(const Cpu& q, const MlstmShape& s, const Batch& batch, const float* qkvo, const float* gates,
                    const float* states, const float* dots, const float* h, const float* dh, const MlstmGradients& out,
                    Bump temp);

/// One token: qkvo [row], gates [2 heads], S [heads,state] updated in place, h [heads,v]. The recurrence itself, and so
/// the reference of `mlstm`.
void mlstm_step(const Cpu& q, const MlstmShape& s, const float* qkvo, const float* gates, float* S, float* h);

/// y = sigmoid(o) w (h - mean) / sqrt(variance + eps), mean and variance those of each head; h, y [rows, inner], o in
/// qkvo, w [inner]. y may be h.
void mlstm_norm(const Cpu& q, const MlstmShape& s, std::int64_t rows, float eps, const float* h, const float* qkvo,
                const float* w, float* y);

std::int64_t mlstm_norm_backward_bytes(const MlstmShape& s, std::int64_t rows);

/// d: the gradient of y, which becomes that of h. That of o is written to dqkvo; dw +=.
void mlstm_norm_backward(const Cpu& q, const MlstmShape& s, std::int64_t rows, float eps, const float* h,
                         const float* qkvo, const float* w, float* d, float* dqkvo, float* dw, Bump temp);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace mlstm_parts {

struct Gates {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t heads, float cap, const float* raw, const float* input_bias,
                                 const float* forget_bias, float* gates) {
    const auto capped = [=](const Vec<W>& x) CHIMERA_LAMBDA { return Vec<W>(cap) * tanh<W>(x * Vec<W>(1.f / cap)); };
    lanes<W>(heads, [=](std::int64_t h, auto io) CHIMERA_LAMBDA {
      io.store(gates + h, capped(io.load(raw + h) + io.load(input_bias + h)));
      const Vec<W> f = capped(io.load(raw + heads + h) + io.load(forget_bias + h));
      io.store(gates + heads + h, -softplus<W>(-f));
    });
  }
};

struct GatesBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t heads, float cap, const float* raw, const float* input_bias,
                                 const float* forget_bias, float* d) {
    const Vec<W> one(1.f);
    lanes<W>(heads, [=](std::int64_t h, auto io) CHIMERA_LAMBDA {
      const Vec<W> i = tanh<W>((io.load(raw + h) + io.load(input_bias + h)) * Vec<W>(1.f / cap));
      const Vec<W> f = tanh<W>((io.load(raw + heads + h) + io.load(forget_bias + h)) * Vec<W>(1.f / cap));
      io.store(d + h, io.load(d + h) * (one - i * i));
      io.store(d + heads + h, io.load(d + heads + h) * sigmoid<W>(Vec<W>(-cap) * f) * (one - f * f));
    });
  }
};

/// W_ts for a vector of s.
template <int W, class Io>
CHIMERA_INLINE Vec<W> weights(const Decay& d, std::int64_t t, std::int64_t s, Io io) {
  const Vec<W> rounded = io.load(d.a.rounded + s) - Vec<W>(d.top.rounded[t]),
               rest = io.load(d.a.rest + s) - Vec<W>(d.top.rest[t]);
  return exp<W>(rounded + rest);
}

/// The rows of S = q k^T become W S / N; `dots` holds r_t n_0 . q_t and becomes n_t . q_t, and `seen` r_t / N_t.
struct Weigh {
  template <int W>
  CHIMERA_INLINE static void run(const Decay* d, std::int64_t stride, float* s, float* dots, float* seen) {
    for (std::int64_t t = 0; t < d->n; ++t, s += stride) {
      const std::int64_t from = d->from[t], count = t + 1 - from;
      float* row = s + from;
      Vec<W> all;
      std::fill(s, row, 0.f);
      std::fill(s + t + 1, s + d->n, 0.f);
      lanes<W>(count, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> p = weights<W>(*d, t, from + i, io) * io.load(row + i);
        io.store(row + i, p);
        all += p;  // lanes behind the row's end are 0
      });
      dots[t] += sum<W>(all);
      const float inverse = 1.f / (std::max(std::fabs(dots[t]), d->least[t]) + denominator_eps);
      seen[t] = d->seen[t] * inverse;
      lanes<W>(count,
               [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(row + i, io.load(row + i) * Vec<W>(inverse)); });
    }
  }
};

/// Of backward: the rows of S = q k^T become P = W S / N, those of g = dh v^T the gradient of S, and the exponents'
/// grow: `in` those of i_s - F_s, `out` those of F_t.
struct WeighBackward {
  template <int W>
  CHIMERA_INLINE static void run(const Decay* d, std::int64_t stride, const float* inverse, const float* ddot, float* s,
                                 float* g, float* in, float* out) {
    for (std::int64_t t = 0; t < d->n; ++t, s += stride, g += stride) {
      const std::int64_t from = d->from[t];
      float *row = s + from, *grow = g + from, *in_row = in + from;
      const Vec<W> over_n(inverse[t]), of_dot(ddot[t]);
      Vec<W> all;
      std::fill(s, row, 0.f);
      std::fill(s + t + 1, s + d->n, 0.f);
      std::fill(g, grow, 0.f);
      std::fill(g + t + 1, g + d->n, 0.f);
      lanes<W>(t + 1 - from, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> w = weights<W>(*d, t, from + i, io) * over_n, p = w * io.load(row + i);
        const Vec<W> dp = io.load(grow + i) + of_dot, e = dp * p;
        io.store(row + i, p);
        io.store(grow + i, dp * w);
        io.store(in_row + i, io.load(in_row + i) + e);
        all += e;
      });
      out[t] += sum<W>(all);
    }
  }
};

/// y += the rows of x[rows, n], each times its own weight.
struct AddWeighted {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, const float* weights, const float* x,
                                 std::int64_t stride, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      Vec<W> all = io.load(y + i);
      for (std::int64_t r = 0; r < rows; ++r) all = fma<W>(Vec<W>(weights[r]), io.load(x + r * stride + i), all);
      io.store(y + i, all);
    });
  }
};

/// y = the rows of x[rows, n], each times its own weight.
struct Weighted {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float scale, const float* weights, const float* x,
                                 std::int64_t stride, float* y) {
    for (std::int64_t r = 0; r < rows; ++r, x += stride, y += n)
      lanes<W>(n, [=](std::int64_t i, auto io)
                      CHIMERA_LAMBDA { io.store(y + i, io.load(x + i) * Vec<W>(scale * weights[r])); });
  }
};

/// One token of one head, with f' and i' of the recurrence: C [qk, v] and n in place, h [v]. Four rows of C go together:
/// they share what is loaded of v and h.
struct Step {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t qk, std::int64_t v, float f, float i, float scale, float least,
                                 const float* q, const float* k, const float* value, float* C, float* n, float* h) {
    Vec<W> dots;
    lanes<W>(qk, [&](std::int64_t c, auto io) CHIMERA_LAMBDA {
      const Vec<W> next = fma<W>(Vec<W>(i), io.load(k + c), io.load(n + c) * Vec<W>(f));
      io.store(n + c, next);
      dots = fma<W>(next, io.load(q + c), dots);
    });
    const float inverse = scale / (std::max(std::fabs(scale * sum<W>(dots)), least) + denominator_eps);
    std::fill(h, h + v, 0.f);
    std::int64_t c = 0;
    for (; c + 4 <= qk; c += 4) rows<W, 4>(v, f, i, inverse, q + c, k + c, value, C + c * v, h);
    for (; c < qk; ++c) rows<W, 1>(v, f, i, inverse, q + c, k + c, value, C + c * v, h);
  }

 private:
  /// Floats: how far ahead C is fetched, of this head or the next.
  static constexpr int ahead = 1024;

  template <int W, int count>
  CHIMERA_INLINE static void rows(std::int64_t v, float f, float i, float inverse, const float* q, const float* k,
                                  const float* value, float* C, float* h) {
    const Vec<W> decay(f);
    Vec<W> in[count], out[count];
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) in[r] = Vec<W>(i * k[r]), out[r] = Vec<W>(inverse * q[r]);
    lanes<W>(v, [&](std::int64_t j, auto io) CHIMERA_LAMBDA {
      const Vec<W> x = io.load(value + j);
      Vec<W> y = io.load(h + j);
#pragma GCC unroll 4
      for (int r = 0; r < count; ++r) {
        __builtin_prefetch(C + r * v + j + ahead);
        const Vec<W> next = fma<W>(in[r], x, io.load(C + r * v + j) * decay);
        io.store(C + r * v + j, next);
        y = fma<W>(out[r], next, y);
      }
      io.store(h + j, y);
    });
  }
};

/// As `Step`, from the gates.
inline void step(Isa isa, const MlstmShape& s, const float* q, const float* k, const float* v, float i, float log_f,
                 float* state, float* h) {
  float* n = state + s.matrix();
  float& m = n[s.qk];
  const float before = m;
  m = std::max(log_f + before, i);
  dispatch<Step>(isa, s.qk, s.v, std::exp(log_f + before - m), std::exp(i - m), s.scale(), std::exp(-m), q, k, v, state,
                 n, h);
}

/// One head of one token.
struct Norm {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float eps, const float* h, const float* o, const float* w, float* y) {
    const auto [mean, inverse] = statistics<W>(n, eps, h);
    const Vec<W> shift(mean), scale(inverse);
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(y + i, (io.load(h + i) - shift) * scale * io.load(w + i) * sigmoid<W>(io.load(o + i)));
    });
  }

  struct Statistics {
    float mean, inverse;
  };
  template <int W>
  CHIMERA_INLINE static Statistics statistics(std::int64_t n, float eps, const float* h) {
    const float count = static_cast<float>(n);
    Vec<W> all, squares;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA { all += io.load(h + i); });
    const float mean = sum<W>(all) / count;
    std::int64_t i = 0;
    for (; i + W <= n; i += W) {
      const Vec<W> x = Vec<W>::load(h + i) - Vec<W>(mean);
      squares = fma<W>(x, x, squares);
    }
    float rest = 0;
    for (; i < n; ++i) rest += (h[i] - mean) * (h[i] - mean);
    return {mean, 1.f / std::sqrt((sum<W>(squares) + rest) / count + eps)};
  }
};

/// With x = (h - mean) r, r = 1 / sqrt(variance + eps), s = sigmoid(o):  g = dy s w,  dh = r (g - mean(g) - x mean(g x)),
/// do = dy w x s (1 - s),  dw += dy s x.
struct NormBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float eps, const float* h, const float* o, const float* w, float* d,
                                 float* dout, float* dw) {
    const auto [mean, inverse] = Norm::statistics<W>(n, eps, h);
    const Vec<W> shift(mean), scale(inverse), one(1.f);
    Vec<W> all, products;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> x = (io.load(h + i) - shift) * scale, s = sigmoid<W>(io.load(o + i)), dy = io.load(d + i);
      const Vec<W> g = dy * s * io.load(w + i);
      io.store(dout + i, g * x * (one - s));
      io.store(dw + i, fma<W>(dy * s, x, io.load(dw + i)));
      io.store(d + i, g);
      all += g;  // lanes behind the end are 0: dy is
      products = fma<W>(g, x, products);
    });
    const float count = static_cast<float>(n);
    const Vec<W> of_mean(sum<W>(all) / count), of_x(sum<W>(products) / count);
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> x = (io.load(h + i) - shift) * scale;
      io.store(d + i, scale * (io.load(d + i) - of_mean - x * of_x));
    });
  }
};

}  // namespace mlstm_parts

CHIMERA_FUNCTION void mlstm_gates(const Cpu& q, std::int64_t rows, std::int64_t heads, float cap, const float* raw,
                                  const float* input_bias, const float* forget_bias, float* gates) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t at = first * 2 * heads; at < (first + n) * 2 * heads; at += 2 * heads)
      dispatch<mlstm_parts::Gates>(q.isa(), heads, cap, raw + at, input_bias, forget_bias, gates + at);
  });
}

CHIMERA_FUNCTION void mlstm_gates_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, float cap,
                                           const float* raw, const float* input_bias, const float* forget_bias,
                                           float* d, float* dinput_bias, float* dforget_bias) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t at = first * 2 * heads; at < (first + n) * 2 * heads; at += 2 * heads)
      dispatch<mlstm_parts::GatesBackward>(q.isa(), heads, cap, raw + at, input_bias, forget_bias, d + at);
  });
  sum_rows(q, rows, 2 * heads, heads, d, dinput_bias);
  sum_rows(q, rows, 2 * heads, heads, d + heads, dforget_bias);
}

CHIMERA_FUNCTION void mlstm(const Cpu& q, const MlstmShape& s, const Batch& batch, const float* qkvo,
                            const float* gates, const float* initial, float* h, float* states, float* dots,
                            float* last) {
  using namespace mlstm_parts;
  const std::int64_t T = batch.length, K = s.qk, V = s.v, Q = s.chunk, chunks = s.chunks(T), row = s.row();
  parallel(q, batch.sequences * s.heads, [&](std::int64_t index, int worker) {
    const std::int64_t head = index % s.heads, b = index / s.heads;
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* p = memory.take(Q * Q);
    float* u = memory.take(Q * K);
    float dot[Decay::max_chunk], seen[Decay::max_chunk];
    const std::int64_t kept = states ? s.state() : 0;  // from one chunk's state to the next
    float* state = states ? states + index * chunks * kept : last + index * s.state();
    const float* start = initial ? initial + index * s.state() : nullptr;
    if (!start)
      std::fill(state, state + s.state(), 0.f);
    else if (start != state)
      std::copy(start, start + s.state(), state);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk, state += kept) {
      const Decay decay(s, batch, b, chunk, gates, head, state[s.matrix() + K]);
      const std::int64_t n = decay.n, at = b * T + decay.first;
      const float* rows = qkvo + at * row;
      const ConstView queries = row_major(rows + head * K, row), keys = row_major(rows + s.keys() + head * K, row);
      const ConstView values = row_major(rows + s.values() + head * V, row);
      float* out = h + at * s.inner() + head * V;
      gemm_serial(q.isa(), scratch, n, n, K, s.scale(), queries, keys.transpose(), 0.f, p, Q);
      gemm_serial(q.isa(), scratch, n, 1, K, s.scale(), queries, transposed(state + s.matrix(), K), 0.f, dot, 1);
      for (std::int64_t t = 0; t < n; ++t) dot[t] *= decay.seen[t];
      dispatch<Weigh>(q.isa(), &decay, Q, p, dot, seen);
      for (std::int64_t t = 0; dots && t < n; ++t) dots[(at + t) * s.heads + head] = dot[t];
      gemm_serial(q.isa(), scratch, n, V, n, 1.f, row_major(p, Q), values, 0.f, out, s.inner());
      dispatch<Weighted>(q.isa(), n, K, s.scale(), seen, queries.p, row, u);
      gemm_serial(q.isa(), scratch, n, V, K, 1.f, row_major(u, K), row_major(state, V), 1.f, out, s.inner());
      const bool end = chunk + 1 == chunks;
      if (end && !last) break;
      float* next = end ? last + index * s.state() : state + kept;
      if (next != state) std::copy(state, state + s.state(), next);
      dispatch<Weighted>(q.isa(), n, K, 1.f, decay.kept, keys.p, row, u);
      gemm_serial(q.isa(), scratch, K, V, n, 1.f, transposed(u, K), values, decay.total, next, V);
      dispatch<Scaled>(q.isa(), K, decay.total, next + s.matrix(), next + s.matrix());
      dispatch<AddWeighted>(q.isa(), n, K, decay.kept, keys.p, row, next + s.matrix());
      next[s.matrix() + K] = decay.m;
    }
  });
}

CHIMERA_FUNCTION std::int64_t mlstm_backward_bytes(const MlstmShape& s, const Batch& b) {
  return bytes_of({b.sequences * s.heads * s.state()});
}

CHIMERA_FUNCTION void mlstm_backward(const Cpu& q, const MlstmShape& s, const Batch& batch, const float* qkvo,
                                     const float* gates, const float* states, const float* dots, const float* h,
                                     const float* dh, const MlstmGradients& out, Bump temp) {
  using namespace mlstm_parts;
  const std::int64_t T = batch.length, K = s.qk, V = s.v, Q = s.chunk, chunks = s.chunks(T), row = s.row();
  const std::int64_t all = batch.sequences * s.heads * s.state();
  float* dstates = temp.take(all);  // of C and n of the state after the chunk at hand
  parallel(q, batch.sequences * s.heads, [&](std::int64_t index, int worker) {
    const std::int64_t head = index % s.heads, b = index / s.heads;
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* p = memory.take(Q * Q);
    float* g = memory.take(Q * Q);
    float* u = memory.take(Q * K);
    float* w = memory.take(Q * K);
    float inverse[Decay::max_chunk], ddot[Decay::max_chunk], seen[Decay::max_chunk];
    float* dC = dstates + index * s.state();
    float* dn = dC + s.matrix();
    if (out.dlast)
      std::copy(out.dlast + index * s.state(), out.dlast + (index + 1) * s.state(), dC);
    else
      std::fill(dC, dC + s.state(), 0.f);
    for (std::int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const float* C = states + (index * chunks + chunk) * s.state();
      const float* before = C + s.matrix();  // n, m
      const Decay decay(s, batch, b, chunk, gates, head, before[K]);
      const std::int64_t n = decay.n, at = b * T + decay.first;
      const float* rows = qkvo + at * row;
      const ConstView queries = row_major(rows + head * K, row), keys = row_major(rows + s.keys() + head * K, row);
      const ConstView values = row_major(rows + s.values() + head * V, row);
      const ConstView dhs = row_major(dh + at * s.inner() + head * V, s.inner());
      float* dq = out.dqkvo + at * row + head * K;
      float* dk = dq + s.keys();
      float* dv = out.dqkvo + at * row + s.values() + head * V;
      float din[Decay::max_chunk] = {}, dsum[Decay::max_chunk] = {};  // of i_s - F_s and of F_t
      for (std::int64_t t = 0; t < n; ++t) {
        const float dot_t = dots[(at + t) * s.heads + head], magnitude = std::fabs(dot_t);
        inverse[t] = 1.f / (std::max(magnitude, decay.least[t]) + denominator_eps);
        const float dN = -dot(q.isa(), V, dhs.p + t * s.inner(), h + (at + t) * s.inner() + head * V);  // times N
        ddot[t] = magnitude > decay.least[t] ? std::copysign(1.f, dot_t) * dN : 0.f;
        seen[t] = decay.seen[t] * inverse[t];
      }
      gemm_serial(q.isa(), scratch, n, n, K, s.scale(), queries, keys.transpose(), 0.f, p, Q);
      gemm_serial(q.isa(), scratch, n, n, V, 1.f, dhs, values.transpose(), 0.f, g, Q);
      dispatch<WeighBackward>(q.isa(), &decay, Q, inverse, ddot, p, g, din, dsum);
      gemm_serial(q.isa(), scratch, n, V, n, 1.f, transposed(p, Q), dhs, 0.f, dv, row);
      gemm_serial(q.isa(), scratch, n, K, n, s.scale(), row_major(g, Q), keys, 0.f, dq, row);
      gemm_serial(q.isa(), scratch, n, K, n, s.scale(), transposed(g, Q), queries, 0.f, dk, row);

      // What the state passed in gave to h, and what the chunk gave to the state passed on.
      gemm_serial(q.isa(), scratch, n, K, V, 1.f, dhs, transposed(C, V), 0.f, u, K);
      gemm_serial(q.isa(), scratch, n, K, V, 1.f, values, transposed(dC, V), 0.f, w, K);
      float passed_on = decay.total * (dot(q.isa(), s.matrix(), dC, C) + dot(q.isa(), K, dn, before));
      for (std::int64_t t = 0; t < n; ++t) {
        const float share = seen[t] * s.scale();
        dispatch<AddScaled>(q.isa(), K, ddot[t], before, u + t * K);
        dispatch<AddScaled>(q.isa(), K, 1.f, dn, w + t * K);
        dsum[t] += share * dot(q.isa(), K, queries.p + t * row, u + t * K);
        dispatch<AddScaled>(q.isa(), K, share, u + t * K, dq + t * row);
        const float given = decay.kept[t] * dot(q.isa(), K, keys.p + t * row, w + t * K);
        din[t] += given;
        passed_on += given;
        dispatch<AddScaled>(q.isa(), K, decay.kept[t], w + t * K, dk + t * row);
      }
      dispatch<Weighted>(q.isa(), n, K, 1.f, decay.kept, keys.p, row, w);
      gemm_serial(q.isa(), scratch, n, V, K, 1.f, row_major(w, K), row_major(dC, V), 1.f, dv, row);
      dispatch<Weighted>(q.isa(), n, K, s.scale(), seen, queries.p, row, u);
      gemm_serial(q.isa(), scratch, K, V, n, 1.f, transposed(u, K), dhs, decay.total, dC, V);
      dispatch<Scaled>(q.isa(), K, decay.total, dn, dn);
      dispatch<AddWeighted>(q.isa(), n, K, ddot, u, K, dn);

      float* dgates = out.dgates + at * 2 * s.heads + head;
      dsum[n - 1] += passed_on;
      float later = 0;  // of F, by all tokens from t on that see t
      for (std::int64_t t = n - 1; t >= 0; --t) {
        later += dsum[t] - din[t];
        dgates[t * 2 * s.heads] = din[t];
        dgates[t * 2 * s.heads + s.heads] = later;
        if (decay.from[t] == t) later = 0;
      }
    }
  });
  if (out.dinitial) std::copy(dstates, dstates + all, out.dinitial);
}

CHIMERA_FUNCTION void mlstm_step(const Cpu& q, const MlstmShape& s, const float* qkvo, const float* gates, float* S,
                                 float* h) {
  parallel(q, s.heads, [&](std::int64_t head, int) {
    mlstm_parts::step(q.isa(), s, qkvo + head * s.qk, qkvo + s.keys() + head * s.qk, qkvo + s.values() + head * s.v,
                      gates[head], gates[s.heads + head], S + head * s.state(), h + head * s.v);
  });
}

CHIMERA_FUNCTION void mlstm_norm(const Cpu& q, const MlstmShape& s, std::int64_t rows, float eps, const float* h,
                                 const float* qkvo, const float* w, float* y) {
  parallel_rows(q, rows, 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t)
      for (std::int64_t at = 0; at < s.inner(); at += s.v)
        dispatch<mlstm_parts::Norm>(q.isa(), s.v, eps, h + t * s.inner() + at,
                                    qkvo + t * s.row() + s.output_gate() + at, w + at, y + t * s.inner() + at);
  });
}

CHIMERA_FUNCTION std::int64_t mlstm_norm_backward_bytes(const MlstmShape& s, std::int64_t rows) {
  return norm_backward_bytes(rows, s.inner());
}

CHIMERA_FUNCTION void mlstm_norm_backward(const Cpu& q, const MlstmShape& s, std::int64_t rows, float eps,
                                          const float* h, const float* qkvo, const float* w, float* d, float* dqkvo,
                                          float* dw, Bump temp) {
  const std::int64_t inner = s.inner();
  const float* partial = norm_sums(q, rows, inner, temp, [&](std::int64_t first, std::int64_t n, float* sums) {
    for (std::int64_t t = first; t < first + n; ++t)
      for (std::int64_t at = 0; at < inner; at += s.v) {
        const std::int64_t gate = t * s.row() + s.output_gate() + at;
        dispatch<mlstm_parts::NormBackward>(q.isa(), s.v, eps, h + t * inner + at, qkvo + gate, w + at,
                                            d + t * inner + at, dqkvo + gate, sums + at);
      }
  });
  sum_rows(q, norm_blocks(rows), inner, inner, partial, dw);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
