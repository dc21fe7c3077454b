// A whole model over batches of tokens: logits, loss and gradient.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/layers/embedding.hpp>
#include <chimera/layers/injection.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/depths.hpp>
#include <chimera/model/layout.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// The functions of AnyModel that see whole batches; see there.
template <const Config& C>
class ModelTraining {
  using Layout = ModelLayout<C>;
  using View = ArenaView<const float>;
  static constexpr std::int64_t width = C.width;
  static constexpr auto unread = static_cast<std::int64_t>(Layout::unread_floats);
  static constexpr std::uint64_t adapter_stream = std::uint64_t{0xADA9} << 40;  // of dropout, apart from other draws
  static constexpr std::int64_t row = C.embedding_width(), rank = C.embedding_rank;
  static constexpr Linear up{width, row}, down{row, width};  // where rank > 0
  static constexpr Head head{C.vocab, row, C.logit_scale, C.logit_cap};
  static constexpr bool keep_all = !C.checkpointing;

  // Passes of a loop in training, those of them that are learned, and their steps.
  static constexpr bool looped = C.loop.on();
  static constexpr bool drawn = looped && C.loop.mean > 0;
  static constexpr int trained = C.loop.trained_passes(), unlearned = C.loop.first_learned(trained);
  static constexpr int learned = trained - unlearned;
  static constexpr auto order = steps<C, learned>;
  static constexpr std::size_t count = order.size();
  /// Streams of dropout: one of the embedding, two of each block at work.
  static constexpr std::uint64_t streams = 2 * steps<C, trained>.size() + 1;

 public:
  static double flops(std::int64_t context) {
    // The embedding is looked up, not multiplied.
    double sum = 2 * static_cast<double>(Layout::parameters - (C.tied ? 0 : C.vocab * row));
    for (const Step step : steps<C, C.loop.passes>)
      with_step<C>(step, [&](auto type) {
        using B = typename decltype(type)::type;
        sum += B::flops(context);
        constexpr std::int64_t weights = [] {  // all that is left of the table in a program
          std::int64_t n = 0;
          for (const Tensor& t : B::params) n += t.size();
          return n;
        }();
        if (step.pass > 0) sum += 2 * static_cast<double>(weights);
      });
    return sum;
  }

  template <Device D>
  static std::size_t loss_bytes(std::int64_t sequences, std::int64_t length, const BaseWeights* base) {
    const Batch batch{.sequences = sequences, .length = length};
    Bump memory;
    if (base) memory.take<std::byte>(base->room_bytes(most_rows(batch)));
    memory.take<std::byte>(tables_bytes<D>(batch, false));
    memory.take(batch.tokens() * rank);
    for (int i = 0; i < (looped ? 2 : 1); ++i) memory.take(batch.tokens() * width);
    memory.take<std::byte>(unkept_bytes(batch, 0, C.layers.count));
    memory.take(batch.tokens() * width);
    memory.take<std::byte>(temp_bytes(batch));
    return memory.used;
  }

  template <Device D>
  static std::size_t train_bytes(std::int64_t sequences, std::int64_t length, const BaseWeights* base) {
    const Batch batch{.sequences = sequences, .length = length};
    const std::size_t activations = count + 3 + (looped ? learned + 3 : 0);  // what train takes of that size
    Bump memory;
    if (base) memory.take<std::byte>(base->room_bytes(most_rows(batch))), memory.take(unread);
    memory.take<std::byte>(tables_bytes<D>(batch, drawn));
    for (std::size_t i = 0; i < activations; ++i) memory.take(batch.tokens() * width);
    for (int i = 0; i < 2; ++i) memory.take(batch.tokens() * rank);
    each_place(memory, batch, [](std::size_t, Bump&) {});
    memory.take<std::byte>(temp_bytes(batch));
    if constexpr (unlearned > 0) memory.take<std::byte>(unkept_bytes(batch, C.loop.first, C.loop.last + 1));
    return memory.used;
  }

  template <Device D>
  static void loss(const D& q, ModelWeights from, const TokenBatch& host, const Objective& objective, std::byte* memory,
                   double* sum) {
    Bump rest{memory};
    const AdapterPass adapters = adapter_pass(from, host, rest);
    const View weights = view(from, adapters);
    const TokenBatch batch = on_device(q, host, nullptr, rest);
    const float* u = for_head(q, weights, batch, rest);
    head.loss(q, objective, host, batch.targets, u, output(weights), 1.f, nullptr, {}, sum, rest);
  }

  template <Device D>
  static void forward(const D& q, ModelWeights from, const TokenBatch& host, std::byte* memory, float* logits) {
    Bump rest{memory};
    const AdapterPass adapters = adapter_pass(from, host, rest);
    const View weights = view(from, adapters);
    const TokenBatch batch = on_device(q, host, nullptr, rest);
    head.logits(q, batch.tokens(), for_head(q, weights, batch, rest), output(weights), logits);
  }

  template <Device D>
  static void train(const D& q, ModelWeights from, const TokenBatch& host, const TrainingStep& step, std::byte* memory,
                    float* gradient, double* sum) {
    const std::int64_t n = host.tokens();
    Bump rest{memory};
    AdapterPass adapters = adapter_pass(from, host, rest);
    const View weights = view(from, adapters);
    ArenaView<float> gradients{gradient};
    if (from.base) {
      adapters.gradients = gradient, adapters.dropout = from.base->dropout;
      adapters.seed = step.seed, adapters.stream = adapter_stream + step.step * from.base->adapters;
      gradients = {rest.take(unread), weights.tensors, &adapters};
    }
    const Depths<C> depths =
        drawn && host.passes == 0
            ? Depths<C>::drawn(host.sequences, step.seed, step.step)
            : Depths<C>(host.sequences, host.passes > 0 ? std::min(host.passes, trained) : trained);
    TokenBatch batch = on_device(q, host, depths.sorted() ? &depths : nullptr, rest);
    batch.share = step.scale * static_cast<float>(step.objective.counted(host));
    std::array<float*, count + 1> x;  // x[i]: what step i reads
    for (float*& residual : x) residual = rest.take(n * width);
    float* u = rest.take(n * width);
    float* dx = rest.take(n * width);
    float* e = rest.take(n * rank);
    float* v = rest.take(n * rank);
    const LoopActivations loop(rest, n);
    std::array<Bump, count> place;
    each_place(rest, batch, [&](std::size_t i, Bump& at) { place[i] = at; });
    const Bump temp = rest;
    const Dropout drop{C.dropout, step.seed, step.step * streams};

    const auto step_forward = [&](std::size_t i) {
      const Batch at_work = batch_of(batch, depths, order[i]);
      if (at_work.sequences == 0) return;
      with_step<C>(order[i], [&](auto type) {
        using B = typename decltype(type)::type;
        Bump own = place[i];
        auto a = B::bind(own, at_work, true);
        B::forward(q, Layout::template block<B>(weights, order[i].block), at_work, x[i], written(x, loop, i), a,
                   drop.branch(stream_of(i)), temp);
      });
    };
    const auto step_backward = [&](std::size_t i) {
      const Batch at_work = batch_of(batch, depths, order[i]);
      if (at_work.sequences == 0) return;
      with_step<C>(order[i], [&](auto type) {
        using B = typename decltype(type)::type;
        const int b = order[i].block;
        Bump own = place[i];
        auto a = B::bind(own, at_work, true);
        B::backward(q, Layout::template block<B>(weights, b), Layout::template block<B>(gradients, b), at_work, x[i],
                    dx, a, drop.branch(stream_of(i)), temp);
      });
    };
    float* const entered = begins_pass<C>(order[0]) ? loop.entered : x[0];
    enter(q, weights, batch, e, entered);
    drop.apply(q, n * width, entered);
    for (std::size_t i = 0; i < count; ++i) {
      if constexpr (looped)
        if (begins_pass<C>(order[i])) {
          if (order[i].pass == 0) begin_loop(q, weights, batch, depths, step, drop, loop, dx, temp);
          begin_pass(q, weights, batch, depths, order[i].pass, loop, x[i]);
        }
      step_forward(i);
    }

    rms_norm(q, Layout::norm_shape(n), x[count], norm_of(weights), u);
    if constexpr (rank > 0) linear(q, down, down_of(weights), n, 1.f, u, width, 0.f, v, row);
    const auto learn_head = [&](float* read) {  // the head reads a block of it, then writes that block's gradient
      head.loss(q, step.objective, host, batch.targets, read, output(weights), step.scale, read, output(gradients), sum,
                temp);
    };
    float* read = rank > 0 ? v : u;
    if (depths.sorted()) {
      const std::int64_t part = host.length * row;
      depths.each([&](std::int64_t s, std::int64_t at) { copy(q, part, read + at * part, dx + s * part); });
      learn_head(dx);
      depths.each([&](std::int64_t s, std::int64_t at) { copy(q, part, dx + s * part, read + at * part); });
    } else {
      learn_head(read);
    }
    float* du = u;
    if constexpr (rank > 0)
      linear_backward(q, down, down_of(weights), down_of(gradients), n, 1.f, v, row, u, width, 0.f, du);
    zero(q, n * width, dx);
    rms_norm_backward(q, Layout::norm_shape(n), x[count], norm_of(weights), du, dx, norm_of(gradients), temp);

    std::size_t first = 0;  // of the steps that are learned
    while (first < count && order[first].block < first_block(step, from.base)) ++first;
    for (std::size_t i = count; i-- > first;) {
      if (!keep_all && i + 1 < count) step_forward(i);
      step_backward(i);
      if constexpr (looped)
        if (begins_pass<C>(order[i])) end_pass(q, weights, gradients, batch, depths, order[i].pass, loop, dx, temp);
    }
    if (first > 0 || from.base) return;
    drop.apply(q, n * width, dx);
    if constexpr (rank > 0) linear_backward(q, up, up_of(weights), up_of(gradients), n, 1.f, dx, width, e, row, 0.f, e);
    embed_backward(q, n, row, batch.inputs, C.embedding_scale, rank > 0 ? e : dx, gradient);
  }

 private:
  static View view(ModelWeights w, const AdapterPass& adapters) {
    if (!w.base) return {w.arena};
    return {nullptr, w.base->tensors.data(), &adapters};
  }
  static auto norm_of(const auto& w) { return w.vector(Layout::norm_at, Layout::norm_slot); }
  static auto up_of(const auto& w) { return w.matrix(Layout::up_at, Layout::up_slot); }
  static auto down_of(const auto& w) { return w.matrix(Layout::down_at, Layout::down_slot); }
  static auto output(const auto& w) { return w.matrix(Layout::output_at, Layout::output_slot); }

  /// Adapters without dropout, and their room.
  static AdapterPass adapter_pass(ModelWeights w, const Batch& batch, Bump& memory) {
    AdapterPass pass{.weights = w.arena};
    if (w.base) pass.room = reinterpret_cast<float*>(memory.take<std::byte>(w.base->room_bytes(most_rows(batch))));
    return pass;
  }
  /// The most that a matrix multiplies at once: a batch's tokens, or the persistent vectors of Titans.
  static constexpr std::int64_t most_rows(const Batch& batch) {
    return std::max<std::int64_t>(batch.tokens(), C.titans.persistent);
  }

  /// What a loop keeps of a batch, [B,T,width] each.
  struct LoopActivations {
    float* entered = nullptr;
    float* e = nullptr;                                         // its norm
    float* de = nullptr;                                        // the gradient of e
    std::array<float*, static_cast<std::size_t>(learned)> h{};  // before each pass that is learned

    LoopActivations(Bump& memory, std::int64_t tokens) {
      if constexpr (looped) {
        for (float** part : {&entered, &e, &de}) *part = memory.take(tokens * width);
        for (float*& state : h) state = memory.take(tokens * width);
      }
    }
  };

  /// Where step i writes.
  static float* written(const std::array<float*, count + 1>& x, const LoopActivations& loop, std::size_t i) {
    if (ends_pass<C>(order[i]) && order[i].pass + 1 < learned)
      return loop.h[static_cast<std::size_t>(order[i].pass) + 1];
    return i + 1 < count && begins_pass<C>(order[i + 1]) ? loop.entered : x[i + 1];
  }

  /// The sequences that go through a step.
  static Batch batch_of(const Batch& batch, const Depths<C>& depths, Step step) {
    Batch at_work = batch;
    if (in_loop<C>(step)) {
      at_work.sequences = depths.at_work(unlearned + step.pass);
      at_work.share *= static_cast<float>(at_work.sequences) / static_cast<float>(batch.sequences);
    }
    return at_work;
  }

  static std::uint64_t stream_of(std::size_t i) {
    constexpr std::size_t skipped = steps<C, trained>.size() - count;
    return 2 * (looped && order[i].block >= C.loop.first ? i + skipped : i) + 1;
  }
  /// Of the first block in a pass that is not learned.
  static std::uint64_t stream_of_pass(int pass) {
    return 2 * static_cast<std::uint64_t>(C.loop.first + pass * (C.loop.last - C.loop.first + 1)) + 1;
  }

  /// The first block that is learned: a loop is learned as a whole.
  static constexpr int first_block(const TrainingStep& step, const BaseWeights* base) {
    const int first = base ? std::max(step.first_block, base->first_block) : step.first_block;
    return looped && first > C.loop.first ? std::max(first, C.loop.last + 1) : first;
  }

  /// e, the state that each sequence starts with, and the passes that are not learned, in place. `room` [B,T,width].
  template <Device D>
  static void begin_loop(const D& q, const View& weights, const Batch& batch, const Depths<C>& depths,
                         const TrainingStep& step, Dropout drop, const LoopActivations& loop, float* room, Bump temp) {
    constexpr std::uint64_t stream = std::uint64_t{0x57A7} << 40;  // apart from those of weights, dropout and data
    constexpr float deviation = C.embedding_scale * Layout::ends[End::embedding].init.a;
    const std::int64_t n = batch.tokens(), part = batch.length * width;
    float* const h = loop.h[0];
    Injection<C>::enter(q, Layout::injection(weights), n, loop.entered, loop.e);
    zero(q, n * width, loop.de);
    truncated_normal(q, n * width, deviation, step.seed, stream + step.step, room);
    depths.each([&](std::int64_t s, std::int64_t place) { copy(q, part, room + s * part, h + place * part); });
    for (int pass = 0; pass < unlearned; ++pass) {
      const Batch at_work = batch_of(batch, depths, {C.loop.first, pass - unlearned});
      if (at_work.sequences > 0) run_pass(q, weights, at_work, h, loop.e, h, drop.branch(stream_of_pass(pass)), temp);
    }
  }

  /// What the first block of a learned pass reads; sequences that join later keep the state that they start with.
  template <Device D>
  static void begin_pass(const D& q, const View& weights, const Batch& batch, const Depths<C>& depths, int pass,
                         const LoopActivations& loop, float* x) {
    const float* const h = loop.h[static_cast<std::size_t>(pass)];
    const std::int64_t n = batch_of(batch, depths, {C.loop.first, pass}).tokens();
    Injection<C>::forward(q, Layout::injection(weights), n, h, loop.e, x);
    if (pass + 1 < learned)
      copy(q, (batch.tokens() - n) * width, h + n * width, loop.h[static_cast<std::size_t>(pass) + 1] + n * width);
  }

  /// dx [B,T,width], of what the first block of a learned pass read, becomes that of the state before; at last that of
  /// what entered the loop.
  template <Device D>
  static void end_pass(const D& q, const View& weights, const ArenaView<float>& gradients, const Batch& batch,
                       const Depths<C>& depths, int pass, const LoopActivations& loop, float* dx, Bump temp) {
    const auto w = Layout::injection(weights);
    const auto dw = Layout::injection(gradients);
    Injection<C>::backward(q, w, dw, batch_of(batch, depths, {C.loop.first, pass}).tokens(),
                           loop.h[static_cast<std::size_t>(pass)], loop.e, dx, loop.de);
    if (pass == 0) Injection<C>::enter_backward(q, w, dw, batch.tokens(), loop.entered, loop.de, dx, temp);
  }

  /// One block over a whole batch in place, nothing kept.
  template <Device D>
  static void run_block(const D& q, const View& weights, int block, const Batch& batch, float* x, Dropout drop,
                        Bump memory) {
    with_block<C>(C.layers.block(block), [&](auto type) {
      using B = typename decltype(type)::type;
      auto a = B::bind(memory, batch, false);
      B::forward(q, Layout::template block<B>(weights, block), batch, x, x, a, drop, memory);
    });
  }
  /// One pass through the loop, likewise: from h to x, which may be the same; h null: zero.
  template <Device D>
  static void run_pass(const D& q, const View& weights, const Batch& batch, const float* h, const float* e, float* x,
                       Dropout drop, Bump memory) {
    Injection<C>::forward(q, Layout::injection(weights), batch.tokens(), h, e, x);
    for (int block = C.loop.first; block <= C.loop.last; ++block)
      run_block(q, weights, block, batch, x, drop.branch(2 * static_cast<std::uint64_t>(block - C.loop.first)), memory);
  }

  /// The batch with its tables where the device reads them: in `memory`, unless the host's are there. What layers read
  /// is in the order of `depths`, if there are any.
  template <Device D>
  static TokenBatch on_device(const D& q, TokenBatch batch, const Depths<C>* depths, Bump& memory) {
    const std::size_t bytes = sizeof(std::int32_t) * static_cast<std::size_t>(batch.length);
    for (const std::int32_t** table : {&batch.inputs, &batch.document_start, &batch.targets}) {
      const bool sorted = depths && table != &batch.targets;
      if (D::shares_memory && !sorted) continue;
      auto* const there = memory.take<std::int32_t>(batch.tokens());
      if (!*table) continue;
      if (sorted)
        depths->each([&](std::int64_t s, std::int64_t place) {
          q.upload(there + place * batch.length, *table + s * batch.length, bytes);
        });
      else
        q.upload(there, *table, bytes * static_cast<std::size_t>(batch.sequences));
      *table = there;
    }
    return batch;
  }
  template <Device D>
  static constexpr std::int64_t tables_bytes(const Batch& batch, bool sorted) {
    return (D::shares_memory ? sorted ? 2 : 0 : 3) * bytes_of<std::int32_t>({batch.tokens()});
  }

  /// Where each learned step's activations lie: one after the other, or all in the same place when forward is run
  /// again.
  template <class F>
  static void each_place(Bump& memory, const Batch& batch, F f) {
    const std::size_t start = memory.used;
    std::size_t end = start;
    for (std::size_t i = 0; i < count; ++i) {
      f(i, memory);
      with_step<C>(order[i], [&](auto type) { decltype(type)::type::bind(memory, batch, true); });
      end = std::max(end, memory.used);
      if (!keep_all) memory.used = start;
    }
    memory.used = end;
  }
  /// Bytes of the activations of any of these blocks, nothing kept.
  static std::int64_t unkept_bytes(const Batch& batch, int first, int end) {
    std::size_t most = 0;
    for (int block = first; block < end; ++block)
      with_block<C>(C.layers.block(block), [&](auto type) {
        Bump memory;
        decltype(type)::type::bind(memory, batch, false);
        most = std::max(most, memory.used);
      });
    return static_cast<std::int64_t>(most);
  }

  static std::int64_t temp_bytes(const Batch& batch) {
    std::int64_t most = std::max(head.temp_bytes(batch.tokens()), norm_backward_bytes(batch.tokens(), width));
    for (int block = 0; block < C.layers.count; ++block)
      with_block<C>(C.layers.block(block),
                    [&](auto type) { most = std::max(most, decltype(type)::type::temp_bytes(batch)); });
    return most;
  }

  /// x [n, width]: what the first block reads. e [n, rank]: the tokens' rows of the embedding, if these are no x yet.
  template <Device D>
  static void enter(const D& q, const View& weights, const TokenBatch& batch, float* e, float* x) {
    const std::int64_t n = batch.tokens();
    const Matrix table = weights.matrix(0, 0);
    float* const rows = rank > 0 ? e : x;
    if (table.stored)
      stored_embed(q, *table.stored, n, batch.inputs, C.embedding_scale, rows);
    else
      embed(q, n, row, batch.inputs, C.embedding_scale, table.w, rows);
    if constexpr (rank > 0) linear(q, up, up_of(weights), n, 1.f, e, row, 0.f, x, width);
  }

  /// What the head reads of a whole batch, [B,T,row], nothing else kept: taken from `memory`. Passes through a loop start
  /// with zero.
  template <Device D>
  static const float* for_head(const D& q, const View& weights, const TokenBatch& batch, Bump& memory) {
    const std::int64_t n = batch.tokens();
    float* e = memory.take(n * rank);
    float* x = memory.take(n * width);
    float* entered = looped ? memory.take(n * width) : nullptr;  // its norm, which the loop is given before each pass
    enter(q, weights, batch, e, x);
    for (int block = 0; block < C.layers.count; ++block) {
      if (!looped || block != C.loop.first) {
        run_block(q, weights, block, batch, x, Dropout{}, memory);
        continue;
      }
      if constexpr (looped) {
        Injection<C>::enter(q, Layout::injection(weights), n, x, entered);
        for (int pass = 0; pass < (batch.passes > 0 ? batch.passes : C.loop.passes); ++pass)
          run_pass(q, weights, batch, pass > 0 ? x : nullptr, entered, x, Dropout{}, memory);
        block = C.loop.last;
      }
    }
    float* u = memory.take(n * width);
    rms_norm(q, Layout::norm_shape(n), x, norm_of(weights), u);
    if constexpr (rank > 0) {
      linear(q, down, down_of(weights), n, 1.f, u, width, 0.f, e, row);
      return e;
    } else {
      return u;
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
