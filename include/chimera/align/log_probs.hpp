// What a model says of answers, without learning from them.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>

#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// An objective that keeps the log-probabilities of a batch's targets, [B,T], 0 where one is not counted.
struct LogProbs {
  std::vector<float> values = {};

  Objective objective() { return {.self = this, .weigh = keep}; }

 private:
  static double keep(void* self, const TokenBatch& batch, const float* log_probs, float*) {
    static_cast<LogProbs*>(self)->values.assign(log_probs, log_probs + batch.tokens());
    return 0;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
