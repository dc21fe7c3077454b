// Weights of whole models to test with.
#pragma once

#include <chimera/core/random.hpp>
#include <chimera/model/any_model.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace chimera {

/// Weights large enough that every tensor matters.
inline std::vector<float> random_weights(const AnyModel& model) {
  std::vector<float> w(model.arena_floats);
  model.initialize(w.data(), 7);
  Random random{11, 0, 0};
  for (const NamedTensor& t : model.tensors)
    for (std::int64_t i = 0; i < t.size(); ++i)
      w[t.offset + static_cast<std::size_t>(i)] +=
          t.role == Role::balance
              ? static_cast<float>(10 * i)  // it chooses: no small step changes that
              : random.normal() * (t.rows > 1 ? 0.7f / std::sqrt(static_cast<float>(t.cols)) : 0.1f);
  return w;
}

}  // namespace chimera
