// How the weights of a model start.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/model/weights_table.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chimera::inline CHIMERA_ABI {

/// Draws every tensor of a table as its row says, each from a stream of its own.
void initialize_weights(std::span<const NamedTensor> tensors, float* weights, std::uint64_t seed);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void initialize_weights(std::span<const NamedTensor> tensors, float* weights, std::uint64_t seed) {
  std::uint64_t stream = 0;
  for (const NamedTensor& t : tensors) {
    float* w = weights + t.offset;
    Random random{seed, stream++, 0};
    const Init& init = t.init;
    const auto each = [&](auto draw) {
      for (std::int64_t i = 0; i < t.size(); ++i) w[i] = draw();
    };
    switch (init.law) {
      case Init::Law::constant: each([&] { return init.a; }); break;
      case Init::Law::normal:
        for (std::int64_t i = 0; i < t.size(); i += 4) {
          const auto four = random.normals();
          for (std::int64_t j = 0; j < 4 && i + j < t.size(); ++j)
            w[i + j] = init.a * four[static_cast<std::size_t>(j)];
        }
        break;
      case Init::Law::uniform: each([&] { return random.uniform(init.a, init.b); }); break;
      case Init::Law::log_uniform:
        each([&] { return std::exp(random.uniform(std::log(init.a), std::log(init.b))); });
        break;
      case Init::Law::even:
        for (std::int64_t i = 0; i < t.size(); ++i)
          w[i] =
              i == 0 ? init.a : init.a + (init.b - init.a) * static_cast<float>(i) / static_cast<float>(t.size() - 1);
        break;
    }
    for (std::int64_t i = 0; i < t.size() && init.then != Init::Then::as_drawn; ++i) {
      const float x = w[i];
      switch (init.then) {
        case Init::Then::as_drawn: break;
        case Init::Then::log: w[i] = std::log(x); break;
        case Init::Then::inverse_softplus: w[i] = x + std::log(-std::expm1(-x)); break;
        case Init::Then::root_decay: w[i] = std::log(1.f / std::sqrt(x) - 1.f); break;
      }
    }
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
