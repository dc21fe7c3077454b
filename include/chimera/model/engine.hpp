// A model compiled into a library of its own, and what tells whether program and library can share it.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/version.hpp>
#include <chimera/kernels/packed/matrix.hpp>
#include <chimera/model/any_model.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Sizes and places of what crosses the border between a program and its engine.
inline constexpr std::array<std::size_t, 14> engine_layout{sizeof(AnyModel),
                                                           offsetof(AnyModel, decode),
                                                           sizeof(Config),
                                                           sizeof(NamedTensor),
                                                           offsetof(NamedTensor, slot),
                                                           sizeof(PackedTensor),
                                                           sizeof(ModelPass),
                                                           sizeof(TokenBatch),
                                                           sizeof(BaseWeights),
                                                           sizeof(Loss),
                                                           sizeof(Objective),
                                                           sizeof(Cpu),
                                                           Cpu::scratch_bytes,
                                                           sizeof(Executor)};

/// The members before `model` are read first, and the others only if these agree.
struct Engine {
  std::array<char, 32> version{};  // of the library, ended by zeros
  std::array<std::size_t, engine_layout.size()> layout = engine_layout;
  AnyModel model;

  constexpr explicit Engine(const AnyModel& m) : model(m) {
    for (std::size_t i = 0; i < library_version.size(); ++i) version[i] = library_version[i];
  }
  bool shares_layout() const { return version == Engine(AnyModel{}).version && layout == engine_layout; }
};

/// Under this name an engine's library shows `extern "C" const Engine* chimera_engine()`.
inline constexpr const char* engine_symbol = "chimera_engine";

}  // namespace chimera::inline CHIMERA_ABI
