// A whole model over batches of tokens: logits, loss and gradient.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/layers/embedding.hpp>
#include <chimera/model/any_model.hpp>
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
  static constexpr std::int64_t width = C.width;
  static constexpr std::size_t norm_at = Layout::norm_at, output_at = Layout::output_at;
  static constexpr std::int64_t row = C.embedding_width(), rank = C.embedding_rank;
  static constexpr Linear up{width, row}, down{row, width};  // where rank > 0
  static constexpr Head head{C.vocab, row, C.logit_scale, C.logit_cap};
  static constexpr bool keep_all = !C.checkpointing;
  static constexpr std::size_t count = steps<C>.size();

 public:
  static double flops(std::int64_t context) {
    // The embedding is looked up, not multiplied.
    double sum = 2 * static_cast<double>(Layout::parameters - (C.tied ? 0 : C.vocab * row));
    for (const Step step : steps<C>)
      with_step<C>(step, [&](auto type) { sum += decltype(type)::type::flops(context); });
    return sum;
  }

  template <Device D>
  static std::size_t loss_bytes(std::int64_t sequences, std::int64_t length) {
    const Batch batch{.sequences = sequences, .length = length};
    Bump memory;
    memory.take<std::byte>(tables_bytes<D>(batch));
    memory.take(batch.tokens() * rank);
    memory.take(batch.tokens() * width);
    each_place(memory, batch, false, false, [](std::size_t, Bump&) {});
    memory.take(batch.tokens() * width);
    memory.take<std::byte>(temp_bytes(batch));
    return memory.used;
  }

  template <Device D>
  static std::size_t train_bytes(std::int64_t sequences, std::int64_t length) {
    const Batch batch{.sequences = sequences, .length = length};
    Bump memory;
    memory.take<std::byte>(tables_bytes<D>(batch));
    for (std::size_t i = 0; i < count + 3; ++i) memory.take(batch.tokens() * width);  // what train takes of that size
    for (int i = 0; i < 2; ++i) memory.take(batch.tokens() * rank);
    each_place(memory, batch, true, keep_all, [](std::size_t, Bump&) {});
    memory.take<std::byte>(temp_bytes(batch));
    return memory.used;
  }

  template <Device D>
  static void loss(const D& q, const float* weights, const TokenBatch& host, const Objective& objective,
                   std::byte* memory, double* sum) {
    Bump rest{memory};
    const TokenBatch batch = on_device(q, host, rest);
    const float* u = for_head(q, weights, batch, rest);
    head.loss(q, objective, host, batch.targets, u, {weights + output_at}, 1.f, nullptr, {}, sum, rest);
  }

  template <Device D>
  static void forward(const D& q, const float* weights, const TokenBatch& host, std::byte* memory, float* logits) {
    Bump rest{memory};
    const TokenBatch batch = on_device(q, host, rest);
    head.logits(q, batch.tokens(), for_head(q, weights, batch, rest), {weights + output_at}, logits);
  }

  template <Device D>
  static void train(const D& q, const float* weights, const TokenBatch& host, const TrainingStep& step,
                    std::byte* memory, float* gradients, double* sum) {
    const std::int64_t n = host.tokens();
    Bump rest{memory};
    TokenBatch batch = on_device(q, host, rest);
    batch.share = step.scale * static_cast<float>(step.objective.counted(host));
    std::array<float*, count + 1> x;  // x[i]: what step i reads
    for (float*& residual : x) residual = rest.take(n * width);
    float* u = rest.take(n * width);
    float* dx = rest.take(n * width);
    float* e = rest.take(n * rank);
    float* v = rest.take(n * rank);
    std::array<Bump, count> place;
    each_place(rest, batch, true, keep_all, [&](std::size_t i, Bump& at) { place[i] = at; });
    const Bump temp = rest;
    const Dropout drop{C.dropout, step.seed, step.step * (2 * count + 1)};

    const auto step_forward = [&](std::size_t i) {
      with_step<C>(steps<C>[i], [&](auto type) {
        using B = typename decltype(type)::type;
        Bump own = place[i];
        auto a = B::bind(own, batch, true);
        B::forward(q, Layout::template block<B>(weights, steps<C>[i].block), batch, x[i], x[i + 1], a,
                   drop.branch(2 * i + 1), temp);
      });
    };
    enter(q, weights, batch, e, x[0]);
    drop.apply(q, n * width, x[0]);
    for (std::size_t i = 0; i < count; ++i) step_forward(i);

    rms_norm(q, Layout::norm_shape(n), x[count], weights + norm_at, u);
    if constexpr (rank > 0) linear(q, down, {weights + Layout::down_at}, n, 1.f, u, width, 0.f, v, row);
    float* read = rank > 0 ? v : u;  // the head reads a block of it, then writes that block's gradient
    head.loss(q, step.objective, host, batch.targets, read, {weights + output_at}, step.scale, read,
              {gradients + output_at}, sum, temp);
    float* du = u;
    if constexpr (rank > 0)
      linear_backward(q, down, {weights + Layout::down_at}, {gradients + Layout::down_at}, n, 1.f, v, row, u, width,
                      0.f, du);
    zero(q, n * width, dx);
    rms_norm_backward(q, Layout::norm_shape(n), x[count], weights + norm_at, du, dx, gradients + norm_at, temp);

    std::size_t first = 0;  // of the steps that are learned
    while (first < count && steps<C>[first].block < step.first_block) ++first;
    for (std::size_t i = count; i-- > first;) {
      if (!keep_all && i + 1 < count) step_forward(i);
      with_step<C>(steps<C>[i], [&](auto type) {
        using B = typename decltype(type)::type;
        const int b = steps<C>[i].block;
        Bump own = place[i];
        auto a = B::bind(own, batch, true);
        B::backward(q, Layout::template block<B>(weights, b), Layout::template block<B>(gradients, b), batch, x[i], dx,
                    a, drop.branch(2 * i + 1), temp);
      });
    }
    if (first > 0) return;
    drop.apply(q, n * width, dx);
    if constexpr (rank > 0)
      linear_backward(q, up, {weights + Layout::up_at}, {gradients + Layout::up_at}, n, 1.f, dx, width, e, row, 0.f, e);
    embed_backward(q, n, row, batch.inputs, C.embedding_scale, rank > 0 ? e : dx, gradients);
  }

 private:
  /// The batch with its tables where the device reads them: in `memory`, unless the host's are there.
  template <Device D>
  static TokenBatch on_device(const D& q, TokenBatch batch, Bump& memory) {
    if constexpr (!D::shares_memory)
      for (const std::int32_t** table : {&batch.inputs, &batch.targets, &batch.document_start}) {
        auto* const there = memory.take<std::int32_t>(batch.tokens());
        if (!*table) continue;
        q.upload(there, *table, sizeof(std::int32_t) * static_cast<std::size_t>(batch.tokens()));
        *table = there;
      }
    return batch;
  }
  template <Device D>
  static constexpr std::int64_t tables_bytes(const Batch& batch) {
    return D::shares_memory ? 0 : bytes_of<std::int32_t>({batch.tokens(), batch.tokens(), batch.tokens()});
  }

  /// Where each step's activations lie: one after the other, or all in the same place when forward is run again.
  template <class F>
  static void each_place(Bump& memory, const Batch& batch, bool keep, bool separate, F f) {
    const std::size_t start = memory.used;
    std::size_t end = start;
    for (std::size_t i = 0; i < count; ++i) {
      f(i, memory);
      with_step<C>(steps<C>[i], [&](auto type) { decltype(type)::type::bind(memory, batch, keep); });
      end = std::max(end, memory.used);
      if (!separate) memory.used = start;
    }
    memory.used = end;
  }

  static std::int64_t temp_bytes(const Batch& batch) {
    std::int64_t most = std::max(head.temp_bytes(batch.tokens()), norm_backward_bytes(batch.tokens(), width));
    for (const Step step : steps<C>)
      with_step<C>(step, [&](auto type) { most = std::max(most, decltype(type)::type::temp_bytes(batch)); });
    return most;
  }

  /// x [n, width]: what the first block reads. e [n, rank]: the tokens' rows of the embedding, if these are no x yet.
  template <Device D>
  static void enter(const D& q, const float* weights, const TokenBatch& batch, float* e, float* x) {
    const std::int64_t n = batch.tokens();
    embed(q, n, row, batch.inputs, C.embedding_scale, weights, rank > 0 ? e : x);
    if constexpr (rank > 0) linear(q, up, {weights + Layout::up_at}, n, 1.f, e, row, 0.f, x, width);
  }

  /// What the head reads of a whole batch, [B,T,row], nothing else kept: taken from `memory`.
  template <Device D>
  static const float* for_head(const D& q, const float* weights, const TokenBatch& batch, Bump& memory) {
    const std::int64_t n = batch.tokens();
    float* e = memory.take(n * rank);
    float* x = memory.take(n * width);
    enter(q, weights, batch, e, x);
    for (const Step step : steps<C>)
      with_step<C>(step, [&](auto type) {
        using B = typename decltype(type)::type;
        Bump place = memory;
        auto a = B::bind(place, batch, false);
        B::forward(q, Layout::template block<B>(weights, step.block), batch, x, x, a, Dropout{}, place);
      });
    float* u = memory.take(n * width);
    rms_norm(q, Layout::norm_shape(n), x, weights + norm_at, u);
    if constexpr (rank > 0) {
      linear(q, down, {weights + Layout::down_at}, n, 1.f, u, width, 0.f, e, row);
      return e;
    } else {
      return u;
    }
  }
};

}  // namespace chimera::inline CHIMERA_ABI
