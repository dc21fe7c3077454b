// What is computed at once: the tokens of a batch in training, of a pass in decoding.
//
// A pass has `rows` tokens, in runs of consecutive tokens of one sequence: one run is a prompt's piece, a run of one
// token is a decode step, several such runs are a batch of sessions. What a row becomes depends on its run alone, not
// on the other rows, and not on the number of threads.
#pragma once

#include <chimera/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

namespace chimera {

struct RopeTurns;  // kernels/f32/rope.hpp

/// What a layer is told of its input: `sequences` rows of `length` tokens each, the first at `position`.
/// `document_start[t]` (one for each token, optional) is the index in its row of the first token of t's document:
/// nothing before it is seen.
struct Batch {
  std::int64_t sequences = 1, length = 0;
  const std::int32_t* document_start = nullptr;
  std::int64_t position = 0;
  float share = 1.f;  // of the step's targets: what terms of the loss that are a layer's own, means of a batch, count
  const RopeTurns* turns = nullptr;  // of the host: attention turns by these instead of the config's; null: by those

  constexpr std::int64_t tokens() const { return sequences * length; }
};

/// Tokens to learn from: `inputs` and `targets` [B,T] row-major. A negative target is not counted. Both must be below
/// the model's vocab: whoever fills a batch checks that.
struct TokenBatch : Batch {
  const std::int32_t* inputs = nullptr;
  const std::int32_t* targets = nullptr;
  // [B,T] each, of the host, for objectives that ask for them; else null.
  const float* reference = nullptr;   // log p of each target in a model to compare with
  const float* old = nullptr;         // log p of each target when it was drawn
  const float* advantages = nullptr;  // how much better than its like each target was
  /// Through the model's loop, at most loop.most (in training loop.passes, unless those are drawn); 0: as the config says.
  int passes = 0;

  std::int64_t counted() const {
    std::int64_t n = 0;
    for (std::int64_t t = 0; t < tokens(); ++t) n += targets[t] >= 0;
    return n;
  }
};

/// Negative log-likelihood, in nats, summed over `count` targets.
struct Loss {
  double sum = 0;
  std::int64_t count = 0;
  double mean() const { return count ? sum / static_cast<double>(count) : 0; }
};

/// What is learned: how the log-probabilities of a batch's targets make its loss, and what each of them counts in the
/// gradient. Without `weigh` it is cross-entropy, for which the logits are computed once.
struct Objective {
  float label_smoothing = 0;  // cross-entropy alone: (1 - smoothing) nll - smoothing mean_v log p_v
  float z_loss = 0;           // cross-entropy alone: + z_loss (log sum_v exp logit_v)^2

  void* self = nullptr;
  float* room = nullptr;  // [2,B,T] of the host, for `weigh` on a device with memory of its own; a trainer brings it
  /// log_probs [B,T], 0 where a target is not counted. Returns the loss and writes coefficients [B,T]: of each target
  /// -d loss/d log p, which is 1 for cross-entropy; those of targets that are not counted are not read.
  double (*weigh)(void* self, const TokenBatch&, const float* log_probs, float* coefficients) = nullptr;
  /// What a batch's loss is divided by to be a mean; null: its counted targets.
  std::int64_t (*count)(void* self, const TokenBatch&) = nullptr;

  std::int64_t counted(const TokenBatch& batch) const { return count ? count(self, batch) : batch.counted(); }
};

/// How a session keeps keys and values.
enum class KvFormat : std::uint8_t { f32, f16, q8_0, q4_0 };
inline constexpr std::size_t kv_formats = 4;

/// Consecutive tokens of one sequence.
struct Run {
  std::int64_t first = 0;            // row of the pass
  std::int64_t count = 1;            // tokens
  std::int64_t position = 0;         // of the first in its sequence
  std::byte* state = nullptr;        // of this sequence; for a layer: what it reads whole for every token
  std::byte* ring = nullptr;         // for a layer: what fills as the text goes on
  std::int64_t context = INT64_MAX;  // tokens that the sequence remembers; a layer may remember fewer
  int passes = 0;                    // through the model's loop; 0: as the config says
  float stop = 0.f;                  // no more of them where they change less; see LoopConfig
};

/// What a layer carries of a sequence, in bytes, multiples of 64: what is read whole for every token, and what fills as
/// the text goes on.
struct StateBytes {
  std::int64_t whole = 0, ring = 0;
};

/// The runs of a pass, in the order of their rows.
struct Pass {
  std::span<const Run> runs;
  std::int64_t rows = 0;
  KvFormat kv = KvFormat::f16;
};

/// A row of a pass whose logits are asked for.
struct Output {
  std::int64_t row = 0;
  float* logits = nullptr;  // [vocab]
};

}  // namespace chimera
