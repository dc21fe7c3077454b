// What a mixture of experts does beside its products: the choice of experts for each token, and the rows of tokens
// sorted by expert. Every token gets its experts; nothing is dropped. The order of all sums is that of experts, so that
// nothing depends on threads.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/f32/elementwise.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/f32/stored_product.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>

namespace chimera {

struct ExpertShape {
  std::int64_t experts, top_k;
  bool sigmoid;  // scores; else softmax over all experts
};

/// Where n tokens go. A *pair* is a token and one of its experts; pairs are numbered by expert, then by token.
struct Routing {
  std::int32_t* expert;  // [n, top_k], rising
  float* weight;         // [n, top_k]: the scores of those, divided by their sum
  std::int32_t* pair;    // [n, top_k]
  std::int32_t* token;   // [n top_k], of a pair
  std::int64_t* first;   // [experts + 1]: the first pair of each expert, and the number of pairs
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

inline Routing bind_routing(Bump& memory, const ExpertShape& s, std::int64_t n) {
  const std::int64_t pairs = n * s.top_k;
  return {memory.take<std::int32_t>(pairs), memory.take<float>(pairs), memory.take<std::int32_t>(pairs),
          memory.take<std::int32_t>(pairs), memory.take<std::int64_t>(s.experts + 1)};
}
constexpr std::int64_t routing_bytes(const ExpertShape& s, std::int64_t n) {
  return 4 * bytes_of({n * s.top_k}) + bytes_of<std::int64_t>({s.experts + 1});
}

/// Calls f(expert, its first pair, its pairs) for each that has some.
template <class F>
void each_expert(const ExpertShape& s, const Routing& r, F f) {
  for (std::int64_t e = 0; e < s.experts; ++e)
    if (r.first[e + 1] > r.first[e]) f(e, r.first[e], r.first[e + 1] - r.first[e]);
}

/// Chooses for each row of logits [n, experts] the top_k experts of the highest score + balance; of equals the first.
/// `balance` [experts] bears on the choice alone (Wang et al., 2408.15664, equation 3).
void route(const Cpu& q, const ExpertShape& s, std::int64_t n, const float* logits, const float* balance,
           const Routing& r);

/// Two terms of the loss that are the layer's own, each a mean over n tokens: balance times experts sum_e f_e P_e, where
/// f_e is the number of choices of e by n and P_e the mean of softmax(logits)_e (Fedus et al., 2101.03961, equation 4;
/// f carries no gradient), and z times (log sum exp logits)^2 (Zoph et al., 2202.08906, equation 5).
struct RouterLoss {
  float balance, z;
};

/// dlogits [n, experts] of dweight [n, top_k] and of `loss`; counts [experts] += choices.
void route_backward(const Cpu& q, const ExpertShape& s, std::int64_t n, const float* logits, const Routing& r,
                    const float* dweight, RouterLoss loss, float* dlogits, float* counts);

/// Rows of tokens for their pairs: out [pairs, width].
void gather_pairs(const Cpu& q, std::int64_t pairs, std::int64_t width, const Routing& r, const float* x, float* out);

/// y [n, width] += scale times the sum of the rows of a token's pairs, times their weights if `weighted`.
void add_pairs(const Cpu& q, const ExpertShape& s, std::int64_t n, std::int64_t width, const Routing& r, bool weighted,
               float scale, const float* rows, float* y);

/// dweight [n, top_k] = a . b of each pair's rows [pairs, width]; then both rows are multiplied by the pair's weight.
void weigh_pairs(const Cpu& q, const ExpertShape& s, std::int64_t n, std::int64_t width, const Routing& r, float* a,
                 float* b, float* dweight);

/// The products of a layer (layers/layer.hpp) with the matrix of each pair's expert, W [experts, out, in].
/// y [pairs, out] = x W_e^T
void expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out, std::int64_t in,
                   const float* w, const float* x, float* y);
/// dx [pairs, in] = scale dy W_e
void expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out, std::int64_t in,
                           const float* w, float scale, const float* dy, float* dx);
/// Both with a matrix that stays as it is stored.
void expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out, std::int64_t in,
                   const StoredMatrix& w, const float* x, float* y);
void expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out, std::int64_t in,
                           const StoredMatrix& w, float scale, const float* dy, float* dx);
/// dW_e += scale dy^T x
void expert_weight_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out, std::int64_t in,
                            float scale, const float* dy, const float* x, float* dw);

/// bias [experts] moves by `rate`: up where an expert has fewer choices than the mean, down where it has more.
void balance_experts(const Cpu& q, std::int64_t experts, float rate, const float* choices, float* bias);

/// Logits [n, experts] of rows x [n, width] for the router's matrix: the same bits for any n.
void router_logits(const Cpu& q, std::int64_t experts, std::int64_t n, std::int64_t width, const float* x,
                   const float* router, float* logits);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace experts_parts {

inline constexpr std::int64_t few_tokens = 16;  // of one task
inline constexpr float least_score = 1e-20f;    // DeepSeek-V3's: sigmoids that are all 0 have equal weights

/// p = softmax(logits); returns log sum exp.
inline float softmax(std::int64_t n, const float* logits, float* p) {
  const float top = *std::max_element(logits, logits + n);
  float sum = 0;
  for (std::int64_t e = 0; e < n; ++e) sum += p[e] = std::exp(logits[e] - top);
  for (std::int64_t e = 0; e < n; ++e) p[e] /= sum;
  return top + std::log(sum);
}
inline float sigmoid(float x) { return 1.f / (1.f + std::exp(-x)); }

inline void scores(const ExpertShape& s, const float* logits, float* p) {
  if (!s.sigmoid) return static_cast<void>(softmax(s.experts, logits, p));
  for (std::int64_t e = 0; e < s.experts; ++e) p[e] = sigmoid(logits[e]);
}

/// The experts of one token, rising, and their weights. A worker's scratch holds the scores.
inline void choose(const ExpertShape& s, const float* logits, const float* balance, float* score, std::int32_t* expert,
                   float* weight) {
  scores(s, logits, score);
  for (std::int64_t k = 0; k < s.top_k; ++k) {
    std::int32_t best = -1;
    for (std::int32_t e = 0; e < s.experts; ++e)
      if (std::find(expert, expert + k, e) == expert + k &&
          (best < 0 || score[e] + balance[e] > score[best] + balance[best]))
        best = e;
    expert[k] = best;
  }
  std::sort(expert, expert + s.top_k);
  float top = logits[expert[0]], sum = 0;  // a softmax over the chosen is the same, and never 0 / 0
  for (std::int64_t k = 1; k < s.top_k; ++k) top = std::max(top, logits[expert[k]]);
  for (std::int64_t k = 0; k < s.top_k; ++k)
    sum += weight[k] = s.sigmoid ? score[expert[k]] + least_score : std::exp(logits[expert[k]] - top);
  for (std::int64_t k = 0; k < s.top_k; ++k) weight[k] /= sum;
}

/// dlogits of one token, beside the terms of its own loss.
inline void weights_backward(const ExpertShape& s, const float* score, const std::int32_t* expert, const float* weight,
                             const float* dweight, float* dlogits) {
  float mean = 0, sum = 0;
  for (std::int64_t k = 0; k < s.top_k; ++k) mean += weight[k] * dweight[k], sum += score[expert[k]] + least_score;
  std::fill_n(dlogits, s.experts, 0.f);
  for (std::int64_t k = 0; k < s.top_k; ++k) {
    const float p = score[expert[k]], centred = dweight[k] - mean;
    dlogits[expert[k]] = s.sigmoid ? centred / sum * p * (1 - p) : centred * weight[k];
  }
}

}  // namespace experts_parts

CHIMERA_FUNCTION void route(const Cpu& q, const ExpertShape& s, std::int64_t n, const float* logits,
                            const float* balance, const Routing& r) {
  parallel_rows(q, n, experts_parts::few_tokens, [&](std::int64_t first, std::int64_t count, int worker) {
    for (std::int64_t t = first; t < first + count; ++t)
      experts_parts::choose(s, logits + t * s.experts, balance, q.scratch(worker), r.expert + t * s.top_k,
                            r.weight + t * s.top_k);
  });
  // Pairs are sorted by counting.
  const std::int64_t pairs = n * s.top_k;
  std::fill_n(r.first, s.experts + 1, std::int64_t{0});
  for (std::int64_t i = 0; i < pairs; ++i) ++r.first[r.expert[i] + 1];
  std::partial_sum(r.first, r.first + s.experts + 1, r.first);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t at = r.first[r.expert[i]]++;
    r.pair[i] = static_cast<std::int32_t>(at);
    r.token[at] = static_cast<std::int32_t>(i / s.top_k);
  }
  for (std::int64_t e = s.experts; e > 0; --e) r.first[e] = r.first[e - 1];
  r.first[0] = 0;
}

CHIMERA_FUNCTION void route_backward(const Cpu& q, const ExpertShape& s, std::int64_t n, const float* logits,
                                     const Routing& r, const float* dweight, RouterLoss loss, float* dlogits,
                                     float* counts) {
  for (std::int64_t e = 0; e < s.experts; ++e) counts[e] += static_cast<float>(r.first[e + 1] - r.first[e]);
  const float tokens = static_cast<float>(n), each = loss.balance * static_cast<float>(s.experts) / (tokens * tokens);
  parallel_rows(q, n, experts_parts::few_tokens, [&](std::int64_t from, std::int64_t count, int worker) {
    float* const p = q.scratch(worker);
    for (std::int64_t t = from; t < from + count; ++t) {
      const float* x = logits + t * s.experts;
      float* const dx = dlogits + t * s.experts;
      experts_parts::scores(s, x, p);
      experts_parts::weights_backward(s, p, r.expert + t * s.top_k, r.weight + t * s.top_k, dweight + t * s.top_k, dx);
      if (loss.balance == 0.f && loss.z == 0.f) continue;
      const float lse = experts_parts::softmax(s.experts, x, p), z = 2 * loss.z * lse / tokens;
      float mean = 0;  // of choices, by softmax
      for (std::int64_t e = 0; e < s.experts; ++e) mean += p[e] * static_cast<float>(r.first[e + 1] - r.first[e]);
      for (std::int64_t e = 0; e < s.experts; ++e)
        dx[e] += p[e] * (each * (static_cast<float>(r.first[e + 1] - r.first[e]) - mean) + z);
    }
  });
}

CHIMERA_FUNCTION void gather_pairs(const Cpu& q, std::int64_t pairs, std::int64_t width, const Routing& r,
                                   const float* x, float* out) {
  parallel_rows(q, pairs, experts_parts::few_tokens, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t i = first; i < first + count; ++i) std::copy_n(x + r.token[i] * width, width, out + i * width);
  });
}

CHIMERA_FUNCTION void add_pairs(const Cpu& q, const ExpertShape& s, std::int64_t n, std::int64_t width,
                                const Routing& r, bool weighted, float scale, const float* rows, float* y) {
  parallel_rows(q, n, experts_parts::few_tokens, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t i = first * s.top_k; i < (first + count) * s.top_k; ++i)
      dispatch<AddScaled>(q.isa(), width, weighted ? scale * r.weight[i] : scale, rows + r.pair[i] * width,
                          y + i / s.top_k * width);
  });
}

CHIMERA_FUNCTION void weigh_pairs(const Cpu& q, const ExpertShape& s, std::int64_t n, std::int64_t width,
                                  const Routing& r, float* a, float* b, float* dweight) {
  parallel_rows(q, n, experts_parts::few_tokens, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t i = first * s.top_k; i < (first + count) * s.top_k; ++i) {
      float* const x = a + r.pair[i] * width;
      float* const y = b + r.pair[i] * width;
      dweight[i] = dot(q.isa(), width, x, y);
      dispatch<Scaled>(q.isa(), width, r.weight[i], x, x);
      dispatch<Scaled>(q.isa(), width, r.weight[i], y, y);
    }
  });
}

CHIMERA_FUNCTION void expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out,
                                    std::int64_t in, const float* w, const float* x, float* y) {
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    training_gemm(q, count, out, in, 1.f, row_major(x + at * in, in), transposed(w + e * out * in, in), 0.f,
                  y + at * out, out);
  });
}

CHIMERA_FUNCTION void expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out,
                                            std::int64_t in, const float* w, float scale, const float* dy, float* dx) {
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    training_gemm(q, count, in, out, scale, row_major(dy + at * out, out), row_major(w + e * out * in, in), 0.f,
                  dx + at * in, in);
  });
}

CHIMERA_FUNCTION void expert_linear(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out,
                                    std::int64_t in, const StoredMatrix& w, const float* x, float* y) {
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    stored_product(q, w.from(e * out, out), count, 1.f, x + at * in, in, 0.f, y + at * out, out);
  });
}

CHIMERA_FUNCTION void expert_input_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out,
                                            std::int64_t in, const StoredMatrix& w, float scale, const float* dy,
                                            float* dx) {
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    stored_input_gradient(q, w.from(e * out, out), count, scale, dy + at * out, out, 0.f, dx + at * in, in);
  });
}

CHIMERA_FUNCTION void expert_weight_gradient(const Cpu& q, const ExpertShape& s, const Routing& r, std::int64_t out,
                                             std::int64_t in, float scale, const float* dy, const float* x, float* dw) {
  each_expert(s, r, [&](std::int64_t e, std::int64_t at, std::int64_t count) {
    training_gemm(q, out, in, count, scale, transposed(dy + at * out, out), row_major(x + at * in, in), 1.f,
                  dw + e * out * in, in);
  });
}

CHIMERA_FUNCTION void balance_experts(const Cpu&, std::int64_t experts, float rate, const float* choices, float* bias) {
  double sum = 0;
  for (std::int64_t e = 0; e < experts; ++e) sum += choices[e];
  for (std::int64_t e = 0; e < experts; ++e) {
    const double more = choices[e] * static_cast<double>(experts) - sum;
    if (more != 0) bias[e] += more < 0 ? rate : -rate;
  }
}

CHIMERA_FUNCTION void router_logits(const Cpu& q, std::int64_t experts, std::int64_t n, std::int64_t width,
                                    const float* x, const float* router, float* logits) {
  parallel_rows(q, n, experts_parts::few_tokens, [&](std::int64_t first, std::int64_t count, int) {
    for (std::int64_t i = first * experts; i < (first + count) * experts; ++i)
      logits[i] = dot(q.isa(), width, x + i / experts * width, router + i % experts * width);
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
