// What every optimizer is: a gradient becomes an update of the weights.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// A named part of a run's state, in the device's memory, which a checkpoint holds bit for bit. A name has at most 15
/// letters.
struct Section {
  std::string_view name;
  std::span<std::byte> bytes;

  static Section of(std::string_view name, float* values, std::size_t count) {
    return {name, std::as_writable_bytes(std::span(values, count))};
  }
};

/// One update of the weights.
struct Update {
  std::int64_t number = 1;  // 1 is the first of the run
  double rate = 0;          // learning rate
  double scale = 1;         // multiplies the gradient
};

template <Device D>
struct OptimizerOn {
  virtual ~OptimizerOn() = default;
  /// All that it remembers from update to update.
  virtual std::span<const Section> state() = 0;
  /// Changes the weights; leaves the gradient zero. Both are arenas of the model whose table it was made for.
  virtual void update(const D& q, float* weights, float* gradient, const Update& update) = 0;
};
using Optimizer = OptimizerOn<Cpu>;

}  // namespace chimera::inline CHIMERA_ABI
