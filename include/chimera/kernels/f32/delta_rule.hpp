// The gated delta rule in chunks: inside a chunk it is a triangular system, between chunks one state is passed on
// (Yang, Kautz and Hatamizadeh, "Gated Delta Networks", 2412.06464, section 3.3; Yang et al., 2406.06484).
//
//   S_t = a_t S_{t-1} + k_t x_t^T,   x_t = b_t e_t,   e_t = v_t - a_t S_{t-1}^T k_t,   y_t = S_t^T q_t,   a_t = e^{g_t}
//   in a chunk, c_t = sum_{s <= t} g_s, with S the state that it starts from:
//   e_t = v_t - e^{c_t} S^T k_t - sum_{s < t} e^{c_t - c_s} (k_t . k_s) x_s   (by forward substitution)
//   y_t = e^{c_t} S^T q_t + sum_{s <= t} e^{c_t - c_s} (q_t . k_s) x_s
// where k_t and q_t have the length 1, and q_t is then divided by sqrt(key_dim).
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/f32/small_matrices.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace chimera {

/// One token's row of `qkv`: q [key_heads, key_dim], k [key_heads, key_dim], v [value_heads, value_dim]. Value head h
/// reads key head h mod key_heads.
struct DeltaRuleShape {
  std::int64_t key_heads, value_heads, key_dim, value_dim, chunk;

  constexpr std::int64_t keys() const { return key_heads * key_dim; }
  constexpr std::int64_t values() const { return value_heads * value_dim; }
  constexpr std::int64_t row() const { return 2 * keys() + values(); }
  constexpr std::int64_t q(std::int64_t h) const { return h % key_heads * key_dim; }
  constexpr std::int64_t k(std::int64_t h) const { return keys() + h % key_heads * key_dim; }
  constexpr std::int64_t v(std::int64_t h) const { return 2 * keys() + h * value_dim; }
  constexpr std::int64_t matrix() const { return key_dim * value_dim; }
  constexpr std::int64_t chunks(std::int64_t length) const { return (length + chunk - 1) / chunk; }
};

/// Gradients of `delta_rule`: dqkv [B,T,row] =, dg and dbeta [B,T,value_heads] =.
struct DeltaRuleGradients {
  float* dqkv;
  float* dg;
  float* dbeta;
  const float* dlast = nullptr;  // of the last state, null: zero
  float* dinitial = nullptr;     // =, if asked for
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace delta_rule_parts {

/// Matrices of a task lie in rows and columns of whole tiles: what is computed of more than there is falls into the
/// padding, of which nothing is read.
constexpr std::int64_t padded(std::int64_t n) { return round_up(n, 32); }

/// Floats of a padded state.
constexpr std::int64_t state_floats(const DeltaRuleShape& s) { return padded(s.key_dim) * padded(s.value_dim); }

}  // namespace delta_rule_parts

/// What forward keeps for backward, in floats.
constexpr std::int64_t delta_rule_states(const DeltaRuleShape& s, const Batch& b) {
  return b.sequences * s.value_heads * s.chunks(b.length) * delta_rule_parts::state_floats(s);
}

/// Bytes of a worker's scratch, of backward, which uses more.
constexpr std::int64_t delta_rule_scratch_bytes(const DeltaRuleShape& s) {
  using delta_rule_parts::padded;
  const std::int64_t C = padded(s.chunk), K = padded(s.key_dim), V = padded(s.value_dim);
  return bytes_of({7 * C * K, 2 * C, 7 * C * V, 6 * C * C, 3 * K * V});
}

/// qkv [B,T,row], g [B,T,value_heads] <= 0, beta [B,T,value_heads] -> y [B,T,value_heads,value_dim].
/// states: delta_rule_states() floats, of each chunk's start. initial and last [B,value_heads,key_dim,value_dim] may be
/// null (a zero start, nobody asks); they may be the same memory. Without a backward pass to come, states may be null.
void delta_rule(const Cpu& q, const DeltaRuleShape& s, const Batch& batch, const float* qkv, const float* g,
                const float* beta, const float* initial, float* y, float* states, float* last);

void delta_rule_backward(const Cpu& q, const DeltaRuleShape& s, const Batch& batch, const float* qkv, const float* g,
                         const float* beta, const float* states, const float* dy, const DeltaRuleGradients& out);

/// One token: qkv [row], g and beta [value_heads], S [value_heads,key_dim,value_dim] updated in place, y [value_heads,
/// value_dim]. The recurrence itself, and so the reference of `delta_rule`.
void delta_rule_step(const Cpu& q, const DeltaRuleShape& s, const float* qkv, const float* g, const float* beta,
                     float* S, float* y);

/// Of raw [rows, 2 heads], a and then b:  g = -e^a_log softplus(a + bias),   beta = most sigmoid(b)
void delta_gates(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw, const float* bias,
                 const float* a_log, float most, float* g, float* beta);

/// draw [rows, 2 heads] =, dbias and da_log [heads] +=. dg [rows, heads] is overwritten.
void delta_gates_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw, const float* bias,
                          const float* a_log, float most, const float* g, const float* beta, float* dg,
                          const float* dbeta, float* draw, float* dbias, float* da_log);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace delta_rule_parts {

using namespace small_matrices_parts;

/// y = scale x / sqrt(sum x^2 + 1e-6) for rows of n numbers.
struct UnitRows {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float scale, const float* x, std::int64_t ldx,
                                 float* y, std::int64_t ldy, float* inverse) {
    for (std::int64_t r = 0; r < rows; ++r, x += ldx, y += ldy) {
      Vec<W> squares;
      lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> v = io.load(x + i);
        squares = fma<W>(v, v, squares);
      });
      inverse[r] = 1.f / std::sqrt(sum<W>(squares) + 1e-6f);
      const Vec<W> factor(scale * inverse[r]);
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, io.load(x + i) * factor); });
    }
  }
};

/// Of UnitRows, whose results are y and 1 / lengths `inverse`: dx = inverse (scale dy - y (y . dy) / scale), or added.
struct UnitRowsBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t rows, std::int64_t n, float scale, const float* y, const float* dy,
                                 std::int64_t ldy, const float* inverse, bool add, float* dx, std::int64_t ldx) {
    for (std::int64_t r = 0; r < rows; ++r, y += ldy, dy += ldy, dx += ldx) {
      Vec<W> products;
      lanes<W>(n, [&](std::int64_t i, auto io)
                      CHIMERA_LAMBDA { products = fma<W>(io.load(y + i), io.load(dy + i), products); });
      const Vec<W> along(sum<W>(products) / scale * inverse[r]), factor(scale * inverse[r]);
      lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
        const Vec<W> d = minus_product<W>(along, io.load(y + i), factor * io.load(dy + i));
        io.store(dx + i, add ? io.load(dx + i) + d : d);
      });
    }
  }
};

/// Decays of one head over one chunk, and what documents cut off.
struct GatedChunk {
  static constexpr std::int64_t most = 64;

  std::int64_t first = 0, n = 0;  // tokens first .. first + n - 1 of the row
  float c[most];                  // c_t
  float in[most];                 // e^{c_t} where the state passed in is seen, else 0
  float out[most];                // e^{c_last - c_s} where the state passed on sees s, else 0
  float beta[most];
  float total = 0;        // e^{c_last} where the state passed on sees the one passed in, else 0
  std::int64_t to[most];  // one behind the last token of the chunk that sees t, relative to the chunk

  GatedChunk(const DeltaRuleShape& s, const Batch& batch, std::int64_t b, std::int64_t chunk, const float* g,
             const float* betas, std::int64_t h)
      : first(chunk * s.chunk), n(std::min(s.chunk, batch.length - first)) {
    const std::int32_t* start = batch.document_start ? batch.document_start + b * batch.length : nullptr;
    const std::int64_t before = std::max<std::int64_t>(first - 1, 0);  // the newest token in the state passed in
    float sum = 0;
    for (std::int64_t t = 0; t < n; ++t) {
      const std::int64_t at = (b * batch.length + first + t) * s.value_heads + h;
      sum += g[at];
      c[t] = sum;
      beta[t] = betas[at];
      const std::int64_t begin = start ? start[first + t] : 0;
      in[t] = begin <= before ? std::exp(sum) : 0.f;
    }
    for (std::int64_t t = n - 1; t >= 0; --t) {
      const bool seen = t + 1 < n && !(start && start[first + t + 1] == first + t + 1);
      to[t] = seen ? to[t + 1] : t + 1;
      out[t] = to[t] == n ? std::exp(sum - c[t]) : 0.f;
    }
    total = in[n - 1];
  }
};

/// Row s of the products of keys with keys and of keys with queries, for the tokens t that see token s: both times
/// e^{c_t - c_s}, which is kept in `decay` unless that is null.
struct PairRow {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t s, std::int64_t end, std::int64_t n, const float* c, float* kk, float* kq,
                                 float* decay) {
    std::fill(kk, kk + s, 0.f);
    std::fill(kq, kq + s, 0.f);
    lanes<W>(end - s, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> e = exp<W>(io.load(c + s + i) - Vec<W>(c[s]));
      io.store(kk + s + i, io.load(kk + s + i) * e);
      io.store(kq + s + i, io.load(kq + s + i) * e);
      if (decay) io.store(decay + s + i, e);
    });
    kk[s] = 0.f;  // a token's error does not hold itself
    std::fill(kk + end, kk + n, 0.f);
    std::fill(kq + end, kq + n, 0.f);
  }
};

/// Row s of the backward pass: -dkk and dkq, the gradients of what PairRow made, become those of the products alone, and
/// dc grows.
struct PairRowBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t s, std::int64_t end, std::int64_t n, const float* kk, const float* kq,
                                 const float* decay, float* dkk, float* dkq, float* dc) {
    Vec<W> row;
    dkk[s] = 0.f;
    std::fill(dkk, dkk + s, 0.f);
    std::fill(dkq, dkq + s, 0.f);
    lanes<W>(end - s, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const std::int64_t t = s + i;
      const Vec<W> e = io.load(decay + t), dk = -io.load(dkk + t), dq = io.load(dkq + t);
      const Vec<W> w = fma<W>(dk, io.load(kk + t), dq * io.load(kq + t));
      io.store(dc + t, io.load(dc + t) + w);
      io.store(dkk + t, dk * e);
      io.store(dkq + t, dq * e);
      row += w;
    });
    dc[s] -= sum<W>(row);
    std::fill(dkk + end, dkk + n, 0.f);
    std::fill(dkq + end, dkq + n, 0.f);
  }
};

/// What both passes make of one chunk, given the state that it starts from.
struct ChunkWork {
  Isa isa;
  DeltaRuleShape shape;
  std::int64_t C, K, V;        // padded
  float scale;                 // of queries
  float *q, *k, *qt, *kt;      // [C,K], unit length and q scaled; [K,C]
  float *q_length, *k_length;  // [C], 1 / lengths
  float *kk, *kq, *decay;      // [C,C], see PairRow
  float *e, *x;                // [C,V]

  ChunkWork(Isa level, const DeltaRuleShape& s, Bump& memory, bool keeps_decay)
      : isa(level),
        shape(s),
        C(padded(s.chunk)),
        K(padded(s.key_dim)),
        V(padded(s.value_dim)),
        scale(1.f / std::sqrt(static_cast<float>(s.key_dim))) {
    for (float** m : {&q, &k, &qt, &kt}) *m = memory.take(C * K);
    q_length = memory.take(C), k_length = memory.take(C);
    kk = memory.take(C * C), kq = memory.take(C * C), decay = keeps_decay ? memory.take(C * C) : nullptr;
    e = memory.take(C * V), x = memory.take(C * V);
  }

  void product(const SmallProduct::Shape& s, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
               float beta, float* c, std::int64_t ldc) const {
    dispatch<SmallProduct>(isa, s, a, lda, b, ldb, beta, c, ldc);
  }
  void transpose(std::int64_t rows, std::int64_t cols, const float* from, std::int64_t ld_from, float* to,
                 std::int64_t ld_to) const {
    dispatch<Transposed>(isa, rows, cols, from, ld_from, to, ld_to);
  }

  /// All of the above; rows: the chunk's first row of qkv; S [K,V].
  void solve(const GatedChunk& chunk, const float* rows, std::int64_t h, const float* S) const {
    const std::int64_t n = chunk.n, row = shape.row(), key = shape.key_dim, value = shape.value_dim;
    dispatch<UnitRows>(isa, n, key, scale, rows + shape.q(h), row, q, K, q_length);
    dispatch<UnitRows>(isa, n, key, 1.f, rows + shape.k(h), row, k, K, k_length);
    transpose(n, key, q, K, qt, C);
    transpose(n, key, k, K, kt, C);
    product({.m = n, .n = n, .k = key, .upper = true}, kt, C, kt, C, 0.f, kk, C);
    product({.m = n, .n = n, .k = key, .upper = true}, kt, C, qt, C, 0.f, kq, C);
    for (std::int64_t s = 0; s < n; ++s)
      dispatch<PairRow>(isa, s, chunk.to[s], n, chunk.c, kk + s * C, kq + s * C, decay ? decay + s * C : nullptr);
    product({.m = n, .n = value, .k = key}, kt, C, S, V, 0.f, e, V);
    dispatch<RowsMinus>(isa, n, value, rows + shape.v(h), row, chunk.in, e, V);
    dispatch<Substitution<false>>(isa, n, value, kk, C, chunk.beta, e, x, V);
  }
};

/// A state from rows of value_dim to padded ones, or back.
inline void copy_state(const DeltaRuleShape& s, const float* from, std::int64_t ld_from, float* to,
                       std::int64_t ld_to) {
  for (std::int64_t k = 0; k < s.key_dim; ++k) std::copy_n(from + k * ld_from, s.value_dim, to + k * ld_to);
}

/// One head over one token: S [key_dim,value_dim] in place. Columns of S go in strips of four vectors, which are read
/// twice: what the key finds, and what the query finds of what is written.
struct DeltaStep {
  template <int W>
  CHIMERA_INLINE static void run(DeltaRuleShape s, float decay, float beta, const float* q, const float* k,
                                 const float* v, float* S, float* y) {
    const std::int64_t n = s.value_dim;
    std::int64_t j = 0;
    for (; j + 4 * W <= n; j += 4 * W) strip<W, 4>(s, decay, beta, q, k, v + j, S + j, y + j, Whole<W>{});
    for (; j + W <= n; j += W) strip<W, 1>(s, decay, beta, q, k, v + j, S + j, y + j, Whole<W>{});
    if (j < n) strip<W, 1>(s, decay, beta, q, k, v + j, S + j, y + j, Part<W>{n - j});
  }

 private:
  template <int W, int count, class Io>
  CHIMERA_INLINE static void strip(const DeltaRuleShape& s, float decay, float beta, const float* q, const float* k,
                                   const float* v, float* S, float* y, Io io) {
    Vec<W> found[count], out[count], x[count];
    for (std::int64_t i = 0; i < s.key_dim; ++i) {
      const Vec<W> key = broadcast<W>(k[i]);
#pragma GCC unroll 4
      for (int c = 0; c < count; ++c) found[c] = fma<W>(key, io.load(S + i * s.value_dim + c * W), found[c]);
    }
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) x[c] = minus_product<W>(Vec<W>(decay), found[c], io.load(v + c * W)) * Vec<W>(beta);
    for (std::int64_t i = 0; i < s.key_dim; ++i) {
      const Vec<W> key = broadcast<W>(k[i]), query = broadcast<W>(q[i]);
#pragma GCC unroll 4
      for (int c = 0; c < count; ++c) {
        float* at = S + i * s.value_dim + c * W;
        const Vec<W> state = fma<W>(key, x[c], io.load(at) * Vec<W>(decay));
        io.store(at, state);
        out[c] = fma<W>(query, state, out[c]);
      }
    }
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) io.store(y + c * W, out[c]);
  }
};

/// One head over one token, from the row's q, k and v before they have unit length.
inline void step_head(Isa isa, const DeltaRuleShape& s, const float* q, const float* k, const float* v, float g,
                      float beta, float* S, float* y) {
  constexpr std::int64_t most_dim = 256;
  alignas(64) float unit_q[most_dim];
  alignas(64) float unit_k[most_dim];
  float length;
  dispatch<UnitRows>(isa, 1, s.key_dim, 1.f / std::sqrt(static_cast<float>(s.key_dim)), q, 0, unit_q, 0, &length);
  dispatch<UnitRows>(isa, 1, s.key_dim, 1.f, k, 0, unit_k, 0, &length);
  dispatch<DeltaStep>(isa, s, std::exp(g), beta, unit_q, unit_k, v, S, y);
}

}  // namespace delta_rule_parts

CHIMERA_FUNCTION void delta_rule(const Cpu& q, const DeltaRuleShape& s, const Batch& batch, const float* qkv,
                                 const float* g, const float* beta, const float* initial, float* y, float* states,
                                 float* last) {
  using namespace delta_rule_parts;
  const std::int64_t T = batch.length, chunks = s.chunks(T), whole = state_floats(s);
  parallel(q, batch.sequences * s.value_heads, [&](std::int64_t index, int worker) {
    const std::int64_t h = index % s.value_heads, b = index / s.value_heads;
    Bump memory{q.scratch(worker)};
    const ChunkWork work(q.isa(), s, memory, false);
    const std::int64_t C = work.C, K = work.K, V = work.V, value = s.value_dim;
    float* out = memory.take(C * V);
    float* state = states ? states + index * chunks * whole : memory.take(whole);
    const std::int64_t kept = states ? whole : 0;  // from one chunk's state to the next
    std::fill(state, state + whole, 0.f);
    if (initial) copy_state(s, initial + index * s.matrix(), value, state, V);
    for (std::int64_t at = 0; at < chunks; ++at) {
      const GatedChunk chunk(s, batch, b, at, g, beta, h);
      const std::int64_t n = chunk.n, first = b * T + chunk.first;
      work.solve(chunk, qkv + first * s.row(), h, state);
      work.product({.m = n, .n = value, .k = s.key_dim}, work.qt, C, state, V, 0.f, out, V);
      dispatch<RowsScaled>(q.isa(), n, value, chunk.in, out, V, out, V);
      work.product({.m = n, .n = value, .k = n, .steps = Steps::up_to_row}, work.kq, C, work.x, V, 1.f, out, V);
      for (std::int64_t t = 0; t < n; ++t) std::copy_n(out + t * V, value, y + (first + t) * s.values() + h * value);
      const bool end = at + 1 == chunks;
      if (end && !last) break;
      float* next = end ? state : state + kept;
      if (end && states) next = memory.take(whole);
      if (next != state) std::copy(state, state + whole, next);
      dispatch<RowsScaled>(q.isa(), n, value, chunk.out, work.x, V, work.x, V);
      work.product({.m = s.key_dim, .n = value, .k = n}, work.k, K, work.x, V, chunk.total, next, V);
      if (end) copy_state(s, next, V, last + index * s.matrix(), value);
      state = next;
    }
  });
}

CHIMERA_FUNCTION void delta_rule_backward(const Cpu& q, const DeltaRuleShape& s, const Batch& batch, const float* qkv,
                                          const float* g, const float* beta, const float* states, const float* dy,
                                          const DeltaRuleGradients& grad) {
  using namespace delta_rule_parts;
  const std::int64_t T = batch.length, chunks = s.chunks(T), whole = state_floats(s), row = s.row();
  const std::int64_t key = s.key_dim, value = s.value_dim;
  parallel(q, batch.sequences * s.key_heads, [&](std::int64_t index, int worker) {
    const std::int64_t key_head = index % s.key_heads, b = index / s.key_heads;
    const Isa isa = q.isa();
    Bump memory{q.scratch(worker)};
    const ChunkWork work(isa, s, memory, true);
    const std::int64_t C = work.C, K = work.K, V = work.V;
    float* dq = memory.take(C * K);
    float* dk = memory.take(C * K);
    float* other = memory.take(C * K);
    float* dout = memory.take(C * V);  // of y, then of y / e^{c_t}
    float* dx = memory.take(C * V);    // of x
    float* de = memory.take(C * V);
    float* across = memory.take(C * V);  // [V,C]: the transpose of one of them
    float* x_across = memory.take(C * V);
    float* dkk = memory.take(C * C);
    float* dkq = memory.take(C * C);
    float* turned = memory.take(C * C);
    float* dstate = memory.take(whole);  // [K,V], of the state after the chunk at hand
    float* state_across = memory.take(whole);
    float* dstate_across = memory.take(whole);
    for (std::int64_t h = key_head; h < s.value_heads; h += s.key_heads) {
      const bool add = h != key_head;
      std::fill(dstate, dstate + whole, 0.f);
      if (grad.dlast) copy_state(s, grad.dlast + (b * s.value_heads + h) * s.matrix(), value, dstate, V);
      for (std::int64_t at = chunks - 1; at >= 0; --at) {
        const GatedChunk chunk(s, batch, b, at, g, beta, h);
        const std::int64_t n = chunk.n, first = b * T + chunk.first;
        const float* state = states + ((b * s.value_heads + h) * chunks + at) * whole;
        const SmallProduct::Shape to_keys{.m = n, .n = key, .k = value}, to_values{.m = n, .n = value, .k = key},
            to_pairs{.m = n, .n = n, .k = value, .upper = true}, to_state{.m = key, .n = value, .k = n};
        float dc[GatedChunk::most] = {}, passed[GatedChunk::most] = {}, dbeta[GatedChunk::most] = {};
        work.solve(chunk, qkv + first * row, h, state);
        for (std::int64_t t = 0; t < n; ++t)
          std::copy_n(dy + (first + t) * s.values() + h * value, value, dout + t * V);

        // dx = (what y read of x) + (what the state passed on took of it), then back through the substitution.
        work.product(to_values, work.kt, C, dstate, V, 0.f, dx, V);
        dispatch<RowsScaled>(isa, n, value, chunk.out, dx, V, dx, V);
        work.transpose(n, n, work.kq, C, turned, C);
        work.product({.m = n, .n = value, .k = n, .steps = Steps::from_row}, turned, C, dout, V, 1.f, dx, V);
        work.transpose(n, n, work.kk, C, turned, C);
        dispatch<Substitution<true>>(isa, n, value, turned, C, chunk.beta, dx, de, V);
        for (std::int64_t t = 0; t < n; ++t) dbeta[t] = dot(isa, value, dx + t * V, work.e + t * V);

        // Through the products with the states; dq and dk are summed from here on.
        work.transpose(key, value, state, V, state_across, K);
        work.transpose(key, value, dstate, V, dstate_across, K);
        work.transpose(n, value, work.x, V, x_across, C);
        work.transpose(n, value, dout, V, across, C);
        work.product(to_pairs, x_across, C, across, C, 0.f, dkq, C);
        work.product(to_keys, across, C, state_across, K, 0.f, other, K);
        std::fill(dq, dq + n * K, 0.f);
        std::fill(dk, dk + n * K, 0.f);
        dispatch<RowsAdded>(isa, n, key, chunk.in, other, work.q, dq, K, dc);
        work.transpose(n, value, de, V, across, C);
        work.product(to_pairs, x_across, C, across, C, 0.f, dkk, C);
        work.product(to_keys, across, C, state_across, K, 0.f, other, K);
        float minus_in[GatedChunk::most];
        for (std::int64_t t = 0; t < n; ++t) minus_in[t] = -chunk.in[t];
        dispatch<RowsAdded>(isa, n, key, minus_in, other, work.k, dk, K, dc);
        work.product(to_keys, x_across, C, dstate_across, K, 0.f, other, K);
        dispatch<RowsAdded>(isa, n, key, chunk.out, other, work.k, dk, K, passed);

        // Through the products of keys with keys and queries.
        for (std::int64_t t = 0; t < n; ++t)
          dispatch<PairRowBackward>(isa, t, chunk.to[t], n, work.kk + t * C, work.kq + t * C, work.decay + t * C,
                                    dkk + t * C, dkq + t * C, dc);
        work.product({.m = n, .n = key, .k = n, .steps = Steps::up_to_row}, dkq, C, work.k, K, 1.f, dq, K);
        work.transpose(n, n, dkq, C, turned, C);
        work.product({.m = n, .n = key, .k = n, .steps = Steps::from_row}, turned, C, work.q, K, 1.f, dk, K);
        work.transpose(n, n, dkk, C, turned, C);
        dispatch<MatrixAdded>(isa, n, n, turned, dkk, C);
        work.product({.m = n, .n = key, .k = n}, dkk, C, work.k, K, 1.f, dk, K);

        const std::int64_t rows = first * row;
        dispatch<UnitRowsBackward>(isa, n, key, work.scale, work.q, dq, K, work.q_length, add,
                                   grad.dqkv + rows + s.q(h), row);
        dispatch<UnitRowsBackward>(isa, n, key, 1.f, work.k, dk, K, work.k_length, add, grad.dqkv + rows + s.k(h), row);
        for (std::int64_t t = 0; t < n; ++t) std::copy_n(de + t * V, value, grad.dqkv + rows + t * row + s.v(h));
        float dlog = 0;  // of g_t: what all later c of the chunk hand back
        if (chunk.total != 0.f)
          for (std::int64_t i = 0; i < key; ++i) dlog += dot(isa, value, dstate + i * V, state + i * V);
        dlog *= chunk.total;
        for (std::int64_t t = 0; t < n; ++t) dlog += passed[t], dc[t] -= passed[t];
        for (std::int64_t t = n - 1; t >= 0; --t) {
          dlog += dc[t];
          grad.dg[(first + t) * s.value_heads + h] = dlog;
          grad.dbeta[(first + t) * s.value_heads + h] = dbeta[t];
        }

        // The state that the chunk starts from.
        dispatch<RowsScaled>(isa, n, value, chunk.in, dout, V, dout, V);
        dispatch<RowsScaled>(isa, n, value, minus_in, de, V, de, V);
        work.product(to_state, work.q, K, dout, V, chunk.total, dstate, V);
        work.product(to_state, work.k, K, de, V, 1.f, dstate, V);
      }
      if (grad.dinitial) copy_state(s, dstate, V, grad.dinitial + (b * s.value_heads + h) * s.matrix(), value);
    }
  });
}

CHIMERA_FUNCTION void delta_rule_step(const Cpu& q, const DeltaRuleShape& s, const float* qkv, const float* g,
                                      const float* beta, float* S, float* y) {
  parallel(q, s.value_heads, [&](std::int64_t h, int) {
    delta_rule_parts::step_head(q.isa(), s, qkv + s.q(h), qkv + s.k(h), qkv + s.v(h), g[h], beta[h], S + h * s.matrix(),
                                y + h * s.value_dim);
  });
}

/// The gates of n heads for one token.
struct DeltaGates {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* a, const float* b, const float* bias, const float* a_log,
                                 float most, float* g, float* beta) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(g + i, -exp<W>(io.load(a_log + i)) * softplus<W>(io.load(a + i) + io.load(bias + i)));
      io.store(beta + i, Vec<W>(most) * sigmoid<W>(io.load(b + i)));
    });
  }
};

CHIMERA_FUNCTION void delta_gates(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw,
                                  const float* bias, const float* a_log, float most, float* g, float* beta) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t r = first; r < first + n; ++r)
      dispatch<DeltaGates>(q.isa(), heads, raw + 2 * r * heads, raw + (2 * r + 1) * heads, bias, a_log, most,
                           g + r * heads, beta + r * heads);
  });
}

/// da = -e^a_log sigmoid(a + bias) dg,   db = beta (1 - beta / most) dbeta; dg becomes what a_log gets.
struct DeltaGatesBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* a, const float* bias, const float* a_log, float most,
                                 const float* g, const float* beta, float* dg, const float* dbeta, float* da,
                                 float* db) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> d = io.load(dg + i), share = io.load(beta + i);
      io.store(da + i, -exp<W>(io.load(a_log + i)) * sigmoid<W>(io.load(a + i) + io.load(bias + i)) * d);
      io.store(db + i, io.load(dbeta + i) * share * (Vec<W>(1.f) - share * Vec<W>(1.f / most)));
      io.store(dg + i, d * io.load(g + i));
    });
  }
};

CHIMERA_FUNCTION void delta_gates_backward(const Cpu& q, std::int64_t rows, std::int64_t heads, const float* raw,
                                           const float* bias, const float* a_log, float most, const float* g,
                                           const float* beta, float* dg, const float* dbeta, float* draw, float* dbias,
                                           float* da_log) {
  parallel_rows(q, rows, 64, [&](std::int64_t first, std::int64_t n, int) {
    for (std::int64_t r = first; r < first + n; ++r)
      dispatch<DeltaGatesBackward>(q.isa(), heads, raw + 2 * r * heads, bias, a_log, most, g + r * heads,
                                   beta + r * heads, dg + r * heads, dbeta + r * heads, draw + 2 * r * heads,
                                   draw + (2 * r + 1) * heads);
  });
  sum_rows(q, rows, 2 * heads, heads, draw, dbias);
  sum_rows(q, rows, heads, heads, dg, da_log);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
