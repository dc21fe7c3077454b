// A model whose type is forgotten: what trainers, checkpoints and programs need of any LanguageModel<C>, so that each
// of them is compiled once and not once for each config.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/batch.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/layers/adapter.hpp>
#include <chimera/model/weights_table.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

struct PackedTensor;  // kernels/packed/matrix.hpp

/// Dropout draws are a function of (seed, step): the same in forward, in recomputation and in backward.
struct TrainingStep {
  float scale = 1.f;       // multiplies the gradient: 1 / (targets in the whole accumulated batch)
  std::uint64_t seed = 0;  // of dropout, and of what a loop draws
  std::uint64_t step = 0;  // one number for each micro-batch
  Objective objective = {};
  int first_block =
      0;  // the weights of those before it, and the embedding as an input, get no gradient; a loop that it
          // lies in gets none, either, unless it is the loop's first
};

/// A pass of a whole model: the state of each run is that of its sequence, model.state_bytes(kv, run.context) of it,
/// 64-byte aligned.
struct ModelPass : Pass {
  const std::int32_t* tokens = nullptr;  // [rows], below the vocab
  std::span<const Output> outputs;
  std::byte* memory = nullptr;  // decode_bytes(rows)
};

/// What is compiled for whole batches; ModelTable's functions of these names say what they do. `train` and its bytes are
/// null in a model compiled for evaluation; `loss` and `forward` are, too, in one for inference.
template <Device D>
struct BatchFunctions {
  void (*initialize)(std::span<const NamedTensor>, float* weights, std::uint64_t seed) = nullptr;
  std::size_t (*loss_bytes)(std::int64_t sequences, std::int64_t length, const BaseWeights*) = nullptr;
  std::size_t (*train_bytes)(std::int64_t sequences, std::int64_t length, const BaseWeights*) = nullptr;
  void (*loss)(const D&, ModelWeights, const TokenBatch&, const Objective&, std::byte* memory, double* sum) = nullptr;
  void (*train)(const D&, ModelWeights, const TokenBatch&, const TrainingStep&, std::byte* memory, float* gradients,
                double* sum) = nullptr;
  void (*forward)(const D&, ModelWeights, const TokenBatch&, std::byte* memory, float* logits) = nullptr;
};

/// On the device D, of whose memory are weights, gradients, working memory, logits and sums of losses; what batches,
/// passes and objectives say is the host's.
template <Device D>
struct ModelTable {
  std::string_view name;
  const Config* config = nullptr;
  std::span<const NamedTensor> tensors;
  std::int64_t parameters = 0;   // weights, padding not counted
  std::size_t arena_floats = 0;  // of weights, and of gradients

  const BaseWeights* base = nullptr;  // of weights that stay as they are: then the arena is of adapters alone

  /// Floating-point operations of forward for one token of a context: two for each weight that multiplies it, and what
  /// layers add (Kaplan et al. 2020, table 1). Scans and elementwise work are not counted. Training takes three times
  /// as many, what checkpointing computes again not counted.
  double (*flops)(std::int64_t context) = nullptr;

  BatchFunctions<D> of_batches;
  bool evaluates() const { return of_batches.loss; }
  bool trains() const { return of_batches.train; }

  void initialize(float* weights, std::uint64_t seed) const {  // in memory of the host
    return of_batches.initialize(tensors, weights, seed);
  }
  /// Bytes of working memory for `loss` / `train` on batches of this shape.
  std::size_t loss_bytes(std::int64_t sequences, std::int64_t length) const {
    return of_batches.loss_bytes(sequences, length, base);
  }
  std::size_t train_bytes(std::int64_t sequences, std::int64_t length) const {
    return of_batches.train_bytes(sequences, length, base);
  }
  /// Adds the batch's loss to *sum: of objective.counted(batch) targets.
  void loss(const D& q, const float* weights, const TokenBatch& batch, const Objective& objective, std::byte* memory,
            double* sum) const {
    of_batches.loss(q, {weights, base}, batch, objective, memory, sum);
  }
  /// The same, and adds step.scale * d(loss)/d(weight) to `gradients`. No dropout when the config's is 0.
  void train(const D& q, const float* weights, const TokenBatch& batch, const TrainingStep& step, std::byte* memory,
             float* gradients, double* sum) const {
    of_batches.train(q, {weights, base}, batch, step, memory, gradients, sum);
  }
  /// Logits [B,T,vocab] of a whole batch, in the memory of `loss`. Targets are not read.
  void forward(const D& q, const float* weights, const TokenBatch& batch, std::byte* memory, float* logits) const {
    of_batches.forward(q, {weights, base}, batch, memory, logits);
  }

  std::size_t slot_count = 0;  // of packed weights
  /// What decoding carries from token to token of one sequence, for a context of at most the config's; all zero at the
  /// start, or as `clear_state` leaves it: keys and values of positions to come are never read.
  std::size_t (*state_bytes)(KvFormat, std::int64_t context) = nullptr;
  void (*clear_state)(KvFormat, std::byte* state) = nullptr;
  /// All that will be read of it after `position` tokens.
  void (*copy_state)(KvFormat, std::int64_t context, std::int64_t position, const std::byte* from,
                     std::byte* to) = nullptr;
  /// Of fresh memory for it, which parts may stay untouched for long: keep_sparse. May be null.
  void (*keep_state_sparse)(KvFormat, std::int64_t context, std::byte* state) = nullptr;
  /// Bytes of working memory of a pass.
  std::size_t (*decode_bytes)(std::int64_t rows) = nullptr;
  int stages = 0;  // of a pass
  int head = 0;    // the first of those that write outputs and do nothing else: they may run again, for other outputs
  /// Does one stage of a pass, which is done when all have run in their order: stages take about the same time, that of
  /// a block. In between, a pass is its memory and the states, and the host may do other things.
  void (*decode)(const D&, const PackedTensor* weights, const ModelPass&, int stage) = nullptr;
};
using AnyModel = ModelTable<Cpu>;

}  // namespace chimera::inline CHIMERA_ABI
