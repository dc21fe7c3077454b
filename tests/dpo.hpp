// Direct preference optimization (Rafailov et al. 2023) as an objective: rows 2i are chosen, rows 2i + 1 are rejected.
#pragma once

#include <chimera/core/batch.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

struct Dpo {
  double beta = 0.3;
  std::vector<float> reference;  // log p of the targets of the batch; empty: of a model that finds all equally likely

  chimera::Objective objective() { return {.self = this, .weigh = weigh, .count = count}; }

 private:
  static std::int64_t count(void*, const chimera::TokenBatch& batch) { return batch.sequences / 2; }

  static double weigh(void* self, const chimera::TokenBatch& batch, const float* log_probs, float* coefficients) {
    const Dpo& dpo = *static_cast<const Dpo*>(self);
    const std::int64_t length = batch.length;
    double loss = 0;
    for (std::int64_t pair = 0; pair < batch.sequences; pair += 2) {
      double margin = 0;
      for (std::int64_t t = pair * length; t < (pair + 2) * length; ++t) {
        const double sign = t < (pair + 1) * length ? 1 : -1;
        const double before = dpo.reference.empty() ? 0. : double{dpo.reference[static_cast<std::size_t>(t)]};
        margin += sign * dpo.beta * (double{log_probs[t]} - before);
      }
      loss += std::log1p(std::exp(-margin));
      const double push = dpo.beta / (1 + std::exp(margin));
      for (std::int64_t t = pair * length; t < (pair + 2) * length; ++t)
        coefficients[t] = static_cast<float>(t < (pair + 1) * length ? push : -push);
    }
    return loss;
  }
};

/// Keeps the log-probabilities of a batch's targets.
struct LogProbs {
  std::vector<float> values;

  chimera::Objective objective() { return {.self = this, .weigh = weigh}; }

 private:
  static double weigh(void* self, const chimera::TokenBatch& batch, const float* log_probs, float*) {
    static_cast<LogProbs*>(self)->values.assign(log_probs, log_probs + batch.tokens());
    return 0;
  }
};
