// Mamba-2's scan in chunks: inside a chunk it is a masked product of matrices, between chunks one state is passed on
// (Dao and Gu, "Transformers are SSMs", 2405.21060, section 6 and listing 1).
//
//   S_t = a_t S_{t-1} + D_t x_t B_t^T,   y_t = S_t C_t + D x_t,   a_t = exp(D_t A),   D_t the step size `dt`
//   in a chunk, c_t = sum_{s <= t} D_s A:   M_ts = (C_t . B_s) exp(c_t - c_s) D_s for s <= t,
//   y = M x + e^{c_t} S C_t + D x
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace chimera {

/// One token's row of `xbc`: x [heads, head_dim], B [groups, state], C [groups, state]. Head h reads group
/// h / per_group.
struct SsdShape {
  std::int64_t heads, head_dim, state, groups, chunk;

  constexpr std::int64_t inner() const { return heads * head_dim; }
  constexpr std::int64_t row() const { return inner() + 2 * groups * state; }
  constexpr std::int64_t per_group() const { return heads / groups; }
  constexpr std::int64_t b(std::int64_t group) const { return inner() + group * state; }
  constexpr std::int64_t c(std::int64_t group) const { return inner() + (groups + group) * state; }
  constexpr std::int64_t matrix() const { return head_dim * state; }
  constexpr std::int64_t chunks(std::int64_t length) const { return (length + chunk - 1) / chunk; }
  /// Heads whose gradients of B and C are added one after the other, by one task.
  constexpr std::int64_t head_block() const { return std::max<std::int64_t>(1, per_group() / 4); }
  constexpr std::int64_t head_blocks() const { return (per_group() + head_block() - 1) / head_block(); }
};

/// Gradients of `ssd`: dxbc [B,T,row] =, ddt [B,T,heads] =, dA and dD [heads] +=.
struct SsdGradients {
  float* dxbc;
  float* ddt;
  float* dA;
  float* dD;
  const float* dlast = nullptr;  // of the last state, null: zero
  float* dinitial = nullptr;     // =, if asked for
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace ssd_parts {

/// Decays of one head over one chunk, and what documents cut off.
struct Decay {
  static constexpr std::int64_t max_chunk = 128;

  std::int64_t first = 0, n = 0;  // tokens first .. first + n - 1 of the row
  float c[max_chunk];             // c_t
  float in[max_chunk];            // e^{c_t} where the state passed in is seen, else 0
  float out[max_chunk];           // e^{c_last - c_s} where the state passed on sees s, else 0
  float total = 0;                // e^{c_last} where the state passed on sees the one passed in, else 0
  std::int64_t from[max_chunk];   // first token of the chunk that t sees, relative to the chunk

  Decay(const SsdShape& s, const Batch& batch, std::int64_t b, std::int64_t chunk, const float* dt, float A,
        std::int64_t h)
      : first(chunk * s.chunk), n(std::min(s.chunk, batch.length - first)) {
    const std::int32_t* start = batch.document_start ? batch.document_start + b * batch.length : nullptr;
    const std::int64_t before = std::max<std::int64_t>(first - 1, 0);  // the newest token in the state passed in
    float sum = 0;
    for (std::int64_t t = 0; t < n; ++t) {
      sum += dt[(b * batch.length + first + t) * s.heads + h] * A;
      c[t] = sum;
      const std::int64_t begin = start ? start[first + t] : 0;
      in[t] = begin <= before ? std::exp(sum) : 0.f;
      from[t] = std::max<std::int64_t>(0, begin - first);
    }
    for (std::int64_t t = 0; t < n; ++t) out[t] = t >= from[n - 1] ? std::exp(sum - c[t]) : 0.f;
    total = in[n - 1];
  }
};

}  // namespace ssd_parts

/// What forward keeps for backward, in floats.
constexpr std::int64_t ssd_states(const SsdShape& s, const Batch& b) {
  return b.sequences * s.heads * s.chunks(b.length) * s.matrix();
}

constexpr std::int64_t ssd_products(const SsdShape& s, const Batch& b) {
  return b.sequences * s.groups * s.chunks(b.length) * s.chunk * s.chunk;
}

/// Bytes of a worker's scratch, of backward, which uses more.
constexpr std::int64_t ssd_scratch_bytes(const SsdShape& s) {
  const std::int64_t square = s.chunk * s.chunk, tokens = s.chunk * s.head_dim;
  return bytes_of({gemm_scratch_floats, square, square, tokens, tokens});
}

/// a = -exp(a_log)
void decay_rate(const Cpu&, std::int64_t n, const float* a_log, float* a);

/// da_log += a da
void decay_rate_backward(const Cpu&, std::int64_t n, const float* a, const float* da, float* da_log);

/// xbc [B,T,row], dt [B,T,heads] > 0, A [heads] < 0, D [heads] -> y [B,T,heads,head_dim].
/// states [B,heads,chunks,head_dim,state]: the state each chunk starts from; products [B,groups,chunks,Q,Q]: C B^T.
/// initial and last [B,heads,head_dim,state] may be null (a zero start, nobody asks); they may be the same memory.
/// Without a backward pass to come, states may be null: the scan then works in `last`.
void ssd(const Cpu& q, const SsdShape& s, const Batch& batch, const float* xbc, const float* dt, const float* A,
         const float* D, const float* initial, float* y, float* states, float* products, float* last);

/// Bytes of `temp`.
std::int64_t ssd_backward_bytes(const SsdShape& s, const Batch& b);

void ssd_backward(const Cpu& q, const SsdShape& s, const Batch& batch, const float* xbc, const float* dt,
                  const float* A, const float* D, const float* states, const float* products, const float* dy,
                  const SsdGradients& out, Bump temp);

/// One token: xbc [row], dt [heads], S [heads,head_dim,state] updated in place, y [heads,head_dim]. The recurrence
/// itself, and so the reference of `ssd`.
void ssd_step(const Cpu& q, const SsdShape& s, const float* xbc, const float* dt, const float* A, const float* D,
              float* S, float* y);

void ssd_step_size(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw, std::int64_t raw_stride,
                   const float* bias, float low, float high, float* dt);

void ssd_step_size_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw,
                            std::int64_t raw_stride, const float* bias, float low, float high, const float* ddt,
                            float* draw, float* dbias);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace ssd_parts {

/// Row t of M from row t of C B^T.
struct SsdRow {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t from, std::int64_t t, std::int64_t n, const float* c, const float* dt,
                                 const float* cb, float* m) {
    std::fill(m, m + n, 0.f);
    lanes<W>(t + 1 - from, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> e = exp<W>(Vec<W>(c[t]) - io.load(c + from + i));
      io.store(m + from + i, io.load(cb + from + i) * e * io.load(dt + from + i));
    });
  }
};

/// Row t of the backward pass: dm becomes M, and the sums it feeds grow.
struct SsdRowBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t from, std::int64_t t, std::int64_t n, const float* c, const float* dt,
                                 const float* cb, float* dm, float* dcb, float* dc, float* ddt) {
    Vec<W> row;
    lanes<W>(t + 1 - from, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const std::int64_t s = from + i;
      const Vec<W> step = io.load(dt + s), e = exp<W>(Vec<W>(c[t]) - io.load(c + s));
      const Vec<W> d = io.load(dm + s), de = d * e, g = de * io.load(cb + s);
      io.store(ddt + s, io.load(ddt + s) + g);
      io.store(dcb + s, fma<W>(de, step, io.load(dcb + s)));
      io.store(dc + s, io.load(dc + s) - g * step);
      io.store(dm + s, io.load(cb + s) * e * step);
      row = fma<W>(g, step, row);
    });
    std::fill(dm, dm + from, 0.f);
    std::fill(dm + t + 1, dm + n, 0.f);
    dc[t] += sum<W>(row);
  }
};

/// y_t += a u_t + b v_t
struct AddTwo {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float a, const float* u, float b, const float* v, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(y + i, fma<W>(Vec<W>(a), io.load(u + i), fma<W>(Vec<W>(b), io.load(v + i), io.load(y + i))));
    });
  }
};

/// One token of one head: S [P,N] in place and y [P], gated by silu(z) unless z is null. Two rows of S go together:
/// they share what is loaded of B and C, and more would leave the order in which memory is fetched fast.
struct SsdStep {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t P, std::int64_t N, float a, float dt, const float* x, const float* B,
                                 const float* C, float D, const float* z, float* S, float* y) {
    std::int64_t p = 0;
    for (; p + 2 <= P; p += 2) rows<W, 2>(N, a, dt, x + p, B, C, S + p * N, y + p);
    if (p < P) rows<W, 1>(N, a, dt, x + p, B, C, S + p * N, y + p);
    lanes<W>(P, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> all = fma<W>(Vec<W>(D), io.load(x + i), io.load(y + i));
      io.store(y + i, z ? all * silu<W>(io.load(z + i)) : all);
    });
  }

 private:
  /// Floats: how far ahead S is fetched, of this head or the next. Without it Zen 3 reads at less than half its speed.
  static constexpr int ahead = 1024;

  template <int W, int count>
  CHIMERA_INLINE static void rows(std::int64_t N, float a, float dt, const float* x, const float* B, const float* C,
                                  float* S, float* y) {
    const Vec<W> decay(a);
    Vec<W> in[count], out[count];
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) in[r] = Vec<W>(dt * x[r]);
    lanes<W>(N, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> b = io.load(B + i), c = io.load(C + i);
#pragma GCC unroll 4
      for (int r = 0; r < count; ++r) {
        __builtin_prefetch(S + r * N + i + ahead);
        const Vec<W> state = fma<W>(in[r], b, io.load(S + r * N + i) * decay);
        io.store(S + r * N + i, state);
        out[r] = fma<W>(state, c, out[r]);
      }
    });
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) y[r] = sum<W>(out[r]);
  }
};

}  // namespace ssd_parts

CHIMERA_FUNCTION void decay_rate(const Cpu&, std::int64_t n, const float* a_log, float* a) {
  for (std::int64_t i = 0; i < n; ++i) a[i] = -std::exp(a_log[i]);
}

CHIMERA_FUNCTION void decay_rate_backward(const Cpu&, std::int64_t n, const float* a, const float* da, float* da_log) {
  for (std::int64_t i = 0; i < n; ++i) da_log[i] += a[i] * da[i];
}

CHIMERA_FUNCTION void ssd(const Cpu& q, const SsdShape& s, const Batch& batch, const float* xbc, const float* dt,
                          const float* A, const float* D, const float* initial, float* y, float* states,
                          float* products, float* last) {
  using namespace ssd_parts;
  const std::int64_t T = batch.length, P = s.head_dim, N = s.state, Q = s.chunk, chunks = s.chunks(T), row = s.row();
  parallel(q, batch.sequences * s.groups * chunks, [&](std::int64_t index, int worker) {
    const std::int64_t chunk = index % chunks, g = index / chunks % s.groups, b = index / chunks / s.groups;
    const std::int64_t n = std::min(Q, T - chunk * Q);
    const float* rows = xbc + (b * T + chunk * Q) * row;
    gemm_serial(q.isa(), q.scratch(worker), n, n, N, 1.f, row_major(rows + s.c(g), row), transposed(rows + s.b(g), row),
                0.f, products + index * Q * Q, Q);
  });
  parallel(q, batch.sequences * s.heads, [&](std::int64_t index, int worker) {
    const std::int64_t h = index % s.heads, b = index / s.heads, g = h / s.per_group();
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* m = memory.take(Q * Q);
    float* u = memory.take(Q * P);
    float* step = memory.take(Q);
    const std::int64_t kept = states ? s.matrix() : 0;  // from one chunk's state to the next
    float* state = states ? states + index * chunks * kept : last + index * s.matrix();
    const float* start = initial ? initial + index * s.matrix() : nullptr;
    if (!start)
      std::fill(state, state + s.matrix(), 0.f);
    else if (start != state)
      std::copy(start, start + s.matrix(), state);
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk, state += kept) {
      const Decay decay(s, batch, b, chunk, dt, A[h], h);
      const std::int64_t n = decay.n, at = b * T + decay.first;
      const float* rows = xbc + at * row;
      const float* x = rows + h * P;
      float* out = y + at * s.inner() + h * P;
      const float* cb = products + ((b * s.groups + g) * chunks + chunk) * Q * Q;
      for (std::int64_t t = 0; t < n; ++t) step[t] = dt[(at + t) * s.heads + h];
      for (std::int64_t t = 0; t < n; ++t)
        dispatch<SsdRow>(q.isa(), decay.from[t], t, n, decay.c, step, cb + t * Q, m + t * Q);
      gemm_serial(q.isa(), scratch, n, P, n, 1.f, row_major(m, Q), row_major(x, row), 0.f, out, s.inner());
      gemm_serial(q.isa(), scratch, n, P, N, 1.f, row_major(rows + s.c(g), row), transposed(state, N), 0.f, u, P);
      for (std::int64_t t = 0; t < n; ++t)
        dispatch<AddTwo>(q.isa(), P, decay.in[t], u + t * P, D[h], x + t * row, out + t * s.inner());
      const bool end = chunk + 1 == chunks;
      if (end && !last) break;
      float* next = end ? last + index * s.matrix() : state + kept;
      if (next != state) std::copy(state, state + s.matrix(), next);
      for (std::int64_t t = 0; t < n; ++t) dispatch<Scaled>(q.isa(), P, decay.out[t] * step[t], x + t * row, u + t * P);
      gemm_serial(q.isa(), scratch, P, N, n, 1.f, transposed(u, P), row_major(rows + s.b(g), row), decay.total, next,
                  N);
    }
  });
}

CHIMERA_FUNCTION std::int64_t ssd_backward_bytes(const SsdShape& s, const Batch& b) {
  const std::int64_t heads = b.sequences * s.heads;
  return bytes_of({heads * s.matrix(), 2 * heads, s.head_blocks() * b.tokens() * 2 * s.groups * s.state});
}

CHIMERA_FUNCTION void ssd_backward(const Cpu& q, const SsdShape& s, const Batch& batch, const float* xbc,
                                   const float* dt, const float* A, const float* D, const float* states,
                                   const float* products, const float* dy, const SsdGradients& out, Bump temp) {
  using namespace ssd_parts;
  const std::int64_t T = batch.length, P = s.head_dim, N = s.state, Q = s.chunk, chunks = s.chunks(T), row = s.row();
  const std::int64_t blocks = s.head_blocks(), bc = 2 * s.groups * N;
  float* dstates = temp.take(batch.sequences * s.heads * s.matrix());  // of the state after the chunk at hand
  float* sums = temp.take(2 * batch.sequences * s.heads);              // dA, then dD, of each sequence
  float* partial = temp.take(blocks * batch.tokens() * bc);            // dB and dC of each block of heads
  parallel(q, batch.sequences * s.groups * blocks, [&](std::int64_t index, int worker) {
    const std::int64_t block = index % blocks, g = index / blocks % s.groups, b = index / blocks / s.groups;
    const std::int64_t h0 = g * s.per_group() + block * s.head_block();
    const std::int64_t h1 = std::min(h0 + s.head_block(), (g + 1) * s.per_group());
    Bump memory{q.scratch(worker)};
    float* scratch = memory.take(gemm_scratch_floats);
    float* dcb = memory.take(Q * Q);  // summed over the heads of the block
    float* m = memory.take(Q * Q);
    float* u = memory.take(Q * P);
    float* v = memory.take(Q * P);
    for (std::int64_t h = h0; h < h1; ++h) {
      float* ds = dstates + (b * s.heads + h) * s.matrix();
      if (out.dlast)
        std::copy(out.dlast + (b * s.heads + h) * s.matrix(), out.dlast + (b * s.heads + h + 1) * s.matrix(), ds);
      else
        std::fill(ds, ds + s.matrix(), 0.f);
      sums[b * s.heads + h] = sums[(batch.sequences + b) * s.heads + h] = 0.f;
    }
    for (std::int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
      const std::int64_t at = b * T + chunk * Q;
      const float* rows = xbc + at * row;
      const ConstView B = row_major(rows + s.b(g), row), C = row_major(rows + s.c(g), row);
      const float* cb = products + ((b * s.groups + g) * chunks + chunk) * Q * Q;
      float* dB = partial + (block * batch.tokens() + at) * bc + g * N;
      float* dC = dB + s.groups * N;
      const std::int64_t n = std::min(Q, T - chunk * Q);
      std::fill(dcb, dcb + Q * Q, 0.f);
      for (std::int64_t h = h0; h < h1; ++h) {
        const Decay decay(s, batch, b, chunk, dt, A[h], h);
        const float* x = rows + h * P;
        const float* dyh = dy + at * s.inner() + h * P;
        const float* state = states + ((b * s.heads + h) * chunks + chunk) * s.matrix();
        float* ds = dstates + (b * s.heads + h) * s.matrix();
        float* dx = out.dxbc + at * row + h * P;
        const float beta = h == h0 ? 0.f : 1.f;
        float step[Decay::max_chunk], dstep[Decay::max_chunk] = {}, dc[Decay::max_chunk] = {};
        for (std::int64_t t = 0; t < n; ++t) step[t] = dt[(at + t) * s.heads + h];

        gemm_serial(q.isa(), scratch, n, n, P, 1.f, row_major(dyh, s.inner()), transposed(x, row), 0.f, m, Q);
        for (std::int64_t t = 0; t < n; ++t)
          dispatch<SsdRowBackward>(q.isa(), decay.from[t], t, n, decay.c, step, cb + t * Q, m + t * Q, dcb + t * Q, dc,
                                   dstep);
        gemm_serial(q.isa(), scratch, n, P, n, 1.f, transposed(m, Q), row_major(dyh, s.inner()), 0.f, dx, row);
        gemm_serial(q.isa(), scratch, n, P, N, 1.f, B, transposed(ds, N), 0.f, u, P);
        gemm_serial(q.isa(), scratch, n, P, N, 1.f, C, transposed(state, N), 0.f, v, P);
        float passed_on = decay.total * dot(q.isa(), s.matrix(), ds, state), dD = 0;
        for (std::int64_t t = 0; t < n; ++t) {
          const float* xt = x + t * row;
          const float* dyt = dyh + t * s.inner();
          dc[t] += decay.in[t] * dot(q.isa(), P, dyt, v + t * P);
          const float r = decay.out[t] * dot(q.isa(), P, xt, u + t * P);
          dstep[t] += r;
          dc[t] -= r * step[t];
          passed_on += r * step[t];
          dD += dot(q.isa(), P, dyt, xt);
          dispatch<AddTwo>(q.isa(), P, D[h], dyt, decay.out[t] * step[t], u + t * P, dx + t * row);
          dispatch<Scaled>(q.isa(), P, decay.in[t], dyt, v + t * P);
          dispatch<Scaled>(q.isa(), P, decay.out[t] * step[t], xt, u + t * P);
        }
        gemm_serial(q.isa(), scratch, n, N, P, 1.f, row_major(v, P), row_major(state, N), beta, dC, bc);
        gemm_serial(q.isa(), scratch, n, N, P, 1.f, row_major(u, P), row_major(ds, N), beta, dB, bc);
        gemm_serial(q.isa(), scratch, P, N, n, 1.f, transposed(v, P), C, decay.total, ds, N);
        float dlog = passed_on, dA = 0;  // of ln a_t = D_t A: what all later c of the chunk hand back
        for (std::int64_t t = n - 1; t >= 0; --t) {
          dlog += dc[t];
          out.ddt[(at + t) * s.heads + h] = dstep[t] + A[h] * dlog;
          dA += step[t] * dlog;
        }
        sums[b * s.heads + h] += dA;
        sums[(batch.sequences + b) * s.heads + h] += dD;
      }
      gemm_serial(q.isa(), scratch, n, N, n, 1.f, row_major(dcb, Q), B, 1.f, dC, bc);
      gemm_serial(q.isa(), scratch, n, N, n, 1.f, transposed(dcb, Q), C, 1.f, dB, bc);
    }
  });
  parallel_rows(q, batch.tokens(), 16, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t t = first; t < first + n; ++t) {
      float* d = out.dxbc + t * row + s.inner();
      std::fill(d, d + bc, 0.f);
      for (std::int64_t block = 0; block < blocks; ++block)
        dispatch<AddScaled>(q.isa(), bc, 1.f, partial + (block * batch.tokens() + t) * bc, d);
    }
  });
  sum_rows(q, batch.sequences, s.heads, s.heads, sums, out.dA);
  sum_rows(q, batch.sequences, s.heads, s.heads, sums + batch.sequences * s.heads, out.dD);
  if (out.dinitial) std::copy(dstates, dstates + batch.sequences * s.heads * s.matrix(), out.dinitial);
}

CHIMERA_FUNCTION void ssd_step(const Cpu& q, const SsdShape& s, const float* xbc, const float* dt, const float* A,
                               const float* D, float* S, float* y) {
  parallel(q, s.heads, [&](std::int64_t h, int) {
    const std::int64_t g = h / s.per_group();
    dispatch<ssd_parts::SsdStep>(q.isa(), s.head_dim, s.state, std::exp(dt[h] * A[h]), dt[h], xbc + h * s.head_dim,
                                 xbc + s.b(g), xbc + s.c(g), D[h], nullptr, S + h * s.matrix(), y + h * s.head_dim);
  });
}

/// dt = clamp(softplus(raw + bias), low, high); rows of raw lie raw_stride apart, dt [rows, heads].
struct StepSize {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* raw, const float* bias, float low, float high,
                                 float* dt) {
    lanes_of_one_copy<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dt + i, min<W>(max<W>(softplus<W>(io.load(raw + i) + io.load(bias + i)), Vec<W>(low)), Vec<W>(high)));
    });
  }
};

CHIMERA_FUNCTION void ssd_step_size(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw,
                                    std::int64_t raw_stride, const float* bias, float low, float high, float* dt) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t r = first; r < first + n; ++r)
      dispatch<StepSize>(q.isa(), heads, raw + r * raw_stride, bias, low, high, dt + r * heads);
  });
}

/// The step sizes of n heads for one token, and the decays a = exp(-dt exp(a_log)).
struct StepDecay {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* raw, const float* bias, float low, float high,
                                 const float* a_log, float* dt, float* a) {
    StepSize::run<W>(n, raw, bias, low, high, dt);
    lanes_of_one_copy<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(a + i, exp<W>(-io.load(dt + i) * exp<W>(io.load(a_log + i))));
    });
  }
};

/// draw (rows raw_stride apart) = ddt sigmoid(raw + bias) inside the limits, 0 outside; dbias +=.
struct StepSizeBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* raw, const float* bias, float low, float high,
                                 const float* ddt, float* draw) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = io.load(raw + i) + io.load(bias + i), step = softplus<W>(u), zero;
      const Vec<W> d = io.load(ddt + i) * sigmoid<W>(u);
      io.store(draw + i, less<W>(step, Vec<W>(low), zero, less<W>(Vec<W>(high), step, zero, d)));
    });
  }
};

CHIMERA_FUNCTION void ssd_step_size_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw,
                                             std::int64_t raw_stride, const float* bias, float low, float high,
                                             const float* ddt, float* draw, float* dbias) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t r = first; r < first + n; ++r)
      dispatch<StepSizeBackward>(q.isa(), heads, raw + r * raw_stride, bias, low, high, ddt + r * heads,
                                 draw + r * raw_stride);
  });
  sum_rows(q, rows, raw_stride, heads, draw, dbias);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
