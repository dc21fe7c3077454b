// A whole model with packed weights, over a pass: some tokens of one sequence or of several, on the states of these.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/injection.hpp>
#include <chimera/kernels/packed/product.hpp>
#include <chimera/layers/injection.hpp>
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
    for (int block = 0; block < C.layers.count; ++block)
      with_block<C>(C.layers.block(block),
                    [&](auto type) { most = std::max(most, decltype(type)::type::decode_bytes(rows)); });
    return static_cast<std::size_t>(bytes_of({rows * width, rows * rank}) + bytes_of<Run>({rows}) + loop_bytes(rows) +
                                    most);
  }

  /// Of a pass: one for each step, and some for the head, so that each is about as much work as a block.
  static constexpr int head_stages = static_cast<int>(
      std::clamp<std::int64_t>(C.vocab * row * C.layers.count / (Layout::parameters - C.vocab * row + 1), 1, 64));
  static constexpr int stages = count + head_stages;

  template <class D>
  static void decode(const D& q, const PackedTensor* weights, const ModelPass& pass, int stage) {
    Bump rest{pass.memory};
    float* x = rest.take(pass.rows * width);
    float* e = rest.take(pass.rows * rank);  // rows of the embedding; then what the head reads of each output
    Run* runs = rest.take<Run>(pass.rows);
    [[maybe_unused]] const LoopState loop(rest, pass.rows);
    if (stage == 0) embed(q, pass.rows, pass.tokens, C.embedding_scale, weights[0].matrix, rank > 0 ? e : x);
    if constexpr (rank > 0)
      if (stage == 0) product(q, weights[Layout::up_slot].matrix, pass.rows, {e, row}, Then::store(x, width), rest);
    if (stage >= count) return write_logits(q, weights, pass, x, e, stage - count, rest);

    const auto i = static_cast<std::size_t>(stage);
    const Step step = steps<C>[i];
    if constexpr (looped) {
      if (begins_pass<C>(step)) begin_pass(q, weights, pass, step.pass, loop, x);
    }
    Pass own{{runs, 0}, 0, pass.kv};
    with_step<C>(step, [&](auto type) {
      using B = typename decltype(type)::type;
      std::size_t at_work = 0;
      for (std::size_t r = 0; r < pass.runs.size(); ++r) {
        if (looped && in_loop<C>(step) && step.pass >= loop.passes[r]) continue;
        const Run& run = pass.runs[r];
        Run& for_block = runs[at_work++] = run;
        for_block.first = own.rows;
        for_block.state = run.state + Layout::states(pass.kv).whole_at[i];
        if constexpr (Layout::template has_ring<B>)
          for_block.ring = run.state + Layout::ring_at(pass.kv, run.context, i);
        own.rows += run.count;
      }
      own.runs = {runs, at_work};
      if (own.rows > 0)
        B::decode(q, PackedWeights<B>{weights + Layout::slot_at[static_cast<std::size_t>(step.block)]}, own, x, rest);
    });
    if constexpr (looped) {
      if (ends_pass<C>(step)) end_pass(q, pass, step.pass, loop, x);
    }
  }

 private:
  static constexpr bool looped = C.loop.on();

  /// What a pass keeps of a loop. There the rows of x and e are those of the runs that are still at work, in their
  /// order.
  struct LoopState {
    float* e = nullptr;              // the norm of what entered [rows,width]
    float* before = nullptr;         // x after the last pass through the loop, if a run may stop
    float* done = nullptr;           // x of the runs that are done, where their rows are
    std::int32_t* passes = nullptr;  // of each run

    LoopState(Bump& memory, std::int64_t rows) {
      if constexpr (looped) {
        for (float** part : {&e, &before, &done}) *part = memory.take(rows * width);
        passes = memory.take<std::int32_t>(rows);
      }
    }
  };
  static std::int64_t loop_bytes(std::int64_t rows) {
    Bump memory;
    LoopState(memory, rows);
    return static_cast<std::int64_t>(memory.used);
  }

  /// Each state starts with zero, and what enters is given to it before each pass.
  template <class D>
  static void begin_pass(const D& q, const PackedTensor* weights, const ModelPass& pass, int number,
                         const LoopState& loop, float* x) {
    const PackedWeights<Injection<C>> w{weights + Layout::loop_slot};
    if (number == 0) {
      for (std::size_t r = 0; r < pass.runs.size(); ++r)
        loop.passes[r] = pass.runs[r].passes > 0 ? pass.runs[r].passes : C.loop.passes;
      Injection<C>::enter(q, w, pass.rows, x, loop.e);
    }
    std::int64_t rows = 0;
    for (std::size_t r = 0; r < pass.runs.size(); ++r) rows += number < loop.passes[r] ? pass.runs[r].count : 0;
    if (rows > 0) Injection<C>::decode(q, w, rows, number > 0 ? x : nullptr, loop.e, x);
  }

  /// Takes out the runs that are done, by their number of passes or because little changes; after the last pass all
  /// rows are whole again.
  template <class D>
  static void end_pass(const D& q, const ModelPass& pass, int number, const LoopState& loop, float* x) {
    const auto floats = [](std::int64_t rows) { return static_cast<std::size_t>(rows * width) * sizeof(float); };
    std::int64_t from = 0, to = 0;  // rows of x before this pass, and of what stays
    for (std::size_t r = 0; r < pass.runs.size(); ++r) {
      const Run& run = pass.runs[r];
      if (number >= loop.passes[r]) continue;
      const float* const h = x + from * width;
      if (run.stop > 0 && number > 0 && number + 1 < loop.passes[r]) {
        double change = 0;
        mean_change(q, run.count * width, h, loop.before + from * width, &change);
        if (change < static_cast<double>(run.stop)) {
          share_states(pass.kv, run, number, loop.passes[r]);
          loop.passes[r] = number + 1;
        }
      }
      if (number + 1 == loop.passes[r]) {
        std::memcpy(loop.done + run.first * width, h, floats(run.count));
      } else {
        std::memmove(x + to * width, h, floats(run.count));
        std::memmove(loop.e + to * width, loop.e + from * width, floats(run.count));
        to += run.count;
      }
      from += run.count;
    }
    if (number + 1 == C.loop.most_passes())
      std::memcpy(x, loop.done, floats(pass.rows));
    else
      std::memcpy(loop.before, x, floats(to));
  }

  /// Gives later passes the states of one, with the keys and values of the run's tokens.
  static void share_states(KvFormat kv, const Run& run, int number, int passes) {
    const auto layers = static_cast<std::size_t>(C.loop.last - C.loop.first + 1);
    const std::size_t first = static_cast<std::size_t>(C.loop.first) + static_cast<std::size_t>(number) * layers;
    for (std::size_t i = first; i < first + layers; ++i)
      with_step<C>(steps<C>[i], [&](auto type) {
        using B = typename decltype(type)::type;
        const auto& whole_at = Layout::states(kv).whole_at;
        const auto bytes = static_cast<std::size_t>(B::state(kv, run.context).whole);
        for (int later = 1; number + later < passes; ++later) {
          const std::size_t to = i + static_cast<std::size_t>(later) * layers;
          std::memcpy(run.state + whole_at[to], run.state + whole_at[i], bytes);
          if constexpr (Layout::template has_ring<B>)
            B::copy_ring(kv, run.context, run.position + run.count, run.state + Layout::ring_at(kv, run.context, i),
                         run.state + Layout::ring_at(kv, run.context, to));
        }
      });
  }

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
