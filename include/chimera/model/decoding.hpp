// A whole model with packed weights, over a pass: some tokens of one sequence or of several, on the states of these.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/packed/product.hpp>
#include <chimera/layers/layer.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera::inline CHIMERA_ABI {

/// The functions of AnyModel that decode; see there.
template <const Config& C>
class ModelDecoding {
  using Layout = ModelLayout<C>;
  static constexpr std::int64_t width = C.width, row = C.embedding_width(), rank = C.embedding_rank;
  static constexpr int count = static_cast<int>(steps<C>.size());

 public:
  static std::size_t state_bytes(KvFormat kv, std::int64_t context) {
    return Layout::ring_at(kv, context, steps<C>.size());
  }

  static void clear_state(KvFormat kv, std::byte* state) { std::memset(state, 0, Layout::states(kv).rings); }

  static void copy_state(KvFormat kv, std::int64_t context, std::int64_t position, const std::byte* from,
                         std::byte* to) {
    std::memcpy(to, from, Layout::states(kv).rings);
    for (std::size_t i = 0; i < steps<C>.size(); ++i)
      with_step<C>(steps<C>[i], [&](auto type) {
        using B = typename decltype(type)::type;
        if constexpr (Layout::template has_ring<B>) {
          const std::size_t at = Layout::ring_at(kv, context, i);
          B::copy_ring(kv, context, position, from + at, to + at);
        }
      });
  }

  static void keep_state_sparse(KvFormat kv, std::int64_t context, std::byte* state) {
    const std::size_t rings = Layout::states(kv).rings;
    keep_sparse(state + rings, state_bytes(kv, context) - rings);
  }

  static std::size_t decode_bytes(std::int64_t rows) {
    std::int64_t most = product_bytes(rows, width);
    for (const Step step : steps<C>)
      with_step<C>(step, [&](auto type) { most = std::max(most, decltype(type)::type::decode_bytes(rows)); });
    return static_cast<std::size_t>(bytes_of({rows * width, rows * rank}) + bytes_of<Run>({rows}) + most);
  }

  /// Of a pass: one for each step, and some for the head, so that each is about as much work as a block.
  static constexpr int head_stages = static_cast<int>(
      std::clamp<std::int64_t>(C.vocab * row * count / (Layout::parameters - C.vocab * row + 1), 1, 64));
  static constexpr int stages = count + head_stages;

  template <class D>
  static void decode(const D& q, const PackedTensor* weights, const ModelPass& pass, int stage) {
    Bump rest{pass.memory};
    float* x = rest.take(pass.rows * width);
    float* e = rest.take(pass.rows * rank);  // rows of the embedding; then what the head reads of each output
    Run* runs = rest.take<Run>(pass.rows);
    if (stage == 0) embed(q, pass.rows, pass.tokens, C.embedding_scale, weights[0].matrix, rank > 0 ? e : x);
    if constexpr (rank > 0)
      if (stage == 0) product(q, weights[Layout::up_slot].matrix, pass.rows, {e, row}, Then::store(x, width), rest);
    if (stage >= count) return write_logits(q, weights, pass, x, e, stage - count, rest);

    const auto i = static_cast<std::size_t>(stage);
    const Pass own{{runs, pass.runs.size()}, pass.rows, pass.kv};
    with_step<C>(steps<C>[i], [&](auto type) {
      using B = typename decltype(type)::type;
      for (std::size_t r = 0; r < pass.runs.size(); ++r) {
        const Run& run = pass.runs[r];
        runs[r] = run;
        runs[r].state = run.state + Layout::states(pass.kv).whole_at[i];
        if constexpr (Layout::template has_ring<B>) runs[r].ring = run.state + Layout::ring_at(pass.kv, run.context, i);
      }
      B::decode(q, PackedWeights<B>{weights + Layout::slot_at[static_cast<std::size_t>(steps<C>[i].block)]}, own, x,
                rest);
    });
  }

 private:
  /// One of the head's stages: the logits of its share of the vocabulary.
  template <class D>
  static void write_logits(const D& q, const PackedTensor* weights, const ModelPass& pass, const float* x, float* e,
                           int part, Bump temp) {
    const PackedMatrix& all = weights[Layout::output_slot].matrix;
    const std::int64_t share = (all.parts[0].rows.panels() + head_stages - 1) / head_stages, panel = part * share;
    if (pass.outputs.empty() || panel >= all.parts[0].rows.panels()) return;
    const Output* outputs = pass.outputs.data();
    const auto rows = static_cast<std::int64_t>(pass.outputs.size());
    const ProductInput last{x, width, weights[Layout::norm_slot].values, width, C.norm_eps, outputs};
    const Then logits = Then::logits(outputs, panel * panel_rows, 1.f / C.logit_scale, C.logit_cap);
    if constexpr (rank > 0) {
      if (part == 0) product(q, weights[Layout::down_slot].matrix, rows, last, Then::store(e, row), temp);
      product(q, all.panels(panel, share), rows, {e, row}, logits, temp);
    } else {
      product(q, all.panels(panel, share), rows, last, logits, temp);
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
