// Direct preference optimization: of two answers the one that was preferred is to become likelier, the other less
// likely, each compared with what a reference model says of it.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>

#include <cmath>
#include <cstdint>

namespace chimera {

/// What a pair's loss is of h = beta ((log pi(chosen) - log ref(chosen)) - (log pi(rejected) - log ref(rejected))).
enum class DpoLoss : std::uint8_t {
  sigmoid,       // -log sigmoid(h): Rafailov et al. 2023 (2305.18290), equation 7
  conservative,  // -(1 - noise) log sigmoid(h) - noise log sigmoid(-h): Mitchell 2023
  robust,        // (-(1 - noise) log sigmoid(h) + noise log sigmoid(-h)) / (1 - 2 noise): 2403.00409
  ipo,           // (h / beta - 1 / (2 beta))^2: Azar et al. 2023 (2310.12036), equation 17
};

/// What there is to know of some pairs, summed.
struct DpoSeen {
  double pairs = 0, right = 0, margin = 0;  // right: h is above 0; margin: h
  double targets = 0, drift = 0;            // at each target e^d - 1 - d, d = log pi - log ref

  double accuracy() const { return pairs > 0 ? right / pairs : 0; }
  double mean_margin() const { return pairs > 0 ? margin / pairs : 0; }
  /// KL(ref || pi) a token (Schulman's third estimator), as far as the reference would give such answers.
  double kl() const { return targets > 0 ? drift / targets : 0; }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

/// An objective over batches whose rows 2i are chosen and whose rows 2i + 1 are rejected, with the reference's
/// log-probabilities (TokenBatch::reference). It must stay where it is while a trainer has its objective.
struct Dpo {
  DpoLoss loss = DpoLoss::sigmoid;
  double beta = 0.1;
  double noise = 0;        // share of pairs that are the wrong way round, below 0.5
  bool by_length = false;  // an answer's log-probability is the mean over its tokens, not their sum
  DpoSeen seen = {};       // of all batches since the caller cleared it

  Objective objective() { return {.self = this, .weigh = weigh, .count = count}; }

 private:
  /// Of one pair.
  struct Term {
    double loss, slope;  // slope: d loss / d h
  };

  CHIMERA_FUNCTION static std::int64_t count(void*, const TokenBatch& batch);
  CHIMERA_FUNCTION static double weigh(void* self, const TokenBatch& batch, const float* log_probs,
                                       float* coefficients);
  Term term(double h) const;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace dpo_parts {

/// Log-probability of an answer, less the reference's, and its tokens.
struct Answer {
  double difference = 0, targets = 0;
};

inline std::int64_t counted(const TokenBatch& batch, std::int64_t row) {
  std::int64_t n = 0;
  for (std::int64_t t = row * batch.length; t < (row + 1) * batch.length; ++t) n += batch.targets[t] >= 0;
  return n;
}

/// -log sigmoid(x), which does not overflow.
inline double softplus_of_minus(double x) { return x > 0 ? std::log1p(std::exp(-x)) : std::log1p(std::exp(x)) - x; }
inline double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace dpo_parts

CHIMERA_FUNCTION std::int64_t Dpo::count(void*, const TokenBatch& batch) {
  std::int64_t pairs = 0;
  for (std::int64_t row = 0; row + 1 < batch.sequences; row += 2) pairs += dpo_parts::counted(batch, row) > 0;
  return pairs;
}

CHIMERA_FUNCTION Dpo::Term Dpo::term(double h) const {
  using namespace dpo_parts;
  const double wrong = sigmoid_of(-h), right = sigmoid_of(h);  // -d log sigmoid(h) / dh is -wrong, of -h right
  const double keep = 1 - noise;
  switch (loss) {
    case DpoLoss::sigmoid: return {softplus_of_minus(h), -wrong};
    case DpoLoss::conservative:
      return {keep * softplus_of_minus(h) + noise * softplus_of_minus(-h), -keep * wrong + noise * right};
    case DpoLoss::robust:
      return {(keep * softplus_of_minus(h) - noise * softplus_of_minus(-h)) / (1 - 2 * noise),
              (-keep * wrong - noise * right) / (1 - 2 * noise)};
    case DpoLoss::ipo: break;
  }
  const double off = (h - 0.5) / beta;
  return {off * off, 2 * off / beta};
}

CHIMERA_FUNCTION double Dpo::weigh(void* self, const TokenBatch& batch, const float* log_probs, float* coefficients) {
  Dpo& dpo = *static_cast<Dpo*>(self);
  double loss = 0;
  for (std::int64_t pair = 0; pair + 1 < batch.sequences; pair += 2) {
    dpo_parts::Answer answers[2];
    for (std::int64_t side = 0; side < 2; ++side)
      for (std::int64_t t = (pair + side) * batch.length; t < (pair + side + 1) * batch.length; ++t) {
        if (batch.targets[t] < 0) continue;
        const double d = double{log_probs[t]} - (batch.reference ? double{batch.reference[t]} : 0);
        answers[side].difference += d, ++answers[side].targets;
        ++dpo.seen.targets, dpo.seen.drift += std::expm1(d) - d;
      }
    if (answers[0].targets == 0) continue;  // past the end of the data
    double share[2];
    for (int side = 0; side < 2; ++side)
      share[side] = dpo.beta / (dpo.by_length && answers[side].targets > 0 ? answers[side].targets : 1);
    const double h = share[0] * answers[0].difference - share[1] * answers[1].difference;
    const Term found = dpo.term(h);
    loss += found.loss;
    ++dpo.seen.pairs, dpo.seen.right += h > 0, dpo.seen.margin += h;
    for (std::int64_t side = 0; side < 2; ++side) {
      const auto coefficient = static_cast<float>((side == 0 ? -1 : 1) * found.slope * share[side]);
      for (std::int64_t t = (pair + side) * batch.length; t < (pair + side + 1) * batch.length; ++t)
        coefficients[t] = coefficient;
    }
  }
  return loss;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
