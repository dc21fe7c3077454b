// Where everything of a model lies: its weights in the arena and in the table of packed weights, the state of a
// sequence, all known at compile time.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/size.hpp>
#include <chimera/core/batch.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/layers/injection.hpp>
#include <chimera/model/registry.hpp>
#include <chimera/model/weights_table.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace chimera::inline CHIMERA_ABI {

/// One block at work. Weights lie by block; activations, states and streams of dropout by step.
struct Step {
  int block, pass;
};

/// The blocks in the order in which they work, where tokens pass so many times through the loop.
template <const Config& C, int passes = C.loop.most_passes()>
inline constexpr auto steps = [] {
  constexpr int looped = C.loop.on() ? C.loop.last - C.loop.first + 1 : 0;
  std::array<Step, static_cast<std::size_t>(C.layers.count + looped * (passes - 1))> all{};
  std::size_t n = 0;
  for (int i = 0; i < C.layers.count; ++i)
    if (looped == 0 || i < C.loop.first || i > C.loop.last)
      all[n++] = {i, 0};
    else if (i == C.loop.first)
      for (int pass = 0; pass < passes; ++pass)
        for (int block = C.loop.first; block <= C.loop.last; ++block) all[n++] = {block, pass};
  return all;
}();

/// Whether a step is the first, or the last, of a pass through the loop, and whether it is one of such a pass at all.
template <const Config& C>
constexpr bool begins_pass(Step step) {
  return C.loop.on() && step.block == C.loop.first;
}
template <const Config& C>
constexpr bool ends_pass(Step step) {
  return C.loop.on() && step.block == C.loop.last;
}
template <const Config& C>
constexpr bool in_loop(Step step) {
  return C.loop.on() && step.block >= C.loop.first && step.block <= C.loop.last;
}

/// Calls f(hana::type_c<Block>) for the block of a step.
template <const Config& C, class F>
constexpr void with_step(Step step, F f) {
  with_block<C>(C.layers.block(step.block), f);
}

/// All weights of a model (T = const float) or their gradients (T = float): an arena, or a base; see Weights.
template <class T>
struct ArenaView {
  T* arena;
  const BaseTensor* tensors = nullptr;  // by slot
  const AdapterPass* adapters = nullptr;

  T* vector(std::size_t offset, std::size_t slot) const {
    if (!tensors) return arena + offset;
    if constexpr (std::is_const_v<T>)
      return tensors[slot].values;
    else
      return arena;
  }
  auto matrix(std::size_t offset, std::size_t slot) const {
    if constexpr (std::is_const_v<T>)
      return tensors ? Matrix::of(tensors[slot], adapters) : Matrix{arena + offset};
    else
      return MatrixGradient{tensors ? nullptr : arena + offset};
  }
  template <class Layer>
  Weights<Layer, T> part(std::size_t offset, std::size_t slot) const {
    if (!tensors) return {arena + offset};
    return {arena, tensors + slot, adapters};
  }
};

template <const Config& C>
struct ModelLayout {
  static constexpr int layers = C.layers.count;
  static constexpr std::int64_t vocab = C.vocab, width = C.width;

  // The arena: the embedding and its matrix, blocks, norm, the output's matrices (the last is the embedding when tied),
  // the loop's.
  static constexpr auto ends = end_weights(C);
  static constexpr std::size_t floats_of(std::size_t end) {
    return aligned_floats(static_cast<std::size_t>(ends[end].size()));
  }
  static constexpr std::size_t up_at = floats_of(End::embedding);
  static constexpr auto block_at = [] {
    std::array<std::size_t, layers + 1> at{};
    at[0] = up_at + floats_of(End::up);
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i), [&](auto type) {
        using B = typename decltype(type)::type;
        at[static_cast<std::size_t>(i) + 1] = at[static_cast<std::size_t>(i)] + offsets<B>[B::params.size()];
      });
    return at;
  }();
  static constexpr std::size_t norm_at = block_at[layers];
  static constexpr std::size_t down_at = norm_at + floats_of(End::norm);
  static constexpr std::size_t output_at = C.tied ? 0 : down_at + floats_of(End::down);
  static constexpr std::size_t loop_at = down_at + floats_of(End::down) + floats_of(End::output);
  static constexpr std::size_t arena_floats = loop_at + offsets<Injection<C>>[Injection<C>::params.size()];

  /// Where the weights of each block lie in the table of packed weights, between those of the model's ends.
  static constexpr std::size_t up_slot = 1;
  static constexpr auto slot_at = [] {
    std::array<std::size_t, layers + 1> at{C.embedding_rank ? up_slot + 1 : up_slot};
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i), [&](auto type) {
        at[static_cast<std::size_t>(i) + 1] = at[static_cast<std::size_t>(i)] + decltype(type)::type::params.size();
      });
    return at;
  }();
  static constexpr std::size_t norm_slot = slot_at[layers], down_slot = norm_slot + 1;
  static constexpr std::size_t behind = C.embedding_rank ? down_slot + 1 : down_slot;
  static constexpr std::size_t output_slot = C.tied ? 0 : behind, loop_slot = C.tied ? behind : behind + 1;
  static constexpr std::size_t slot_count = loop_slot + (C.loop.on() ? Injection<C>::params.size() : 0);

  /// Where the state of each step lies in that of a sequence, in bytes: first all that is read whole for every token,
  /// which wants large pages, then the rings, which fill as a text goes on.
  struct States {
    std::array<std::size_t, steps<C>.size()> whole_at{};
    std::size_t rings = 0;
  };
  static constexpr auto state_layouts = [] {
    std::array<States, kv_formats> all{};
    for (std::size_t kv = 0; kv < kv_formats; ++kv) {
      States& s = all[kv];
      std::array<std::size_t, layers> whole{};  // of a block
      for (int i = 0; i < layers; ++i)
        with_block<C>(C.layers.block(i), [&](auto type) {
          using B = typename decltype(type)::type;
          whole[static_cast<std::size_t>(i)] =
              static_cast<std::size_t>(B::state(static_cast<KvFormat>(kv), C.context).whole);
        });
      for (std::size_t i = 0; i < steps<C>.size(); ++i) {
        s.whole_at[i] = s.rings;
        s.rings += whole[static_cast<std::size_t>(steps<C>[i].block)];
      }
    }
    return all;
  }();
  static constexpr const States& states(KvFormat kv) { return state_layouts[static_cast<std::size_t>(kv)]; }

  template <class B>
  static constexpr bool has_ring = B::state(KvFormat::f32, C.context).ring > 0;

  /// Where the ring of a step lies, in bytes, in the state of a sequence with that context; of the step behind the
  /// last: all bytes.
  static constexpr std::size_t ring_at(KvFormat kv, std::int64_t context, std::size_t step) {
    std::size_t at = states(kv).rings;
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i), [&](auto type) {
        using B = typename decltype(type)::type;
        if constexpr (has_ring<B>) at += steps_of(i, step) * static_cast<std::size_t>(B::state(kv, context).ring);
      });
    return at;
  }
  /// How many of the steps before that one are the block's.
  static constexpr std::size_t steps_of(int block, std::size_t step) {
    constexpr int looped = C.loop.on() ? C.loop.last - C.loop.first + 1 : 1, most = C.loop.most_passes();
    const int before = static_cast<int>(step) - block;
    if (!C.loop.on() || block < C.loop.first) return before > 0;
    if (block > C.loop.last) return before > looped * (most - 1);
    return static_cast<std::size_t>(std::clamp((before + looped - 1) / looped, 0, most));
  }

  static constexpr std::size_t tensor_count = [] {
    std::size_t n = C.loop.on() ? Injection<C>::params.size() : 0;
    for (const Tensor& t : ends) n += t.size() > 0;
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i), [&](auto type) {
        for (const Tensor& t : decltype(type)::type::params) n += t.size() > 0;
      });
    return n;
  }();

  /// Name, shape and offset of every weight, in arena order.
  static constexpr std::array<NamedTensor, tensor_count> tensors = [] {
    std::array<NamedTensor, tensor_count> table{};
    std::size_t n = 0;
    const auto add = [&](int block, const Tensor& t, std::size_t offset, std::size_t slot) {
      if (t.size() == 0) return;
      NamedTensor& row = table[n++];
      std::size_t at = 0;
      const auto write = [&](std::string_view s) {
        for (char letter : s) row.text[at++] = letter;
      };
      if (block >= 0) {
        write("blk.");
        for (int unit = block >= 100 ? 100 : block >= 10 ? 10 : 1; unit > 0; unit /= 10)
          row.text[at++] = static_cast<char>('0' + block / unit % 10);
        write(".");
      }
      write(t.name);
      row.rows = t.rows, row.cols = t.cols, row.offset = offset, row.role = t.role, row.init = t.init,
      row.parts = t.parts, row.each = t.each, row.slot = slot;
    };
    add(-1, ends[End::embedding], 0, 0);
    add(-1, ends[End::up], up_at, up_slot);
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i), [&](auto type) {
        using B = typename decltype(type)::type;
        for (std::size_t p = 0; p < B::params.size(); ++p)
          add(i, B::params[p], block_at[static_cast<std::size_t>(i)] + offsets<B>[p],
              slot_at[static_cast<std::size_t>(i)] + p);
      });
    add(-1, ends[End::norm], norm_at, norm_slot);
    add(-1, ends[End::down], down_at, down_slot);
    add(-1, ends[End::output], output_at, output_slot);
    for (std::size_t p = 0; p < Injection<C>::params.size(); ++p)
      add(-1, Injection<C>::params[p], loop_at + offsets<Injection<C>>[p], loop_slot + p);
    return table;
  }();

  /// Number of weights.
  static constexpr std::int64_t parameters = [] {
    std::int64_t n = 0;
    for (const NamedTensor& t : tensors) n += t.size();
    return n;
  }();

  /// One block's slice of an arena, or its weights in a base.
  template <class B, class T>
  static Weights<B, T> block(const ArenaView<T>& w, int i) {
    return w.template part<B>(block_at[static_cast<std::size_t>(i)], slot_at[static_cast<std::size_t>(i)]);
  }
  template <class T>
  static Weights<Injection<C>, T> injection(const ArenaView<T>& w) {
    return w.template part<Injection<C>>(loop_at, loop_slot);
  }
  /// Room for gradients of a base's vectors, which nobody reads, of one layer at a time.
  static constexpr std::size_t unread_floats = [] {
    std::size_t most = std::max(aligned_floats(static_cast<std::size_t>(width)), vector_offsets<Injection<C>>.back());
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers.block(i),
                    [&](auto type) { most = std::max(most, vector_offsets<typename decltype(type)::type>.back()); });
    return most;
  }();
  static constexpr NormShape norm_shape(std::int64_t rows) { return {rows, width, width, C.norm_eps}; }
};

}  // namespace chimera::inline CHIMERA_ABI
