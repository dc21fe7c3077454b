// Runs a whole model on a golden file.
#pragma once

#include "golden.hpp"

#include <chimera/model/language_model.hpp>

namespace goldens {

/// Logits, loss, gradients, decoding and the greedy continuation of a checkpoint.
void run_model(Golden& g, const chimera::Cpu& q, const chimera::AnyModel& model);

template <const chimera::Config& C>
void run_model(Golden& g, const chimera::Cpu& q) {
  run_model(g, q, chimera::any_model<C>("golden"));
}

}  // namespace goldens
