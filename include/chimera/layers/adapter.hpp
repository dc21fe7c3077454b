// Weights that stay as they are, and the few that are learned beside them: low-rank adapters of matrices (LoRA: Hu et
// al., 2106.09685).
#pragma once

#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace chimera::inline CHIMERA_ABI {

/// What is added to a matrix W [out, in]: y += scale B A x. Parts of W's rows, as those of queries and of values, have
/// an A and a B of their own each. A [parts rank, in] and B [rows of all parts, rank] lie in an arena, part after part.
struct Adapter {
  struct Part {
    std::int64_t first = 0, rows = 0;  // of W
  };

  std::size_t a = 0, b = 0;  // floats from the start of the arena
  std::int64_t rank = 0;
  float scale = 1.f;
  std::array<Part, Tensor::most_parts> parts{};
  std::int64_t count = 0;    // of parts
  std::uint64_t number = 0;  // among the model's: its stream of dropout

  constexpr std::int64_t ranks() const { return count * rank; }  // of all parts: columns of A x
};

/// What all adapters have in common while a batch goes through the model.
struct AdapterPass {
  const float* weights = nullptr;  // the arena
  float* gradients = nullptr;      // laid out likewise; null outside training
  float* room = nullptr;           // BaseWeights::room_bytes
  float dropout = 0.f;             // of their inputs
  std::uint64_t seed = 0, stream = 0;
};

struct StoredMatrix;  // kernels/formats/stored_matrix.hpp

/// A weight that gets no gradient: f32, row-major, or a matrix of the device's memory as it is stored.
struct BaseTensor {
  const float* values = nullptr;
  const StoredMatrix* stored = nullptr;
  const Adapter* adapter = nullptr;  // of a matrix; null: it has none
};

/// A model's weights where they stay as they are: by slot, as NamedTensor says it.
struct BaseWeights {
  std::span<const BaseTensor> tensors = {};
  std::uint64_t adapters = 0;
  std::int64_t ranks = 0;   // the most that an adapter has of all parts
  std::int64_t inputs = 0;  // the most columns of a matrix whose input drops out; 0: none does
  float dropout = 0.f;
  int first_block = 0;  // the first that has an adapter

  constexpr std::int64_t room_bytes(std::int64_t rows) const {
    return bytes_of({rows * ranks, rows * ranks, rows * inputs});
  }
};

/// The weights that a batch goes through: a model's arena, or the arena of the adapters of its base.
struct ModelWeights {
  const float* arena = nullptr;
  const BaseWeights* base = nullptr;
};

}  // namespace chimera::inline CHIMERA_ABI
