// A language model is a type: the blocks of its pattern between an embedding and a head, all weights in one flat arena.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/config/size.hpp>
#include <chimera/core/random.hpp>
#include <chimera/layers/embedding.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/block.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace chimera::inline CHIMERA_ABI {

/// Draws every tensor of a table as its row says, each from a stream of its own.
inline void initialize_weights(std::span<const NamedTensor> tensors, float* weights, std::uint64_t seed) {
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

template <const Config& C>
class LanguageModel : Check<C> {
  static_assert(Check<C>::ok);
  static_assert(has_all_layers(C),
                "chimera: the pattern names a layer that this version does not have; it has" CHIMERA_MIXER_WORDS);
  static constexpr int layers = C.layers.count;
  static constexpr std::int64_t vocab = C.vocab, width = C.width;

  // The arena: embedding, blocks, norm, output matrix (the embedding again when tied).
  static constexpr auto block_at = [] {
    std::array<std::size_t, layers + 1> at{};
    at[0] = aligned_floats(static_cast<std::size_t>(vocab * width));
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) {
        using B = typename decltype(type)::type;
        at[static_cast<std::size_t>(i) + 1] = at[static_cast<std::size_t>(i)] + offsets<B>[B::params.size()];
      });
    return at;
  }();
  static constexpr std::size_t norm_at = block_at[layers];
  static constexpr std::size_t output_at = C.tied ? 0 : norm_at + aligned_floats(static_cast<std::size_t>(width));

  // Where the state of each block lies in that of a sequence, in bytes: first all that is read whole for every token, which
  // wants large pages, then the rings of keys and values, which fill as a text goes on.
  struct StateLayout {
    std::array<std::size_t, layers> at{};
    std::size_t rings = 0, bytes = 0;
  };
  static constexpr auto state_layouts = [] {
    std::array<StateLayout, kv_formats> all{};
    for (std::size_t kv = 0; kv < kv_formats; ++kv)
      for (const bool ring : {false, true}) {
        all[kv].rings = all[kv].bytes;
        for (std::size_t i = 0; i < layers; ++i)
          if (ring == (C.layers.kind[i] == Kind::attention))
            with_block<C>(C.layers.kind[i], [&](auto type) {
              all[kv].at[i] = all[kv].bytes;
              all[kv].bytes += static_cast<std::size_t>(decltype(type)::type::state_bytes(static_cast<KvFormat>(kv)));
            });
      }
    return all;
  }();
  static constexpr const StateLayout& state_layout(KvFormat kv) { return state_layouts[static_cast<std::size_t>(kv)]; }

  static constexpr std::size_t tensor_count = [] {
    std::size_t n = C.tied ? 2 : 3;
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) {
        for (const Tensor& t : decltype(type)::type::params) n += t.size() > 0;
      });
    return n;
  }();

 public:
  static constexpr const Config& config = C;
  static constexpr std::size_t arena_floats = norm_at + aligned_floats(static_cast<std::size_t>(width)) +
                                              (C.tied ? 0 : aligned_floats(static_cast<std::size_t>(vocab * width)));

  /// Where the weights of each block lie in the table of packed weights, behind the embedding; then the last norm's and
  /// the output matrix's.
  static constexpr auto slot_at = [] {
    std::array<std::size_t, layers + 1> at{1};
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) {
        at[static_cast<std::size_t>(i) + 1] = at[static_cast<std::size_t>(i)] + decltype(type)::type::params.size();
      });
    return at;
  }();
  static constexpr std::size_t norm_slot = slot_at[layers], output_slot = C.tied ? 0 : norm_slot + 1;
  static constexpr std::size_t slots = norm_slot + (C.tied ? 1 : 2);

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
      row.parts = t.parts, row.slot = slot;
    };
    add(-1, end_weights(C)[0], 0, 0);
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) {
        using B = typename decltype(type)::type;
        for (std::size_t p = 0; p < B::params.size(); ++p)
          add(i, B::params[p], block_at[static_cast<std::size_t>(i)] + offsets<B>[p],
              slot_at[static_cast<std::size_t>(i)] + p);
      });
    add(-1, end_weights(C)[1], norm_at, norm_slot);
    add(-1, end_weights(C)[2], output_at, output_slot);
    return table;
  }();

  /// Number of weights.
  static constexpr std::int64_t parameters = [] {
    std::int64_t n = 0;
    for (const NamedTensor& t : tensors) n += t.size();
    return n;
  }();

  // The functions of AnyModel; see there.
  static void initialize(float* weights, std::uint64_t seed);
  static std::size_t loss_floats(std::int64_t sequences, std::int64_t length);
  static std::size_t train_floats(std::int64_t sequences, std::int64_t length);
  static Loss loss(const Cpu& q, const float* weights, const TokenBatch& batch, float* memory);
  static Loss train(const Cpu& q, const float* weights, const TokenBatch& batch, const TrainingStep& step,
                    float* memory, float* gradients);
  static void forward(const Cpu& q, const float* weights, const TokenBatch& batch, float* memory, float* logits);
  static constexpr std::size_t state_bytes(KvFormat kv) { return state_layout(kv).bytes; }
  static void clear_state(KvFormat kv, std::byte* state);
  static void copy_state(KvFormat kv, std::int64_t position, const std::byte* from, std::byte* to);
  static void keep_state_sparse(KvFormat kv, std::byte* state);
  static std::size_t decode_floats(std::int64_t rows);
  static void decode(const Cpu& q, const PackedTensor* weights, const ModelPass& pass, int stage);

  /// Of a pass: one for each block, and some for the head, so that each is about as much work as a block.
  static constexpr int head_stages =
      static_cast<int>(std::clamp<std::int64_t>(vocab * width * layers / (parameters - vocab * width + 1), 1, 64));
  static constexpr int stages = layers + head_stages;

 private:
  static constexpr Head head{vocab, width, C.logit_scale};
  static constexpr std::int64_t run_floats_of_one = sizeof(Run) / sizeof(float);
  static constexpr bool keep_all = !C.checkpointing;
  static constexpr NormShape norm_shape(std::int64_t rows) { return {rows, width, width, C.norm_eps}; }

  template <class B>
  static Weights<B> block(const float* weights, int i) {
    return {weights + block_at[static_cast<std::size_t>(i)]};
  }

  /// Where each block's activations lie: one after the other, or all in the same place when forward is run again.
  template <class F>
  static void each_place(Bump& memory, const Batch& batch, bool keep, bool separate, F f) {
    const std::size_t start = memory.used;
    std::size_t end = start;
    for (int i = 0; i < layers; ++i) {
      f(i, memory);
      with_block<C>(C.layers[i], [&](auto type) { decltype(type)::type::bind(memory, batch, keep); });
      end = std::max(end, memory.used);
      if (!separate) memory.used = start;
    }
    memory.used = end;
  }

  static std::int64_t temp_floats(const Batch& batch) {
    std::int64_t most =
        std::max(floats_of({head.temp_floats(batch.tokens())}), norm_backward_temp(batch.tokens(), width));
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) { most = std::max(most, decltype(type)::type::temp_floats(batch)); });
    return floats_of({most});
  }

  /// Embedding and all blocks, nothing kept: x [B,T,width] is the residual stream. `memory` is what x lies in front of.
  static void run(const Cpu& q, const float* weights, const Batch& batch, const std::int32_t* tokens, float* x,
                  Bump memory) {
    embed(q, batch.tokens(), width, tokens, C.embedding_scale, weights, x);
    for (int i = 0; i < layers; ++i)
      with_block<C>(C.layers[i], [&](auto type) {
        using B = typename decltype(type)::type;
        Bump place = memory;
        auto a = B::bind(place, batch, false);
        B::forward(q, block<B>(weights, i), batch, x, x, a, Dropout{}, place);
      });
  }
  /// One of the head's stages: the logits of its share of the vocabulary.
  static void write_logits(const Cpu& q, const PackedTensor* weights, const ModelPass& pass, const float* x, int part,
                           Bump temp) {
    const PackedMatrix& all = weights[output_slot].matrix;
    const std::int64_t share = (all.parts[0].rows.panels() + head_stages - 1) / head_stages, panel = part * share;
    if (pass.outputs.empty() || panel >= all.parts[0].rows.panels()) return;
    const PackedMatrix some = all.panels(panel, share);
    const NormedRows normed{x, width, weights[norm_slot].values, C.norm_eps};
    product(
        q, some, static_cast<std::int64_t>(pass.outputs.size()),
        [&](std::int64_t i, float* buffer) {
          return normed.row(q.isa(), pass.outputs[static_cast<std::size_t>(i)].row, buffer);
        },
        [&](std::int64_t i, std::int64_t first, std::int64_t count, const float* values) {
          float* out = pass.outputs[static_cast<std::size_t>(i)].logits + panel * panel_rows + first;
          for (std::int64_t r = 0; r < count; ++r) out[r] = values[r] * (1.f / C.logit_scale);
        },
        temp);
  }
  /// What the head reads of a whole batch, [B,T,width]: taken from `memory`.
  static const float* last(const Cpu& q, const float* weights, const TokenBatch& batch, Bump& memory) {
    const std::int64_t n = batch.tokens();
    float* x = memory.take(n * width);
    run(q, weights, batch, batch.inputs, x, memory);
    float* u = memory.take(n * width);
    rms_norm(q, norm_shape(n), x, weights + norm_at, u);
    return u;
  }
  /// Floats of `memory` for `run`, with room for the norm's output and the head.
  static std::size_t run_floats(const Batch& batch) {
    Bump memory;
    each_place(memory, batch, false, false, [](int, Bump&) {});
    memory.take(batch.tokens() * width);
    memory.take(temp_floats(batch));
    return memory.used;
  }
};

template <const Config& C>
void LanguageModel<C>::initialize(float* weights, std::uint64_t seed) {
  initialize_weights(tensors, weights, seed);
}

template <const Config& C>
std::size_t LanguageModel<C>::loss_floats(std::int64_t sequences, std::int64_t length) {
  const Batch batch{.sequences = sequences, .length = length};
  Bump memory;
  memory.take(batch.tokens() * width);
  return memory.used + run_floats(batch);
}

template <const Config& C>
Loss LanguageModel<C>::loss(const Cpu& q, const float* weights, const TokenBatch& batch, float* memory) {
  Bump rest{memory};
  const float* u = last(q, weights, batch, rest);
  return {head.loss(q, batch.tokens(), u, batch.targets, weights + output_at, 1.f, nullptr, nullptr, rest),
          batch.counted()};
}

template <const Config& C>
void LanguageModel<C>::forward(const Cpu& q, const float* weights, const TokenBatch& batch, float* memory,
                               float* logits) {
  Bump rest{memory};
  head.logits(q, batch.tokens(), last(q, weights, batch, rest), weights + output_at, logits);
}

template <const Config& C>
std::size_t LanguageModel<C>::train_floats(std::int64_t sequences, std::int64_t length) {
  const Batch batch{.sequences = sequences, .length = length};
  Bump memory;
  for (int i = 0; i < layers + 3; ++i) memory.take(batch.tokens() * width);  // x of every block and the last, u, dx
  each_place(memory, batch, true, keep_all, [](int, Bump&) {});
  memory.take(temp_floats(batch));
  return memory.used;
}

template <const Config& C>
Loss LanguageModel<C>::train(const Cpu& q, const float* weights, const TokenBatch& batch, const TrainingStep& step,
                             float* memory, float* gradients) {
  const std::int64_t n = batch.tokens();
  Bump rest{memory};
  std::array<float*, layers + 1> x;  // x[i]: what block i reads
  for (float*& residual : x) residual = rest.take(n * width);
  float* u = rest.take(n * width);
  float* dx = rest.take(n * width);
  std::array<Bump, layers> place;
  each_place(rest, batch, true, keep_all, [&](int i, Bump& at) { place[static_cast<std::size_t>(i)] = at; });
  const Bump temp = rest;
  const Dropout drop{C.dropout, step.seed, step.step * (2 * layers + 1)};

  const auto block_forward = [&](int i) {
    with_block<C>(C.layers[i], [&](auto type) {
      using B = typename decltype(type)::type;
      const std::size_t at = static_cast<std::size_t>(i);
      Bump own = place[at];
      auto a = B::bind(own, batch, true);
      B::forward(q, block<B>(weights, i), batch, x[at], x[at + 1], a, drop.branch(2 * at + 1), temp);
    });
  };
  embed(q, n, width, batch.inputs, C.embedding_scale, weights, x[0]);
  drop.apply(q, n * width, x[0]);
  for (int i = 0; i < layers; ++i) block_forward(i);

  rms_norm(q, norm_shape(n), x[layers], weights + norm_at, u);
  float* du = u;  // the head reads a block of u, then writes that block's gradient
  const double sum =
      head.loss(q, n, u, batch.targets, weights + output_at, step.scale, du, gradients + output_at, temp);
  std::fill(dx, dx + n * width, 0.f);
  rms_norm_backward(q, norm_shape(n), x[layers], weights + norm_at, du, dx, gradients + norm_at, temp);

  for (int i = layers - 1; i >= 0; --i) {
    if (!keep_all && i + 1 < layers) block_forward(i);
    with_block<C>(C.layers[i], [&](auto type) {
      using B = typename decltype(type)::type;
      const std::size_t at = static_cast<std::size_t>(i);
      Bump own = place[at];
      auto a = B::bind(own, batch, true);
      B::backward(q, block<B>(weights, i), Weights<B, float>{gradients + block_at[at]}, batch, x[at], dx, a,
                  drop.branch(2 * at + 1), temp);
    });
  }
  drop.apply(q, n * width, dx);
  embed_backward(q, n, width, batch.inputs, C.embedding_scale, dx, gradients);
  return {sum, batch.counted()};
}

template <const Config& C>
void LanguageModel<C>::clear_state(KvFormat kv, std::byte* state) {
  std::memset(state, 0, state_layout(kv).rings);
}

template <const Config& C>
void LanguageModel<C>::copy_state(KvFormat kv, std::int64_t position, const std::byte* from, std::byte* to) {
  const StateLayout& layout = state_layout(kv);
  std::memcpy(to, from, layout.rings);
  if constexpr (Check<C>::has(Kind::attention))
    for (std::size_t i = 0; i < layers; ++i)
      if (C.layers.kind[i] == Kind::attention)
        Attention<C>::copy_rows(kv, position, from + layout.at[i], to + layout.at[i]);
}

template <const Config& C>
void LanguageModel<C>::keep_state_sparse(KvFormat kv, std::byte* state) {
  const StateLayout& layout = state_layout(kv);
  keep_sparse(state + layout.rings, layout.bytes - layout.rings);
}

template <const Config& C>
std::size_t LanguageModel<C>::decode_floats(std::int64_t rows) {
  std::int64_t most = product_floats(rows, width);
  for (int i = 0; i < layers; ++i)
    with_block<C>(C.layers[i], [&](auto type) { most = std::max(most, decltype(type)::type::decode_floats(rows)); });
  return static_cast<std::size_t>(floats_of({rows * width, rows * run_floats_of_one, most}));
}

template <const Config& C>
void LanguageModel<C>::decode(const Cpu& q, const PackedTensor* weights, const ModelPass& pass, int stage) {
  Bump rest{pass.memory};
  float* x = rest.take(pass.rows * width);
  Run* runs = reinterpret_cast<Run*>(rest.take(pass.rows * run_floats_of_one));
  if (stage == 0) {
    const PackedPart& table = weights[0].matrix.parts[0];
    parallel_rows(q, pass.rows, 16, [&](std::int64_t first, std::int64_t count, int) {
      for (std::int64_t t = first; t < first + count; ++t)
        unpack_row(table.rows, pass.tokens[t], C.embedding_scale * table.scale, x + t * width);
    });
  }
  if (stage >= layers) return write_logits(q, weights, pass, x, stage - layers, rest);

  for (std::size_t r = 0; r < pass.runs.size(); ++r) {
    runs[r] = pass.runs[r];
    runs[r].state += state_layout(pass.kv).at[static_cast<std::size_t>(stage)];
  }
  const Pass own{{runs, pass.runs.size()}, pass.rows, pass.kv};
  with_block<C>(C.layers[stage], [&](auto type) {
    using B = typename decltype(type)::type;
    B::decode(q, PackedWeights<B>{weights + slot_at[static_cast<std::size_t>(stage)]}, own, x, rest);
  });
}

/// The model without its type, for running it alone: `train` and `train_floats` are null, and no backward is compiled.
template <const Config& C>
constexpr AnyModel inference_model(std::string_view name) {
  using M = LanguageModel<C>;
  return {.name = name,
          .config = &C,
          .tensors = M::tensors,
          .parameters = M::parameters,
          .arena_floats = M::arena_floats,
          .initialize = M::initialize,
          .loss_floats = M::loss_floats,
          .loss = M::loss,
          .forward = M::forward,
          .slots = M::slots,
          .state_bytes = M::state_bytes,
          .clear_state = M::clear_state,
          .copy_state = M::copy_state,
          .keep_state_sparse = M::keep_state_sparse,
          .decode_floats = M::decode_floats,
          .stages = M::stages,
          .decode = M::decode};
}

/// The model without its type.
template <const Config& C>
constexpr AnyModel any_model(std::string_view name) {
  AnyModel model = inference_model<C>(name);
  model.train_floats = LanguageModel<C>::train_floats;
  model.train = LanguageModel<C>::train;
  return model;
}

}  // namespace chimera::inline CHIMERA_ABI
