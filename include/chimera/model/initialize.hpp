// How the weights of a model start.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/model/weights_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

namespace chimera::inline CHIMERA_ABI {

/// Draws every tensor of a table as its row says, each from a stream of its own.
inline void initialize_weights(std::span<const NamedTensor> tensors, int layers, float* weights, std::uint64_t seed) {
  std::uint64_t stream = 0;
  for (const NamedTensor& t : tensors) {
    float* w = weights + t.offset;
    Random random{seed, stream++, 0};
    const auto normal = [&](float deviation) {
      for (std::int64_t i = 0; i < t.size(); i += 4) {
        const auto four = random.normals();
        for (std::int64_t j = 0; j < 4 && i + j < t.size(); ++j)
          w[i + j] = deviation * four[static_cast<std::size_t>(j)];
      }
    };
    const auto each = [&](auto draw) {
      for (std::int64_t i = 0; i < t.size(); ++i) w[i] = draw();
    };
    switch (t.init) {
      case Init::zero: each([] { return 0.f; }); break;
      case Init::one: each([] { return 1.f; }); break;
      case Init::normal: normal(0.02f); break;
      case Init::branch_output: normal(0.02f / std::sqrt(2.f * static_cast<float>(layers))); break;
      case Init::fan_in: normal(1.f / std::sqrt(static_cast<float>(t.cols))); break;
      case Init::conv: {
        const float bound = 1.f / std::sqrt(static_cast<float>(t.cols));
        each([&] { return random.uniform(-bound, bound); });
        break;
      }
      case Init::a_log: each([&] { return std::log(random.uniform(1.f, 16.f)); }); break;
      case Init::dt_bias:
        each([&] {
          const float step = std::max(1e-4f, std::exp(random.uniform(std::log(0.001f), std::log(0.1f))));
          return step + std::log(-std::expm1(-step));
        });
        break;
      case Init::rg_lambda:
        each([&] { return std::log(1.f / std::sqrt(random.uniform(0.81f, 0.998001f)) - 1.f); });
        break;
    }
  }
}

}  // namespace chimera::inline CHIMERA_ABI
