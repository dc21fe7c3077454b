// Titans' memory as context (Behrouz, Zhong and Mirrokni, 2501.00663, sections 3.1, 3.2 and 4.1): a memory M whose
// weights learn while it reads, segment by segment. M is a matrix, or two with SiLU between them.
//
// In a segment that starts from M_0 and the momentum S_0, with keys k, values v and queries q of what attention gave:
//   e_j = 2 (M_0 k_j - v_j),   S_t = eta_t S_{t-1} - theta_t e_t k_t^T,   M_t = (1 - alpha_t) M_{t-1} + S_t
// All M_t in one: M_t = a_t M_0 + b_t S_0 + sum_{j <= t} w_tj e_j k_j^T, and S_t = p_t S_0 + sum m_tj e_j k_j^T, with
//   m_tt = w_tt = -theta_t,  m_tj = eta_t m_{t-1,j},  w_tj = (1 - alpha_t) w_{t-1,j} + m_tj,  and a, b, p likewise;
//   so r_t = M_t q_t = a_t M_0 q_t + b_t S_0 q_t + sum_{j <= t} w_tj (k_j . q_t) e_j: three products of a segment.
// Of two matrices each is read like that, for each is linear in its weights: the first with keys k, queries q, and what
// the second sends back as e; the second with silu of what the first made of k and q.
//
// Tokens lie in an order of their own: first those of all documents' first segments, then those of all second segments,
// and so on. Such a step has no order within it, so all of its segments are treated at once, and a document knows
// nothing of those before it.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/norm.hpp>
#include <chimera/kernels/f32/rope.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>

namespace chimera {

/// `heads` of attention; `memory_heads` blocks of the width, each with a memory of its own; hidden 0: one matrix.
struct TitansShape {
  static constexpr std::int64_t most_segment = 128;
  /// Of a matrix's results, that one task makes: few in decoding, where there are few tasks.
  static constexpr std::int64_t training_columns = 256, decoding_columns = 64;

  std::int64_t width, heads, head_dim, persistent, segment, memory_heads, hidden, tbptt;

  constexpr std::int64_t attended() const { return heads * head_dim; }
  constexpr std::int64_t key_value() const { return 2 * attended(); }
  constexpr std::int64_t block() const { return width / memory_heads; }
  /// Of one block: matrix m is [out, in].
  constexpr int matrices() const { return hidden > 0 ? 2 : 1; }
  constexpr int last() const { return matrices() - 1; }
  constexpr std::int64_t in(int m) const { return m == 0 ? block() : hidden; }
  constexpr std::int64_t out(int m) const { return m == last() ? block() : hidden; }
  constexpr std::int64_t all_in(int m) const { return memory_heads * in(m); }
  constexpr std::int64_t all_out(int m) const { return memory_heads * out(m); }
  constexpr std::int64_t all_hidden() const { return memory_heads * hidden; }
  constexpr std::int64_t matrix(int m) const { return in(m)*out(m); }
  /// Where the matrices m of all blocks begin, among a memory's weights.
  constexpr std::int64_t first(int m) const { return m == 0 ? 0 : memory_heads * matrix(0); }
  constexpr std::int64_t weights() const { return first(last()) + memory_heads * matrix(last()); }
  /// M, then S, in floats.
  constexpr std::int64_t state() const {
    return static_cast<std::int64_t>(aligned_floats(static_cast<std::size_t>(2 * weights())));
  }
  /// What the memory remembers of a token of its segment: k and e of each matrix.
  constexpr std::int64_t key(int m) const { return m == 0 ? 0 : all_in(0) + all_out(0); }
  constexpr std::int64_t error(int m) const { return key(m) + all_in(m); }
  constexpr std::int64_t row() const { return error(last()) + width; }
  /// What attention remembers of it: keys and values of h, then of x.
  constexpr std::int64_t attention_row() const { return 2 * key_value(); }
  /// w_t [segment], m_t [segment], a_t, b_t, p_t.
  constexpr std::int64_t factors() const { return 2 * segment + 3; }
  float scale() const { return 1.f / std::sqrt(static_cast<float>(head_dim)); }
  constexpr std::int64_t steps(std::int64_t length) const { return (length + segment - 1) / segment; }
};

/// The tokens of one segment that are treated at once: all in training, some in decoding.
struct TitansSegment {
  std::int64_t first;       // row of the first of them
  std::int64_t count;       // of them
  std::int64_t before;      // tokens of the segment that were there already
  float* start;             // state that the segment starts from; null: M as the weights say, S zero
  float* next;              // state that it passes on, may be `start`; null: nobody asks. In backward its gradient
  bool learns;              // whether gradients come back from `next`
  float* rows;              // [segment, row], of the whole segment
  float* attention;         // [segment, attention_row], likewise
  const float* persistent;  // [persistent, key_value], keys and values of the persistent vectors
  float* factors;           // [factors] of the last token that was there already; null: none was
};

/// Segments, those of a step together; where the rows of a step begin and end; the token of each row.
struct TitansSegments {
  TitansSegment* all;
  std::int32_t *first_segment, *first_row;  // [steps + 1]
  std::int32_t* token;                      // [rows]
  std::int64_t steps;
};

/// What is treated at once.
struct TitansStep {
  const TitansSegment* segments;
  std::int64_t count, first, rows;
  std::int64_t cols;  // that one task makes of a matrix's results
};

/// The memory's weights: matrices [blocks, out, in].
struct TitansMemory {
  const float* m[2];
};
struct TitansMemoryGradient {
  float* m[2];
};

/// Of the tokens, row by row in the order of segments.
struct TitansTokens {
  float* raw;        // [n, width], W_q x
  float* query_x;    // [n, width], the memory's query of x
  float* hidden_x;   // [n, hidden of all blocks], the first matrix's results for it, and
  float* active_x;   // their silu
  float* h;          // [n, width], what the memory recalls
  float* q;          // [n, attended]
  float* attention;  // [n, attention_row]
  float* mixed;      // [n, attended]
  float* lse;        // [n, heads]
  float* y;          // [n, width]
  float* raw_q;      // [n, width], W_q y
  float* raw_kv;     // [n, 2 width], W_k y and W_v y
  float* gates;      // [n, 3], products without their biases, then alpha, eta, theta
  float* rows;       // [n, row]
  float* query[2];   // [n, in of all blocks]
  float* read[2];    // [n, out of all blocks]: r is the last
  float* hidden;     // [n, hidden of all blocks], the first matrix's results for k
  float* back;       // [n, hidden of all blocks], what the second sends back
  float* scores;     // [n, blocks, segment], w_tj (k_j . q_t)
  float* factors;    // [n, factors]
};

struct TitansGates {
  const float *forget, *momentum, *step;  // biases [1]
  float step_max;
};

/// The memory's part of the gradients; rows as those of tokens.
struct TitansGradients {
  float* read;     // of r [n, width]
  float* query;    // of q =
  float* key;      // of k =
  float* value;    // of v =
  float* gates;    // [n, 3] =, of alpha, eta and theta, then of the products
  float* h;        // of h
  float* query_x;  // of the query of x =
};

/// Working memory of a step in backward, row by row from its first.
struct TitansScratch {
  float *grown, *products;  // [rows, blocks, segment]: the gradients of k . q, and those of w of each matrix
  float* read[2];           // [rows, out of all blocks], gradients of what is read, and
  float* weighted[2];       // a times these
  float *query[2], *key[2], *error[2];
  float *hidden, *back, *hidden_x;  // [rows, hidden of all blocks]
  float* dots;                      // [tasks of a segment, 4, rows]
  float* states;                    // [tasks of a segment, rows, 3]
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

namespace titans_parts {

inline constexpr float unit_eps = 1e-6f;

/// Tasks of a segment, over all of its matrices.
constexpr std::int64_t tasks(const TitansShape& s, std::int64_t cols) {
  std::int64_t n = 0;
  for (int m = 0; m < s.matrices(); ++m) n += s.memory_heads * ceil_div(std::max(s.in(m), s.out(m)), cols);
  return n;
}

/// Keys that a token of a segment sees at most.
constexpr std::int64_t most_keys(const TitansShape& s) { return s.persistent + 2 * s.segment; }

}  // namespace titans_parts

/// Bytes of a worker's scratch that the kernels below use at most.
constexpr std::int64_t titans_scratch_bytes(const TitansShape& s) {
  const std::int64_t scores = s.segment * titans_parts::most_keys(s);
  return bytes_of({gemm_scratch_floats}) +
         std::max(bytes_of({scores, scores}), bytes_of({s.segment * TitansShape::training_columns}));
}

inline TitansSegments bind_titans_segments(Bump& memory, std::int64_t rows, std::int64_t steps) {
  return {memory.take<TitansSegment>(rows), memory.take<std::int32_t>(steps + 1), memory.take<std::int32_t>(steps + 1),
          memory.take<std::int32_t>(rows), steps};
}

/// `training`: with what backward and other passes want.
inline TitansTokens bind_titans_tokens(Bump& memory, const TitansShape& s, std::int64_t n, bool training) {
  const auto take = [&](std::int64_t cols) { return memory.take(n * cols); };
  const std::int64_t hidden = s.all_hidden(), width = s.width;
  TitansTokens t{};
  t.raw = take(width), t.query_x = take(width), t.hidden_x = take(hidden), t.active_x = take(hidden), t.h = take(width);
  t.q = take(s.attended()), t.attention = take(s.attention_row()), t.mixed = take(s.attended()), t.lse = take(s.heads);
  t.y = take(width), t.raw_q = take(width), t.raw_kv = take(2 * width), t.gates = take(3);
  t.rows = take(training ? s.row() : 0), t.hidden = take(hidden), t.back = take(hidden);
  t.scores = take(s.memory_heads * s.segment), t.factors = take(s.factors());
  for (int m = 0; m < s.matrices(); ++m) t.query[m] = take(s.all_in(m)), t.read[m] = take(s.all_out(m));
  return t;
}

/// For steps whose tasks make so many columns.
inline TitansScratch bind_titans_scratch(Bump& memory, const TitansShape& s, std::int64_t n,
                                         std::int64_t cols = TitansShape::training_columns) {
  const auto take = [&](std::int64_t each) { return memory.take(n * each); };
  const std::int64_t square = s.memory_heads * s.segment, hidden = s.all_hidden();
  TitansScratch t{};
  t.grown = take(square), t.products = take(square * s.matrices());
  for (int m = 0; m < s.matrices(); ++m) {
    t.weighted[m] = take(s.all_out(m));
    if (m == s.last()) continue;  // the others are the caller's
    t.read[m] = take(s.all_out(m)), t.error[m] = take(s.all_out(m));
    t.query[m + 1] = take(s.all_in(m + 1)), t.key[m + 1] = take(s.all_in(m + 1));
  }
  t.hidden = take(hidden), t.back = take(hidden), t.hidden_x = take(hidden);
  t.dots = take(4 * titans_parts::tasks(s, cols));
  t.states = take(3 * titans_parts::tasks(s, cols));
  return t;
}

/// Floats of the states that a batch's segments start from, but for documents' first ones.
constexpr std::int64_t titans_states(const TitansShape& s, const Batch& b) {
  return b.sequences * s.steps(b.length) * s.state();
}

/// The segments of a batch. states: as titans_states says. Where `last` [B,state] is not null, each row's last segment
/// passes its state on to there.
void titans_segments(const Cpu& q, const TitansShape& s, const Batch& batch, const TitansTokens& tokens,
                     const float* persistent, float* states, float* last, const TitansSegments& segments);

/// Rows of `segments` in the order of their tokens: y[r] = x[token[r]]; x, y [n, width].
void titans_gather(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* token, const float* x,
                   float* y);

/// y[token[r]] = x[r]
void titans_scatter(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* token, const float* x,
                    float* y);

enum class TitansOrder : std::uint8_t { forwards, backwards };

/// Calls f(device, step) for all steps.
template <class F>
void titans_steps(const Cpu& q, const TitansSegments& s, std::int64_t cols, TitansOrder order, F&& f) {
  for (std::int64_t i = 0; i < s.steps; ++i) {
    const std::int64_t k = order == TitansOrder::forwards ? i : s.steps - 1 - i;
    const std::int64_t from = s.first_segment[k], row = s.first_row[k];
    const TitansStep step{s.all + from, s.first_segment[k + 1] - from, row, s.first_row[k + 1] - row, cols};
    if (step.count > 0) f(q, step);
  }
}

/// The memory's queries of x, from `raw`, in all rows.
void titans_queries(const Cpu& q, const TitansShape& s, std::int64_t rows, const TitansTokens& tokens);

/// h of a step, by the memory that its segments start from.
void titans_recall(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
                   const TitansTokens& tokens);

/// Turns heads of the step's queries and of both keys of its tokens by their positions in the segment (rotary
/// embedding); sign -1 turns back. queries [n,attended], attention [n,attention_row].
void titans_turn(const Cpu& q, const TitansShape& s, const RopeTurns& turns, const TitansStep& step, float sign,
                 float* queries, float* attention);

/// `mixed` and `lse` of a step: a token of a segment sees the persistent vectors, and h and x up to its own.
void titans_attention(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansTokens& tokens);

/// From the products of y: k and -2 v into the segments' rows, the query, the gates.
void titans_inputs(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansGates& gates,
                   const TitansTokens& tokens);

/// r of a step, and the states that segments pass on.
void titans_update(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
                   const TitansTokens& tokens);

/// out[token[r]] += scale norm(y) sigmoid(norm of memory(r)), norms with weights w and w_memory.
void titans_output(const Cpu& q, const TitansShape& s, std::int64_t n, float eps, float scale,
                   const std::int32_t* token, const TitansTokens& tokens, const float* w, const float* w_memory,
                   float* out);

/// dy [n,width] =, of y in the order of segments; gradients.read =; dw, dw_memory +=. `temp`: norm_backward_bytes, twice.
void titans_output_backward(const Cpu& q, const TitansShape& s, std::int64_t n, float eps, float scale,
                            const std::int32_t* token, const TitansTokens& tokens, const float* w,
                            const float* w_memory, const float* dout, float* dy, const TitansGradients& gradients,
                            float* dw, float* dw_memory, Bump temp);

/// Gradients of titans_update but for those of states: query, key, value and gates (of alpha, eta, theta).
void titans_update_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
                            const TitansTokens& tokens, const TitansGradients& gradients, const TitansScratch& scratch);

/// Of titans_inputs: draw_q [n,width] =, draw_kv [n,2 width] =, and gradients.gates become those of the products.
void titans_inputs_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansTokens& tokens,
                            float step_max, const TitansGradients& gradients, float* draw_q, float* draw_kv);

/// dmixed [n,attended] -> dq [n,attended] =, dattention [n,attention_row] =; probabilities of the persistent vectors and
/// the gradients of their scores [n,heads,persistent] =.
void titans_attention_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansTokens& tokens,
                               const float* dmixed, float* dq, float* dattention, float* p, float* dp);

/// Keys and values of the persistent vectors: dpersistent [persistent, key_value] =.
void titans_persistent_backward(const Cpu& q, const TitansShape& s, std::int64_t n, const TitansTokens& tokens,
                                const float* dmixed, const float* p, const float* dp, float* dpersistent);

/// From gradients.h: gradients.query_x =.
void titans_recall_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
                            const TitansTokens& tokens, const TitansGradients& gradients, const TitansScratch& scratch);

/// States that the step's segments start from become their own gradients; dmemory += those of documents' first ones.
void titans_states_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansTokens& tokens,
                            const TitansGradients& gradients, const TitansScratch& scratch,
                            const TitansMemoryGradient& dmemory);

/// gradients.query_x, in all rows, becomes the gradient of `raw`.
void titans_queries_backward(const Cpu& q, const TitansShape& s, std::int64_t rows, const TitansTokens& tokens,
                             const TitansGradients& gradients);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace titans_parts {

/// Kernels of rows.
struct Silu {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, silu<W>(io.load(x + i))); });
  }
};

/// y = dy silu'(x)
struct SiluBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* dy, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(y + i, io.load(dy + i) * silu_slope<W>(io.load(x + i))); });
  }
};

/// Of e = back silu'(x), with d the gradient of e: dback = d silu'(x),  dx = d back silu''(x).
struct SlopeBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* back, const float* d, float* dback,
                                 float* dx) {
    const Vec<W> one(1.f), two(2.f);
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> z = io.load(x + i), sigma = sigmoid<W>(z), rest = one - sigma, given = io.load(d + i);
      io.store(dback + i, given * sigma * fma<W>(z, rest, one));
      io.store(dx + i, given * io.load(back + i) * sigma * rest * fma<W>(z, one - two * sigma, two));
    });
  }
};

/// dx += dy silu'(x)
struct AddSiluBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* dy, float* dx) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dx + i, fma<W>(io.load(dy + i), silu_slope<W>(io.load(x + i)), io.load(dx + i)));
    });
  }
};

/// y = silu(x) / sqrt(|silu(x)|^2 + eps)
struct Unit {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, float* y) {
    Vec<W> squares;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = silu<W>(io.load(x + i));
      io.store(y + i, u);
      squares = fma<W>(u, u, squares);
    });
    const Vec<W> inverse(1.f / std::sqrt(sum<W>(squares) + unit_eps));
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, io.load(y + i) * inverse); });
  }
};

/// dx = silu'(x) (dy - y (y . dy)) / |u|, with y as Unit makes it. dx may be dy.
struct UnitBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* dy, float* dx) {
    Vec<W> squares, products;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = silu<W>(io.load(x + i));
      squares = fma<W>(u, u, squares);
      products = fma<W>(u, io.load(dy + i), products);
    });
    const float all = sum<W>(squares) + unit_eps;
    const Vec<W> inverse(1.f / std::sqrt(all)), share(sum<W>(products) / all);
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> z = io.load(x + i);
      io.store(dx + i, inverse * (io.load(dy + i) - silu<W>(z) * share) * silu_slope<W>(z));
    });
  }
};

/// y = -2 silu(x)
struct Value {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, float* y) {
    lanes<W>(n,
             [=](std::int64_t i, auto io) CHIMERA_LAMBDA { io.store(y + i, Vec<W>(-2.f) * silu<W>(io.load(x + i))); });
  }
};

/// dx = -2 dy silu'(x)
struct ValueBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, const float* x, const float* dy, float* dx) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dx + i, Vec<W>(-2.f) * io.load(dy + i) * silu_slope<W>(io.load(x + i)));
    });
  }
};

/// y = a x + b z; y may be x, z may be null.
struct Blend {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float a, const float* x, float b, const float* z, float* y) {
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> scaled = Vec<W>(a) * io.load(x + i);
      io.store(y + i, z ? fma<W>(Vec<W>(b), io.load(z + i), scaled) : scaled);
    });
  }
};

/// A token's factors from those before it; `before`: how many tokens the segment had.
struct Factors {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t segment, std::int64_t before, const float* gates, const float* last,
                                 float* f) {
    const float keep = 1.f - gates[0], eta = gates[1], theta = gates[2];
    if (last) {
      lanes<W>(segment, [=](std::int64_t j, auto io) CHIMERA_LAMBDA {
        const Vec<W> m = Vec<W>(eta) * io.load(last + segment + j);
        io.store(f + segment + j, m);
        io.store(f + j, fma<W>(Vec<W>(keep), io.load(last + j), m));
      });
    } else {
      std::fill(f, f + 2 * segment, 0.f);
    }
    f[before] = f[segment + before] = -theta;
    const float* scalars = last ? last + 2 * segment : nullptr;
    float* to = f + 2 * segment;
    const float p = eta * (scalars ? scalars[2] : 1.f);
    to[0] = keep * (scalars ? scalars[0] : 1.f);
    to[1] = keep * (scalars ? scalars[1] : 0.f) + p;
    to[2] = p;
  }
};

/// Rows t of s [count, total] become w_t times these, 0 behind the token's own.
struct Weigh {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t count, std::int64_t before, const float* factors, std::int64_t stride,
                                 float* s, std::int64_t lds) {
    for (std::int64_t t = 0; t < count; ++t, factors += stride, s += lds) {
      const float* w = factors;
      float* row = s;
      lanes<W>(before + t + 1,
               [=](std::int64_t j, auto io) CHIMERA_LAMBDA { io.store(row + j, io.load(row + j) * io.load(w + j)); });
      std::fill(s + before + t + 1, s + before + count, 0.f);
    }
  }
};

/// Of backward: s = k . q and d, the gradient of w s, become w s, its gradient times w, and that times s.
struct WeighBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t count, const float* factors, std::int64_t stride, float* s, float* d,
                                 float* products, std::int64_t ld) {
    for (std::int64_t t = 0; t < count; ++t, factors += stride, s += ld, d += ld, products += ld) {
      const float* w = factors;
      float *score = s, *grow = d, *product = products;
      lanes<W>(t + 1, [=](std::int64_t j, auto io) CHIMERA_LAMBDA {
        const Vec<W> x = io.load(score + j), g = io.load(grow + j), by = io.load(w + j);
        io.store(product + j, g * x);
        io.store(score + j, x * by);
        io.store(grow + j, g * by);
      });
      for (float* row : {s, d, products}) std::fill(row + t + 1, row + count, 0.f);
    }
  }
};

/// Scores of one token [keys] become probabilities; `seen` keys of each of the two parts behind the persistent ones.
struct Attend {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t persistent, std::int64_t total, std::int64_t seen, float* row,
                                 float* lse) {
    const std::int64_t keys = persistent + 2 * total;
    std::fill(row + persistent + seen, row + persistent + total, -most);
    std::fill(row + persistent + total + seen, row + keys, -most);
    float top = -most;
    for (std::int64_t j = 0; j < keys; ++j) top = std::max(top, row[j]);
    Vec<W> all;
    lanes<W>(keys, [&](std::int64_t j, auto io) CHIMERA_LAMBDA { io.store(row + j, io.load(row + j) - Vec<W>(top)); });
    std::int64_t whole = 0;
    for (; whole + W <= keys; whole += W) {
      const Vec<W> e = exp<W>(Vec<W>::load(row + whole));
      e.store(row + whole);
      all += e;
    }
    float total_sum = sum<W>(all);
    for (std::int64_t j = whole; j < keys; ++j) {
      row[j] = exp<1>(Vec<1>(row[j])).v[0];
      total_sum += row[j];
    }
    const Vec<W> inverse(1.f / total_sum);
    lanes<W>(keys, [=](std::int64_t j, auto io) CHIMERA_LAMBDA { io.store(row + j, io.load(row + j) * inverse); });
    *lse = top + std::log(total_sum);
  }

 private:
  static constexpr float most = 3e38f;
};

/// Likewise, with lse known.
struct AttendAgain {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t persistent, std::int64_t total, std::int64_t seen, float lse,
                                 float* row) {
    const std::int64_t keys = persistent + 2 * total;
    lanes<W>(keys, [=](std::int64_t j, auto io)
                       CHIMERA_LAMBDA { io.store(row + j, exp<W>(io.load(row + j) - Vec<W>(lse))); });
    std::fill(row + persistent + seen, row + persistent + total, 0.f);
    std::fill(row + persistent + total + seen, row + keys, 0.f);
  }
};

/// dS = P (dP - delta) scale, into dP.
struct AttendBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float delta, float scale, const float* p, float* dp) {
    lanes<W>(n, [=](std::int64_t j, auto io) CHIMERA_LAMBDA {
      io.store(dp + j, io.load(p + j) * (io.load(dp + j) - Vec<W>(delta)) * Vec<W>(scale));
    });
  }
};

/// out += scale norm(y) sigmoid(norm(r))
struct Gated {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float eps, float scale, const float* y, const float* r, const float* w,
                                 const float* w_memory, float* out) {
    const Vec<W> of_y(scale * inverse<W>(n, eps, y)), of_r(inverse<W>(n, eps, r));
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> gate = sigmoid<W>(io.load(r + i) * of_r * io.load(w_memory + i));
      io.store(out + i, fma<W>(io.load(y + i) * of_y * io.load(w + i), gate, io.load(out + i)));
    });
  }

  template <int W>
  CHIMERA_INLINE static float inverse(std::int64_t n, float eps, const float* x) {
    Vec<W> squares;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = io.load(x + i);
      squares = fma<W>(u, u, squares);
    });
    return 1.f / std::sqrt(sum<W>(squares) / static_cast<float>(n) + eps);
  }
};

/// With u = y / rms(y), v = r / rms(r), g = sigmoid(w_memory v):  du = d w g,  dv = d w u g (1 - g) w_memory.
struct GatedBackward {
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t n, float eps, float scale, const float* y, const float* r, const float* w,
                                 const float* w_memory, const float* d, float* dy, float* dr, float* dw,
                                 float* dw_memory) {
    const Vec<W> of_y(Gated::inverse<W>(n, eps, y)), of_r(Gated::inverse<W>(n, eps, r)), one(1.f);
    Vec<W> along_y, along_r;
    lanes<W>(n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA {
      const Vec<W> u = io.load(y + i) * of_y, v = io.load(r + i) * of_r, by = io.load(w_memory + i);
      const Vec<W> gate = sigmoid<W>(v * by), given = Vec<W>(scale) * io.load(d + i);
      const Vec<W> through = given * io.load(w + i) * u * gate * (one - gate);
      io.store(dw + i, fma<W>(given * u, gate, io.load(dw + i)));
      io.store(dw_memory + i, fma<W>(through, v, io.load(dw_memory + i)));
      const Vec<W> du = given * io.load(w + i) * gate, dv = through * by;
      io.store(dy + i, du), io.store(dr + i, dv);
      along_y = fma<W>(du, u, along_y), along_r = fma<W>(dv, v, along_r);
    });
    const float count = static_cast<float>(n);
    const Vec<W> mean_y(sum<W>(along_y) / count), mean_r(sum<W>(along_r) / count);
    lanes<W>(n, [=](std::int64_t i, auto io) CHIMERA_LAMBDA {
      io.store(dy + i, of_y * (io.load(dy + i) - io.load(y + i) * of_y * mean_y));
      io.store(dr + i, of_r * (io.load(dr + i) - io.load(r + i) * of_r * mean_r));
    });
  }
};

inline float sigmoid_of(float x) { return sigmoid<1>(Vec<1>(x)).v[0]; }

/// Matrix m of a block as a segment starts with it; no momentum: null.
struct Start {
  const float *m, *momentum;

  Start(const TitansShape& s, const TitansSegment& at, const TitansMemory& memory, int matrix, std::int64_t head)
      : m((at.start ? at.start + s.first(matrix) : memory.m[matrix]) + head * s.matrix(matrix)),
        momentum(at.start ? at.start + s.weights() + s.first(matrix) + head * s.matrix(matrix) : nullptr) {}
};

/// One number for each token.
struct Scales {
  const float* of;
  std::int64_t stride;

  float operator[](std::int64_t t) const { return of[t * stride]; }
};

/// Of a segment's new tokens, by their number among these.
struct Factor {
  const float* of;
  std::int64_t stride, segment;

  Factor(const TitansShape& s, const TitansTokens& tokens, const TitansSegment& at)
      : of(tokens.factors + at.first * s.factors()), stride(s.factors()), segment(s.segment) {}
  const float* w(std::int64_t t) const { return of + t * stride; }
  const float* m(std::int64_t t) const { return w(t) + segment; }
  Scales all_a() const { return {of + 2 * segment, stride}; }
  Scales all_b() const { return {of + 2 * segment + 1, stride}; }
  float a(std::int64_t t) const { return all_a()[t]; }
  float b(std::int64_t t) const { return all_b()[t]; }
  float p(std::int64_t t) const { return w(t)[2 * segment + 2]; }
};

/// What the tokens of a segment see of one head: persistent vectors, h and x.
struct Keys {
  struct Part {
    ConstView keys, values;
    std::int64_t first, count;  // among all keys
    std::int64_t offset;        // of the keys in a row of attention, -1: not there
  };
  std::int64_t count;
  Part parts[3];

  Keys(const TitansShape& s, const TitansSegment& at, std::int64_t head, std::int64_t total)
      : count(s.persistent + 2 * total),
        parts{part(s, at.persistent, s.key_value(), head * s.head_dim, 0, s.persistent, -1),
              part(s, at.attention, s.attention_row(), head * s.head_dim, s.persistent, total, 0),
              part(s, at.attention, s.attention_row(), s.key_value() + head * s.head_dim, s.persistent + total, total,
                   0)} {}

 private:
  static Part part(const TitansShape& s, const float* base, std::int64_t stride, std::int64_t at, std::int64_t first,
                   std::int64_t count, std::int64_t offset) {
    return {row_major(base + at, stride), row_major(base + at + s.attended(), stride), first, count,
            offset < 0 ? offset : at};
  }
};

/// Some columns of one block of one segment.
struct Task {
  const TitansSegment& at;
  std::int64_t head, first, cols, index;  // index: among those of the segment
};

/// Calls f(task, memory of the worker) for all columns of all blocks of all segments.
template <class F>
void over_columns(const Cpu& q, const TitansShape& s, const TitansStep& step, std::int64_t cols, F f) {
  const std::int64_t each = ceil_div(cols, step.cols), tasks = s.memory_heads * each;
  parallel(q, step.count * tasks, step.rows * s.width * cols, [&](std::int64_t index, int worker) {
    const std::int64_t of_segment = index % tasks, first = of_segment % each * step.cols;
    f(Task{step.segments[index / tasks], of_segment / each, first, std::min(step.cols, cols - first), of_segment},
      Bump{q.scratch(worker)});
  });
}

/// Likewise for whole blocks.
template <class F>
void over_heads(const Cpu& q, const TitansShape& s, const TitansStep& step, F f) {
  parallel(q, step.count * s.memory_heads, step.rows * s.segment * s.width, [&](std::int64_t index, int worker) {
    f(step.segments[index / s.memory_heads], index % s.memory_heads, Bump{q.scratch(worker)});
  });
}

/// Calls f(segment, t) for all tokens of all segments.
template <class F>
void over_tokens(const Cpu& q, const TitansStep& step, F f) {
  parallel(q, step.count, [&](std::int64_t i, int) {
    for (std::int64_t t = 0; t < step.segments[i].count; ++t) f(step.segments[i], t);
  });
}

/// Rows of a segment in an array, `stride` floats apart: those of its new tokens.
struct Rows {
  float* base;  // null: in the segment's own rows
  std::int64_t stride, offset = 0;
  std::int64_t origin = 0;  // row at `base`

  float* of(const TitansSegment& at) const {
    return (base ? base + (at.first - origin) * stride : at.rows + at.before * stride) + offset;
  }
};

/// y = alpha M x + beta y for matrix m of each block; then(task, y) for what was made.
template <class F>
void apply(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory, int m, float alpha,
           Rows x, float beta, Rows y, F then) {
  over_columns(q, s, step, s.out(m), [&](const Task& task, Bump work) {
    const Start start(s, task.at, memory, m, task.head);
    float* to = y.of(task.at) + task.head * s.out(m) + task.first;
    gemm_serial(q.isa(), work.take(gemm_scratch_floats), task.at.count, task.cols, s.in(m), alpha,
                row_major(x.of(task.at) + task.head * s.in(m), x.stride),
                transposed(start.m + task.first * s.in(m), s.in(m)), beta, to, y.stride);
    then(task, to);
  });
}

/// x = alpha M^T y + beta x
template <class F>
void apply_transposed(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory, int m,
                      float alpha, Rows y, float beta, Rows x, F then) {
  over_columns(q, s, step, s.in(m), [&](const Task& task, Bump work) {
    const Start start(s, task.at, memory, m, task.head);
    float* to = x.of(task.at) + task.head * s.in(m) + task.first;
    gemm_serial(q.isa(), work.take(gemm_scratch_floats), task.at.count, task.cols, s.out(m), alpha,
                row_major(y.of(task.at) + task.head * s.out(m), y.stride), row_major(start.m + task.first, s.in(m)),
                beta, to, x.stride);
    then(task, to);
  });
}

inline constexpr auto nothing = [](const Task&, const float*) {};

/// What matrix m reads with its queries in every token, after that token; and what it is in the end.
template <class F>
void read(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
          const TitansTokens& tokens, int m, F then) {
  const std::int64_t in = s.in(m), out = s.out(m), ld_in = s.all_in(m), ld_out = s.all_out(m), row = s.row(),
                     ld = s.memory_heads * s.segment;
  const Isa isa = q.isa();
  over_heads(q, s, step, [&](const TitansSegment& at, std::int64_t head, Bump work) {
    float* scores = tokens.scores + at.first * ld + head * s.segment;
    gemm_serial(isa, work.take(gemm_scratch_floats), at.count, at.before + at.count, in, 1.f,
                row_major(tokens.query[m] + at.first * ld_in + head * in, ld_in),
                transposed(at.rows + s.key(m) + head * in, row), 0.f, scores, ld);
    dispatch<Weigh>(isa, at.count, at.before, tokens.factors + at.first * s.factors(), s.factors(), scores, ld);
  });
  over_columns(q, s, step, out, [&](const Task& task, Bump work) {
    const TitansSegment& at = task.at;
    const std::int64_t n = at.count, total = at.before + n, cols = task.cols, first = task.first * in;
    float* scratch = work.take(gemm_scratch_floats);
    float* part = work.take(s.segment * cols);
    const Start start(s, at, memory, m, task.head);
    const ConstView query = row_major(tokens.query[m] + at.first * ld_in + task.head * in, ld_in);
    const ConstView errors = row_major(at.rows + s.error(m) + task.head * out + task.first, row);
    const Factor factors(s, tokens, at);
    float* r = tokens.read[m] + at.first * ld_out + task.head * out + task.first;
    gemm_serial(isa, scratch, n, cols, in, 1.f, query, transposed(start.m + first, in), 0.f, r, ld_out);
    if (start.momentum)
      gemm_serial(isa, scratch, n, cols, in, 1.f, query, transposed(start.momentum + first, in), 0.f, part, cols);
    for (std::int64_t t = 0; t < n; ++t)
      dispatch<Blend>(isa, cols, factors.a(t), r + t * ld_out, factors.b(t), start.momentum ? part + t * cols : nullptr,
                      r + t * ld_out);
    gemm_serial(isa, scratch, n, cols, total, 1.f, row_major(tokens.scores + at.first * ld + task.head * s.segment, ld),
                errors, 1.f, r, ld_out);
    then(task, r);
    if (!at.next) return;
    const ConstView keys = row_major(at.rows + s.key(m) + task.head * in, row);
    float* next = at.next + s.first(m) + task.head * s.matrix(m) + first;
    float* next_momentum = next + s.weights();
    const float *from = start.m + first, *momentum = start.momentum ? start.momentum + first : nullptr;
    dispatch<Blend>(isa, cols * in, factors.a(n - 1), from, factors.b(n - 1), momentum, next);
    if (momentum)
      dispatch<Scaled>(isa, cols * in, factors.p(n - 1), momentum, next_momentum);
    else
      std::fill(next_momentum, next_momentum + cols * in, 0.f);
    for (const auto& [weights, to] : {std::pair(factors.w(n - 1), next), std::pair(factors.m(n - 1), next_momentum)}) {
      for (std::int64_t j = 0; j < total; ++j)
        dispatch<Scaled>(isa, cols, weights[j], errors.p + j * row, part + j * cols);
      gemm_serial(isa, scratch, cols, in, total, 1.f, transposed(part, cols), keys, 1.f, to, in);
    }
  });
}

/// Of `read`: from the gradients of what was read, those of its queries, keys and errors, and what those of the factors
/// are made of.
inline void read_backward(const Cpu& q, const TitansShape& s, const TitansStep& step, const TitansMemory& memory,
                          const TitansTokens& tokens, int m, const TitansScratch& scratch) {
  const std::int64_t in = s.in(m), out = s.out(m), ld_in = s.all_in(m), ld_out = s.all_out(m), row = s.row(),
                     ld = s.memory_heads * s.segment;
  const Isa isa = q.isa();
  std::int64_t before = 0;  // tasks of a segment for the matrices before
  for (int i = 0; i < m; ++i) before += s.memory_heads * ceil_div(std::max(s.in(i), s.out(i)), step.cols);
  const auto place = [&](const TitansSegment& at) { return at.first - step.first; };

  over_heads(q, s, step, [&](const TitansSegment& at, std::int64_t head, Bump work) {
    float* gemm_scratch = work.take(gemm_scratch_floats);
    const std::int64_t n = at.count, square = place(at) * ld + head * s.segment;
    float* scores = tokens.scores + at.first * ld + head * s.segment;
    gemm_serial(isa, gemm_scratch, n, n, in, 1.f, row_major(tokens.query[m] + at.first * ld_in + head * in, ld_in),
                transposed(at.rows + s.key(m) + head * in, row), 0.f, scores, ld);
    gemm_serial(isa, gemm_scratch, n, n, out, 1.f, row_major(scratch.read[m] + place(at) * ld_out + head * out, ld_out),
                transposed(at.rows + s.error(m) + head * out, row), 0.f, scratch.grown + square, ld);
    dispatch<WeighBackward>(isa, n, tokens.factors + at.first * s.factors(), s.factors(), scores,
                            scratch.grown + square, scratch.products + m * step.rows * ld + square, ld);
  });

  over_columns(q, s, step, in, [&](const Task& task, Bump work) {
    const TitansSegment& at = task.at;
    const std::int64_t n = at.count, cols = task.cols, here = place(at);
    float* gemm_scratch = work.take(gemm_scratch_floats);
    float* part = work.take(s.segment * cols);
    float* dots = scratch.dots + (before + task.index) * 4 * step.rows + here;
    const Start start(s, at, memory, m, task.head);
    const Factor factors(s, tokens, at);
    const std::int64_t channel = task.head * in + task.first;
    const ConstView queries = row_major(tokens.query[m] + at.first * ld_in + channel, ld_in);
    const ConstView keys = row_major(at.rows + s.key(m) + channel, row);
    const ConstView dr = row_major(scratch.read[m] + here * ld_out + task.head * out, ld_out);
    const ConstView errors = row_major(at.rows + s.error(m) + task.head * out, row);
    const float* grown = scratch.grown + here * ld + task.head * s.segment;
    float* dquery = scratch.query[m] + here * ld_in + channel;
    float* dkey = scratch.key[m] + here * ld_in + channel;
    // to = beta to + weight_t (x W)_t, and dots[t] = (x W)_t . with_t; nothing of a W that is not there.
    const auto through = [&](const ConstView& x, const float* w, float beta, Scales weight, ConstView with, float* to,
                             std::int64_t which) {
      float* dots_of = dots + which * step.rows;
      std::fill_n(dots_of, n, 0.f);
      if (!w) return;
      gemm_serial(isa, gemm_scratch, n, cols, out, 1.f, x, row_major(w + task.first, in), 0.f, part, cols);
      for (std::int64_t t = 0; t < n; ++t) {
        float* row_of = to + t * ld_in;
        dots_of[t] = dot(isa, cols, part + t * cols, with.p + t * with.row);
        dispatch<Blend>(isa, cols, weight[t], part + t * cols, beta, beta == 0.f ? nullptr : row_of, row_of);
      }
    };
    through(dr, start.m, 0.f, factors.all_a(), queries, dquery, 0);
    through(dr, start.momentum, 1.f, factors.all_b(), queries, dquery, 1);
    gemm_serial(isa, gemm_scratch, n, cols, n, 1.f, row_major(grown, ld), keys, 1.f, dquery, ld_in);
    gemm_serial(isa, gemm_scratch, n, cols, n, 1.f, transposed(grown, ld), queries, 0.f, dkey, ld_in);
    const float* dnext = at.learns ? at.next + s.first(m) + task.head * s.matrix(m) : nullptr;
    through(errors, dnext, 1.f, {factors.w(n - 1), 1}, keys, dkey, 2);
    through(errors, dnext ? dnext + s.weights() : nullptr, 1.f, {factors.m(n - 1), 1}, keys, dkey, 3);
  });

  over_columns(q, s, step, out, [&](const Task& task, Bump work) {
    const TitansSegment& at = task.at;
    const std::int64_t n = at.count, cols = task.cols, here = place(at), channel = task.head * out + task.first;
    float* gemm_scratch = work.take(gemm_scratch_floats);
    float* part = work.take(s.segment * cols);
    const Start start(s, at, memory, m, task.head);
    const Factor factors(s, tokens, at);
    const float* dr = scratch.read[m] + here * ld_out + channel;
    float* weighted = scratch.weighted[m] + here * ld_out + channel;
    float* derror = scratch.error[m] + here * ld_out + channel;
    for (std::int64_t t = 0; t < n; ++t)
      dispatch<Scaled>(isa, cols, factors.a(t), dr + t * ld_out, weighted + t * ld_out);
    gemm_serial(isa, gemm_scratch, n, cols, n, 1.f,
                transposed(tokens.scores + at.first * ld + task.head * s.segment, ld), row_major(dr, ld_out), 0.f,
                derror, ld_out);
    float* states = scratch.states + ((before + task.index) * step.rows + here) * 3;
    std::fill(states, states + 3, 0.f);
    if (!at.learns) return;
    const ConstView keys = row_major(at.rows + s.key(m) + task.head * in, row);
    const float* dnext = at.next + s.first(m) + task.head * s.matrix(m) + task.first * in;
    for (int i = 0; i < 2; ++i, dnext += s.weights()) {
      const float* weights = i == 0 ? factors.w(n - 1) : factors.m(n - 1);
      gemm_serial(isa, gemm_scratch, n, cols, in, 1.f, keys, transposed(dnext, in), 0.f, part, cols);
      for (std::int64_t j = 0; j < n; ++j)
        dispatch<AddScaled>(isa, cols, weights[j], part + j * cols, derror + j * ld_out);
      if (i == 0) states[0] = dot(isa, cols * in, dnext, start.m + task.first * in);
      if (start.momentum) states[1 + i] = dot(isa, cols * in, dnext, start.momentum + task.first * in);
    }
  });
}

/// Gradients of a segment's alpha, eta and theta from those of all that is made of the factors.
inline void factors_backward(const TitansShape& s, const TitansStep& step, const TitansTokens& tokens,
                             const TitansSegment& at, const TitansScratch& scratch, float* dgates) {
  const std::int64_t n = at.count, here = at.first - step.first, ld = s.memory_heads * s.segment;
  const Factor factors(s, tokens, at);
  float dw[TitansShape::most_segment] = {}, dm[TitansShape::most_segment] = {};
  float da = 0, db = 0, dp = 0;
  const auto each_task = [&](bool of_in, auto f) {  // tasks of a segment that were there
    std::int64_t first = 0;
    for (int m = 0; m < s.matrices(); ++m) {
      const std::int64_t count = s.memory_heads * ceil_div(of_in ? s.in(m) : s.out(m), step.cols);
      for (std::int64_t i = first; i < first + count; ++i) f(i);
      first += s.memory_heads * ceil_div(std::max(s.in(m), s.out(m)), step.cols);
    }
  };
  const auto dots = [&](std::int64_t task, int i, std::int64_t t) {
    return scratch.dots[(task * 4 + i) * step.rows + here + t];
  };
  each_task(false, [&](std::int64_t i) {
    const float* states = scratch.states + (i * step.rows + here) * 3;
    da += states[0], db += states[1], dp += states[2];
  });
  each_task(true, [&](std::int64_t i) {
    for (std::int64_t j = 0; j < n; ++j) dw[j] += dots(i, 2, j), dm[j] += dots(i, 3, j);
  });
  for (std::int64_t t = n - 1; t >= 0; --t) {
    const float* gates = tokens.gates + (at.first + t) * 3;
    const float keep = 1.f - gates[0], eta = gates[1];
    for (int m = 0; m < s.matrices(); ++m)
      for (std::int64_t head = 0; head < s.memory_heads; ++head) {
        const float* of = scratch.products + (m * step.rows + here + t) * ld + head * s.segment;
        for (std::int64_t j = 0; j <= t; ++j) dw[j] += of[j];
      }
    each_task(true, [&](std::int64_t i) { da += dots(i, 0, t), db += dots(i, 1, t); });
    for (std::int64_t j = 0; j <= t; ++j) dm[j] += dw[j];
    dp += db;
    float dkeep = da * (t > 0 ? factors.a(t - 1) : 1.f) + db * (t > 0 ? factors.b(t - 1) : 0.f);
    float deta = dp * (t > 0 ? factors.p(t - 1) : 1.f);
    for (std::int64_t j = 0; j < t; ++j) {
      dkeep += dw[j] * factors.w(t - 1)[j];
      deta += dm[j] * factors.m(t - 1)[j];
      dw[j] *= keep, dm[j] *= eta;
    }
    float* to = dgates + (at.first + t) * 3;
    to[0] = -dkeep, to[1] = deta, to[2] = -dm[t];
    da *= keep, db *= keep, dp *= eta;
  }
}

/// Products left^T right that make the gradient of a matrix: rows of `left` are of results, those of `right` of inputs.
struct Outer {
  const float* left;
  std::int64_t ld_left;
  float scale;
  const float* right;
  std::int64_t ld_right;
};

}  // namespace titans_parts

CHIMERA_FUNCTION void titans_segments(const Cpu&, const TitansShape& s, const Batch& batch, const TitansTokens& tokens,
                                      const float* persistent, float* states, float* last,
                                      const TitansSegments& segments) {
  const std::int64_t T = batch.length, kept = s.steps(T);
  std::int32_t *to_segment = segments.first_segment, *to_row = segments.first_row;
  const auto start_of = [&](std::int64_t b, std::int64_t t) {
    return batch.document_start ? std::int64_t{batch.document_start[b * T + t]} : 0;
  };
  // Counts of a step stand one place behind it at first, so that sums of them say where it begins.
  std::fill_n(to_segment, segments.steps + 1, 0);
  std::fill_n(to_row, segments.steps + 1, 0);
  for (std::int64_t b = 0; b < batch.sequences; ++b)
    for (std::int64_t t = 0; t < T; ++t) {
      const std::int64_t in_document = t - start_of(b, t), k = in_document / s.segment;
      to_segment[k + 1] += in_document % s.segment == 0;
      ++to_row[k + 1];
    }
  for (std::int64_t k = 0; k < segments.steps; ++k) to_segment[k + 1] += to_segment[k], to_row[k + 1] += to_row[k];
  for (std::int64_t b = 0; b < batch.sequences; ++b)
    for (std::int64_t t = 0; t < T;) {
      const std::int64_t begin = start_of(b, t), k = (t - begin) / s.segment;
      std::int64_t end = t + 1;
      while (end < T && start_of(b, end) == begin && (end - begin) / s.segment == k) ++end;
      // A segment that is not a document's first has a whole one before it: no two begin in the same stretch of a row.
      const auto state = [&](std::int64_t token) { return states + (b * kept + token / s.segment) * s.state(); };
      const bool goes_on = end < T && start_of(b, end) == begin;
      const std::int64_t row = to_row[k];
      segments.all[to_segment[k]++] = {.first = row,
                                       .count = end - t,
                                       .before = 0,
                                       .start = k > 0 ? state(t) : nullptr,
                                       .next = goes_on            ? state(end)
                                               : end == T && last ? last + b * s.state()
                                                                  : nullptr,
                                       .learns = goes_on ? s.tbptt == 0 || (k + 1) % s.tbptt != 0 : end == T && last,
                                       .rows = tokens.rows + row * s.row(),
                                       .attention = tokens.attention + row * s.attention_row(),
                                       .persistent = persistent,
                                       .factors = nullptr};
      for (; t < end; ++t) segments.token[to_row[k]++] = static_cast<std::int32_t>(b * T + t);
    }
  for (std::int64_t k = segments.steps; k > 0; --k) to_segment[k] = to_segment[k - 1], to_row[k] = to_row[k - 1];
  to_segment[0] = to_row[0] = 0;
}

CHIMERA_FUNCTION void titans_gather(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* token,
                                    const float* x, float* y) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t r = first; r < first + count; ++r) std::copy_n(x + token[r] * width, width, y + r * width);
  });
}

CHIMERA_FUNCTION void titans_scatter(const Cpu& q, std::int64_t n, std::int64_t width, const std::int32_t* token,
                                     const float* x, float* y) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t r = first; r < first + count; ++r) std::copy_n(x + r * width, width, y + token[r] * width);
  });
}

CHIMERA_FUNCTION void titans_queries(const Cpu& q, const TitansShape& s, std::int64_t rows,
                                     const TitansTokens& tokens) {
  const std::int64_t block = s.block();
  parallel_rows(q, rows, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t at = first * s.width; at < (first + count) * s.width; at += block)
      dispatch<titans_parts::Unit>(q.isa(), block, tokens.raw + at, tokens.query_x + at);
  });
}

CHIMERA_FUNCTION void titans_recall(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                    const TitansMemory& memory, const TitansTokens& tokens) {
  using namespace titans_parts;
  const std::int64_t hidden = s.all_hidden();
  if (hidden > 0)
    apply(q, s, step, memory, 0, 1.f, {tokens.query_x, s.width}, 0.f, {tokens.hidden_x, hidden},
          [&](const Task& task, const float* made) {
            float* active = tokens.active_x + (made - tokens.hidden_x);
            for (std::int64_t t = 0; t < task.at.count; ++t)
              dispatch<Silu>(q.isa(), task.cols, made + t * hidden, active + t * hidden);
          });
  const Rows x = hidden > 0 ? Rows{tokens.active_x, hidden} : Rows{tokens.query_x, s.width};
  apply(q, s, step, memory, s.last(), 1.f, x, 0.f, {tokens.h, s.width}, nothing);
}

CHIMERA_FUNCTION void titans_turn(const Cpu& q, const TitansShape& s, const RopeTurns& turns, const TitansStep& step,
                                  float sign, float* queries, float* attention) {
  const RopeShape shape{s.heads, s.head_dim, s.head_dim, 0, RopeLayout::halves};
  titans_parts::over_tokens(q, step, [&](const TitansSegment& at, std::int64_t t) {
    float angles[2 * Rope::most_pairs];
    rope_angles(q.isa(), turns, s.head_dim, shape.layout, at.before + t, angles);
    float* row = attention + (at.first + t) * s.attention_row();
    for (float* heads : {queries + (at.first + t) * s.attended(), row, row + s.key_value()})
      rotate(q.isa(), shape, sign, angles, heads);
  });
}

CHIMERA_FUNCTION void titans_attention(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                       const TitansTokens& tokens) {
  using namespace titans_parts;
  const Isa isa = q.isa();
  parallel(q, step.count * s.heads, step.rows * s.attended() * most_keys(s), [&](std::int64_t index, int worker) {
    const TitansSegment& at = step.segments[index / s.heads];
    const std::int64_t head = index % s.heads, n = at.count, total = at.before + n, D = s.head_dim;
    Bump work{q.scratch(worker)};
    float* scratch = work.take(gemm_scratch_floats);
    const Keys keys(s, at, head, total);
    float* scores = work.take(n * keys.count);
    const ConstView queries = row_major(tokens.q + at.first * s.attended() + head * D, s.attended());
    float* mixed = tokens.mixed + at.first * s.attended() + head * D;
    for (const Keys::Part& part : keys.parts)
      if (part.count > 0)
        gemm_serial(isa, scratch, n, part.count, D, s.scale(), queries, part.keys.transpose(), 0.f, scores + part.first,
                    keys.count);
    for (std::int64_t t = 0; t < n; ++t)
      dispatch<Attend>(isa, s.persistent, total, at.before + t + 1, scores + t * keys.count,
                       tokens.lse + (at.first + t) * s.heads + head);
    float beta = 0.f;
    for (const Keys::Part& part : keys.parts) {
      if (part.count == 0) continue;
      gemm_serial(isa, scratch, n, D, part.count, 1.f, row_major(scores + part.first, keys.count), part.values, beta,
                  mixed, s.attended());
      beta = 1.f;
    }
  });
}

CHIMERA_FUNCTION void titans_inputs(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                    const TitansGates& gates, const TitansTokens& tokens) {
  using namespace titans_parts;
  const std::int64_t block = s.block(), width = s.width;
  over_tokens(q, step, [&](const TitansSegment& at, std::int64_t t) {
    const std::int64_t r = at.first + t;
    float* row = at.rows + (at.before + t) * s.row();
    for (std::int64_t c = 0; c < width; c += block) {
      dispatch<Unit>(q.isa(), block, tokens.raw_q + r * width + c, tokens.query[0] + r * width + c);
      dispatch<Unit>(q.isa(), block, tokens.raw_kv + r * 2 * width + c, row + s.key(0) + c);
    }
    dispatch<Value>(q.isa(), width, tokens.raw_kv + r * 2 * width + width, row + s.error(s.last()));
    float* gate = tokens.gates + r * 3;
    gate[0] = sigmoid_of(gate[0] + *gates.forget);
    gate[1] = sigmoid_of(gate[1] + *gates.momentum);
    gate[2] = gates.step_max * sigmoid_of(gate[2] + *gates.step);
  });
}

CHIMERA_FUNCTION void titans_update(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                    const TitansMemory& memory, const TitansTokens& tokens) {
  using namespace titans_parts;
  const std::int64_t hidden = s.all_hidden(), row = s.row();
  parallel(q, step.count, step.rows * s.segment * 16, [&](std::int64_t i, int) {
    const TitansSegment& at = step.segments[i];
    float* f = tokens.factors + at.first * s.factors();
    const float* before = at.before > 0 ? at.factors : nullptr;
    for (std::int64_t t = 0; t < at.count; ++t, f += s.factors()) {
      dispatch<Factors>(q.isa(), s.segment, at.before + t, tokens.gates + (at.first + t) * 3, before, f);
      before = f;
    }
    if (at.factors) std::copy_n(before, s.factors(), at.factors);
  });
  const auto of_rows = [&](std::int64_t offset) { return Rows{nullptr, row, offset}; };
  if (hidden > 0) {
    apply(q, s, step, memory, 0, 1.f, of_rows(s.key(0)), 0.f, {tokens.hidden, hidden},
          [&](const Task& task, const float* made) {
            float* active = of_rows(s.key(1)).of(task.at) + task.head * s.hidden + task.first;
            for (std::int64_t t = 0; t < task.at.count; ++t)
              dispatch<Silu>(q.isa(), task.cols, made + t * hidden, active + t * row);
          });
    apply(q, s, step, memory, 1, 2.f, of_rows(s.key(1)), 1.f, of_rows(s.error(1)), nothing);
    apply_transposed(q, s, step, memory, 1, 1.f, of_rows(s.error(1)), 0.f, {tokens.back, hidden},
                     [&](const Task& task, const float* made) {
                       const float* before = tokens.hidden + (made - tokens.back);
                       float* error = of_rows(s.error(0)).of(task.at) + task.head * s.hidden + task.first;
                       for (std::int64_t t = 0; t < task.at.count; ++t)
                         dispatch<SiluBackward>(q.isa(), task.cols, before + t * hidden, made + t * hidden,
                                                error + t * row);
                     });
    read(q, s, step, memory, tokens, 0, [&](const Task& task, const float* made) {
      float* active = tokens.query[1] + (made - tokens.read[0]);
      for (std::int64_t t = 0; t < task.at.count; ++t)
        dispatch<Silu>(q.isa(), task.cols, made + t * hidden, active + t * hidden);
    });
  } else {
    apply(q, s, step, memory, 0, 2.f, of_rows(s.key(0)), 1.f, of_rows(s.error(0)), nothing);
  }
  read(q, s, step, memory, tokens, s.last(), nothing);
}

CHIMERA_FUNCTION void titans_output(const Cpu& q, const TitansShape& s, std::int64_t n, float eps, float scale,
                                    const std::int32_t* token, const TitansTokens& tokens, const float* w,
                                    const float* w_memory, float* out) {
  parallel_rows(q, n, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t r = first; r < first + count; ++r)
      dispatch<titans_parts::Gated>(q.isa(), s.width, eps, scale, tokens.y + r * s.width,
                                    tokens.read[s.last()] + r * s.width, w, w_memory, out + token[r] * s.width);
  });
}

CHIMERA_FUNCTION void titans_output_backward(const Cpu& q, const TitansShape& s, std::int64_t n, float eps, float scale,
                                             const std::int32_t* token, const TitansTokens& tokens, const float* w,
                                             const float* w_memory, const float* dout, float* dy,
                                             const TitansGradients& gradients, float* dw, float* dw_memory, Bump temp) {
  const std::int64_t width = s.width;
  const float* partial = norm_sums(q, n, 2 * width, temp, [&](std::int64_t first, std::int64_t count, float* sums) {
    for (std::int64_t r = first; r < first + count; ++r)
      dispatch<titans_parts::GatedBackward>(q.isa(), width, eps, scale, tokens.y + r * width,
                                            tokens.read[s.last()] + r * width, w, w_memory, dout + token[r] * width,
                                            dy + r * width, gradients.read + r * width, sums, sums + width);
  });
  sum_rows(q, norm_blocks(n), 2 * width, width, partial, dw);
  sum_rows(q, norm_blocks(n), 2 * width, width, partial + width, dw_memory);
}

CHIMERA_FUNCTION void titans_update_backward(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                             const TitansMemory& memory, const TitansTokens& tokens,
                                             const TitansGradients& gradients, const TitansScratch& scratch) {
  using namespace titans_parts;
  const std::int64_t hidden = s.all_hidden(), width = s.width, first = step.first;
  const auto of_step = [&](float* base, std::int64_t stride) { return Rows{base, stride, 0, first}; };
  const Isa isa = q.isa();
  TitansScratch t = scratch;
  t.read[s.last()] = gradients.read + first * width;
  t.error[s.last()] = gradients.value + first * width;
  t.key[0] = gradients.key + first * width, t.query[0] = gradients.query + first * width;
  read_backward(q, s, step, memory, tokens, s.last(), t);
  const std::int64_t n = step.rows;
  if (hidden > 0) {
    parallel_rows(q, n, 16, [&](std::int64_t from, std::int64_t count, int) {
      dispatch<SiluBackward>(isa, count * hidden, tokens.read[0] + (first + from) * hidden, t.query[1] + from * hidden,
                             t.read[0] + from * hidden);
    });
    read_backward(q, s, step, memory, tokens, 0, t);
    parallel_rows(q, n, 16, [&](std::int64_t from, std::int64_t count, int) {
      dispatch<SlopeBackward>(isa, count * hidden, tokens.hidden + (first + from) * hidden,
                              tokens.back + (first + from) * hidden, t.error[0] + from * hidden, t.back + from * hidden,
                              t.hidden + from * hidden);
    });
    apply(q, s, step, memory, 1, 1.f, of_step(t.back, hidden), 1.f, of_step(t.error[1], width), nothing);
    apply_transposed(q, s, step, memory, 1, 2.f, of_step(t.error[1], width), 1.f, of_step(t.key[1], hidden), nothing);
    parallel_rows(q, n, 16, [&](std::int64_t from, std::int64_t count, int) {
      dispatch<AddSiluBackward>(isa, count * hidden, tokens.hidden + (first + from) * hidden, t.key[1] + from * hidden,
                                t.hidden + from * hidden);
    });
    apply_transposed(q, s, step, memory, 0, 1.f, of_step(t.hidden, hidden), 1.f, of_step(t.key[0], width), nothing);
  } else {
    apply_transposed(q, s, step, memory, 0, 2.f, of_step(t.error[0], width), 1.f, of_step(t.key[0], width), nothing);
  }
  parallel(q, step.count,
           [&](std::int64_t i, int) { factors_backward(s, step, tokens, step.segments[i], t, gradients.gates); });
}

CHIMERA_FUNCTION void titans_inputs_backward(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                             const TitansTokens& tokens, float step_max,
                                             const TitansGradients& gradients, float* draw_q, float* draw_kv) {
  using namespace titans_parts;
  const std::int64_t block = s.block(), width = s.width;
  parallel_rows(q, step.rows, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t r = step.first + first; r < step.first + first + count; ++r) {
      for (std::int64_t c = 0; c < width; c += block) {
        dispatch<UnitBackward>(q.isa(), block, tokens.raw_q + r * width + c, gradients.query + r * width + c,
                               draw_q + r * width + c);
        dispatch<UnitBackward>(q.isa(), block, tokens.raw_kv + r * 2 * width + c, gradients.key + r * width + c,
                               draw_kv + r * 2 * width + c);
      }
      dispatch<ValueBackward>(q.isa(), width, tokens.raw_kv + r * 2 * width + width, gradients.value + r * width,
                              draw_kv + r * 2 * width + width);
      const float* gate = tokens.gates + r * 3;
      float* d = gradients.gates + r * 3;
      d[0] *= gate[0] * (1.f - gate[0]);
      d[1] *= gate[1] * (1.f - gate[1]);
      d[2] *= gate[2] * (1.f - gate[2] / step_max);
    }
  });
}

CHIMERA_FUNCTION void titans_attention_backward(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                                const TitansTokens& tokens, const float* dmixed, float* dq,
                                                float* dattention, float* p, float* dp) {
  using namespace titans_parts;
  const Isa isa = q.isa();
  parallel(q, step.count * s.heads, [&](std::int64_t index, int worker) {
    const TitansSegment& at = step.segments[index / s.heads];
    const std::int64_t head = index % s.heads, n = at.count, D = s.head_dim, ld = s.attended();
    Bump work{q.scratch(worker)};
    float* scratch = work.take(gemm_scratch_floats);
    const Keys keys(s, at, head, n);
    float* scores = work.take(n * keys.count);
    float* grow = work.take(n * keys.count);
    const std::int64_t rows = at.first * ld + head * D;
    const ConstView queries = row_major(tokens.q + rows, ld), dout = row_major(dmixed + rows, ld);
    for (const Keys::Part& part : keys.parts) {
      if (part.count == 0) continue;
      gemm_serial(isa, scratch, n, part.count, D, s.scale(), queries, part.keys.transpose(), 0.f, scores + part.first,
                  keys.count);
      gemm_serial(isa, scratch, n, part.count, D, 1.f, dout, part.values.transpose(), 0.f, grow + part.first,
                  keys.count);
    }
    for (std::int64_t t = 0; t < n; ++t) {
      dispatch<AttendAgain>(isa, s.persistent, n, t + 1, tokens.lse[(at.first + t) * s.heads + head],
                            scores + t * keys.count);
      const float delta = dot(isa, D, dmixed + rows + t * ld, tokens.mixed + rows + t * ld);
      dispatch<AttendBackward>(isa, keys.count, delta, s.scale(), scores + t * keys.count, grow + t * keys.count);
      const std::int64_t to = ((at.first + t) * s.heads + head) * s.persistent;
      std::copy_n(scores + t * keys.count, s.persistent, p + to);
      std::copy_n(grow + t * keys.count, s.persistent, dp + to);
    }
    float beta = 0.f;
    for (const Keys::Part& part : keys.parts) {
      if (part.count == 0) continue;
      const ConstView probability = transposed(scores + part.first, keys.count),
                      gradient = row_major(grow + part.first, keys.count);
      gemm_serial(isa, scratch, n, D, part.count, 1.f, gradient, part.keys, beta, dq + rows, ld);
      beta = 1.f;
      if (part.offset < 0) continue;
      float* to = dattention + at.first * s.attention_row() + part.offset;
      gemm_serial(isa, scratch, part.count, D, n, 1.f, gradient.transpose(), queries, 0.f, to, s.attention_row());
      gemm_serial(isa, scratch, part.count, D, n, 1.f, probability, dout, 0.f, to + s.attended(), s.attention_row());
    }
  });
}

CHIMERA_FUNCTION void titans_persistent_backward(const Cpu& q, const TitansShape& s, std::int64_t n,
                                                 const TitansTokens& tokens, const float* dmixed, const float* p,
                                                 const float* dp, float* dpersistent) {
  parallel(q, s.heads, [&](std::int64_t head, int worker) {
    float* scratch = Bump{q.scratch(worker)}.take(gemm_scratch_floats);
    const std::int64_t ld = s.heads * s.persistent, at = head * s.persistent, D = s.head_dim;
    float* to = dpersistent + head * D;
    gemm_serial(q.isa(), scratch, s.persistent, D, n, 1.f, transposed(dp + at, ld),
                row_major(tokens.q + head * D, s.attended()), 0.f, to, s.key_value());
    gemm_serial(q.isa(), scratch, s.persistent, D, n, 1.f, transposed(p + at, ld),
                row_major(dmixed + head * D, s.attended()), 0.f, to + s.attended(), s.key_value());
  });
}

CHIMERA_FUNCTION void titans_recall_backward(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                             const TitansMemory& memory, const TitansTokens& tokens,
                                             const TitansGradients& gradients, const TitansScratch& scratch) {
  using namespace titans_parts;
  const std::int64_t hidden = s.all_hidden();
  const Rows query{gradients.query_x, s.width}, dh{gradients.h, s.width}, made{scratch.hidden_x, hidden, 0, step.first};
  if (hidden == 0) return apply_transposed(q, s, step, memory, 0, 1.f, dh, 0.f, query, nothing);
  apply_transposed(q, s, step, memory, 1, 1.f, dh, 0.f, made, [&](const Task& task, float* d) {
    const float* before = tokens.hidden_x + step.first * hidden + (d - scratch.hidden_x);
    for (std::int64_t t = 0; t < task.at.count; ++t)
      dispatch<SiluBackward>(q.isa(), task.cols, before + t * hidden, d + t * hidden, d + t * hidden);
  });
  apply_transposed(q, s, step, memory, 0, 1.f, made, 0.f, query, nothing);
}

CHIMERA_FUNCTION void titans_states_backward(const Cpu& q, const TitansShape& s, const TitansStep& step,
                                             const TitansTokens& tokens, const TitansGradients& gradients,
                                             const TitansScratch& scratch, const TitansMemoryGradient& dmemory) {
  using namespace titans_parts;
  const std::int64_t hidden = s.all_hidden(), width = s.width, row = s.row(), first = step.first;
  const Isa isa = q.isa();
  const bool shared = step.segments[0].start == nullptr;  // by all: they are documents' first
  for (int m = 0; m < s.matrices(); ++m) {
    const std::int64_t in = s.in(m), out = s.out(m), ld_out = s.all_out(m), ld_in = s.all_in(m);
    const float* errors = gradients.value + first * width;  // of the last matrix
    // Every product by which the matrix made something, with rows from the step's first on.
    Outer outers[4] = {{scratch.weighted[m], ld_out, 1.f, tokens.query[m] + first * ld_in, ld_in}};
    int count = 1;
    const float* keys = tokens.rows + first * row + s.key(m);
    if (m == s.last()) {
      outers[count++] = {errors, width, 2.f, keys, row};
      outers[count++] = {gradients.h + first * width, width, 1.f,
                         (hidden > 0 ? tokens.active_x : tokens.query_x) + first * ld_in, ld_in};
      if (hidden > 0) outers[count++] = {tokens.rows + first * row + s.error(1), row, 1.f, scratch.back, hidden};
    } else {
      outers[count++] = {scratch.hidden, hidden, 1.f, keys, row};
      outers[count++] = {scratch.hidden_x, hidden, 1.f, tokens.query_x + first * width, width};
    }
    const auto add = [&](float* scratch_memory, std::int64_t head, std::int64_t column, std::int64_t cols,
                         std::int64_t from, std::int64_t n, float* to) {
      for (int i = 0; i < count; ++i)
        gemm_serial(isa, scratch_memory, cols, in, n, outers[i].scale,
                    transposed(outers[i].left + from * outers[i].ld_left + head * out + column, outers[i].ld_left),
                    row_major(outers[i].right + from * outers[i].ld_right + head * in, outers[i].ld_right), 1.f, to,
                    in);
    };
    if (shared) {
      const std::int64_t each = ceil_div(out, step.cols);
      parallel(q, s.memory_heads * each, [&](std::int64_t index, int worker) {
        const std::int64_t head = index / each, column = index % each * step.cols,
                           cols = std::min(step.cols, out - column), place = head * s.matrix(m) + column * in;
        float* to = dmemory.m[m] + place;
        for (std::int64_t i = 0; i < step.count; ++i) {
          const TitansSegment& at = step.segments[i];
          if (at.learns)
            dispatch<AddScaled>(isa, cols * in, Factor(s, tokens, at).a(at.count - 1), at.next + s.first(m) + place,
                                to);
        }
        add(Bump{q.scratch(worker)}.take(gemm_scratch_floats), head, column, cols, 0, step.rows, to);
      });
      continue;
    }
    over_columns(q, s, step, out, [&](const Task& task, Bump work) {
      const TitansSegment& at = task.at;
      const std::int64_t n = at.count, cols = task.cols, from = at.first - first,
                         place = s.first(m) + task.head * s.matrix(m) + task.first * in;
      float* scratch_memory = work.take(gemm_scratch_floats);
      float* part = work.take(s.segment * cols);
      const Factor factors(s, tokens, at);
      float *to = at.start + place, *momentum = to + s.weights();
      if (at.learns) {
        const float* next = at.next + place;
        dispatch<Scaled>(isa, cols * in, factors.a(n - 1), next, to);
        dispatch<Blend>(isa, cols * in, factors.b(n - 1), next, factors.p(n - 1), next + s.weights(), momentum);
      } else {
        std::fill(to, to + cols * in, 0.f);
        std::fill(momentum, momentum + cols * in, 0.f);
      }
      add(scratch_memory, task.head, task.first, cols, from, n, to);
      const float* dr = scratch.read[m] + from * ld_out + task.head * out + task.first;
      if (m == s.last()) dr = gradients.read + at.first * ld_out + task.head * out + task.first;
      for (std::int64_t t = 0; t < n; ++t) dispatch<Scaled>(isa, cols, factors.b(t), dr + t * ld_out, part + t * cols);
      gemm_serial(isa, scratch_memory, cols, in, n, 1.f, transposed(part, cols),
                  row_major(tokens.query[m] + at.first * ld_in + task.head * in, ld_in), 1.f, momentum, in);
    });
  }
}

CHIMERA_FUNCTION void titans_queries_backward(const Cpu& q, const TitansShape& s, std::int64_t rows,
                                              const TitansTokens& tokens, const TitansGradients& gradients) {
  const std::int64_t block = s.block();
  parallel_rows(q, rows, 16, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t at = first * s.width; at < (first + count) * s.width; at += block)
      dispatch<titans_parts::UnitBackward>(q.isa(), block, tokens.raw + at, gradients.query_x + at,
                                           gradients.query_x + at);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
