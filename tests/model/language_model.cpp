// Whole models: gradients against finite differences, decoding and prefill against the full pass, recomputation,
// documents, threads, and the table of weights.
#include "model/random_weights.hpp"

#include <chimera/chimera.hpp>

#include <doctest/doctest.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace chimera;

constexpr Config all_kinds{.vocab = 61,
                           .width = 48,
                           .context = 64,
                           .layers = pattern("M A+E R GD M XM+E SK"),
                           .attention = {.heads = 6, .kv_heads = 2, .window = 9},
                           .mamba2 = {.head_dim = 12, .state = 10, .groups = 2, .chunk = 8},
                           .rg_lru = {.inner = 30, .heads = 3, .bias = true},
                           .gated_deltanet = {.key_heads = 2, .value_heads = 4, .key_dim = 16, .chunk = 8, .eps = .3f},
                           .mlstm = {.heads = 2, .chunk = 8},
                           .span_knot = {.span = 3},
                           .titans = {.heads = 3, .persistent = 3, .segment = 8, .memory_heads = 2},
                           .ffn = {.hidden = 40},
                           .moe = {.experts = 5, .expert_hidden = 16},
                           .tied = false,
                           .embedding_scale = 3.f,
                           .residual_scale = 0.7f,
                           .logit_scale = 0.5f,
                           .logit_cap = 8.f};

constexpr Config recomputed = [] {
  Config c = all_kinds;
  c.checkpointing = true;
  return c;
}();

constexpr Config tied_with_dropout = [] {
  Config c = all_kinds;
  c.tied = true, c.embedding_rank = 12;
  c.dropout = 0.2f;
  return c;
}();

constexpr Config tied_without_dropout = [] {
  Config c = tied_with_dropout;
  c.dropout = 0;
  return c;
}();

constexpr std::int64_t sequences = 2, length = 21;

Cpu cpu(int threads = 2) { return *Cpu::create(threads); }

struct Text {
  std::vector<std::int32_t> inputs, targets, starts;

  explicit Text(int vocab) {
    Random random{5, 0, 0};
    for (std::int64_t t = 0; t < sequences * length; ++t) {
      inputs.push_back(static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
      targets.push_back(t % 5 == 3 ? -1 : static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocab))));
      starts.push_back(t % length < 10 ? 0 : t % length < 11 ? 10 : 11);  // documents of 10, 1 and 10 tokens
    }
  }
  TokenBatch batch(bool documents) const {
    TokenBatch b;
    b.sequences = sequences, b.length = length, b.inputs = inputs.data(), b.targets = targets.data();
    b.document_start = documents ? starts.data() : nullptr;
    return b;
  }
};

struct Trained {
  double loss;
  std::vector<float> gradients;
};

Trained train(const Cpu& q, const AnyModel& model, const std::vector<float>& w, const TokenBatch& batch,
              const Objective& objective = {}, int first_block = 0) {
  std::vector<std::byte> memory(model.train_bytes(batch.sequences, batch.length));
  std::vector<float> g(model.arena_floats);
  const std::int64_t count = objective.counted(batch);
  const TrainingStep step{.scale = 1.f / static_cast<float>(count),
                          .seed = 3,
                          .step = 2,
                          .objective = objective,
                          .first_block = first_block};
  double sum = 0;
  model.train(q, w.data(), batch, step, memory.data(), g.data(), &sum);
  return {sum / static_cast<double>(count), std::move(g)};
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
  return most;
}

/// Along the gradient of each tensor alone, the loss must fall as fast as the gradient says.
void check_gradients(const AnyModel& model, bool documents, const Objective& objective = {},
                     const float* reference = nullptr) {
  const Cpu q = cpu(1);
  const Text text(model.config->vocab);
  TokenBatch batch = text.batch(documents);
  batch.reference = reference;
  const std::vector<float> w = random_weights(model);
  const Trained at = train(q, model, w, batch, objective);
  for (const NamedTensor& t : model.tensors) {
    if (t.role == Role::balance) continue;
    double norm = 0;
    for (std::int64_t i = 0; i < t.size(); ++i) {
      const double g = at.gradients[t.offset + static_cast<std::size_t>(i)];
      norm += g * g;
    }
    norm = std::sqrt(norm);
    CAPTURE(t.name());
    REQUIRE(norm > 1e-5);
    double best = 1;  // truncation and rounding pull in opposite directions: one of these steps must be good
    for (const double step : {0.1, 0.03, 0.01, 0.003}) {
      std::vector<float> up = w, down = w;
      double slope = 0;
      for (std::size_t i = t.offset; i < t.offset + static_cast<std::size_t>(t.size()); ++i) {
        const float d = static_cast<float>(step * at.gradients[i] / norm);
        up[i] += d, down[i] -= d;
        slope += 0.5 * (double{up[i]} - double{down[i]}) * at.gradients[i];
      }
      const double found =
          0.5 * (train(q, model, up, batch, objective).loss - train(q, model, down, batch, objective).loss);
      best = std::min(best, std::abs(found - slope) / (slope + 1e-5));  // the loss itself is known to some 1e-8
    }
    CHECK(best < 4e-3);
  }
}

/// Token by token, and in pieces that cross chunks and the window.
void check_decoding(const AnyModel& model) {
  const Cpu q = cpu();
  const Text text(model.config->vocab);
  const std::vector<float> w = random_weights(model);
  const std::size_t vocab = static_cast<std::size_t>(model.config->vocab);
  std::vector<std::byte> memory(model.loss_bytes(sequences, length));
  std::vector<float> all(sequences * length * vocab);
  model.forward(q, w.data(), text.batch(false), memory.data(), all.data());
  const auto expected = [&](std::size_t t) {
    return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(t * vocab),
                              all.begin() + static_cast<std::ptrdiff_t>((t + 1) * vocab));
  };

  const auto packed = PackedModel::create(q, model, w.data());
  REQUIRE(packed);
  std::vector<float> logits(vocab);
  std::vector<std::byte> room(model.decode_bytes(13)), state;
  const auto read = [&](std::int64_t at, std::int64_t rows) {
    const Run run{.first = 0, .count = rows, .position = at, .state = state.data()};
    const Output output{rows - 1, logits.data()};
    ModelPass pass;
    pass.runs = {&run, 1}, pass.rows = rows, pass.kv = KvFormat::f32;
    pass.tokens = text.inputs.data() + at, pass.outputs = {&output, 1}, pass.memory = room.data();
    for (int stage = 0; stage < model.stages; ++stage) model.decode(q, packed->tensors(), pass, stage);
    CHECK(difference(logits, expected(static_cast<std::size_t>(at + rows - 1))) < 2e-5);
  };
  for (const auto& pieces : {std::vector<std::int64_t>(length, 1), {1, 13, 2, 5}}) {
    state.assign(model.state_bytes(KvFormat::f32, model.config->context), std::byte{0});
    std::int64_t at = 0;
    for (const std::int64_t rows : pieces) read(std::exchange(at, at + rows), rows);
  }
}

}  // namespace

TEST_CASE("every gradient of a model agrees with finite differences") {
  check_gradients(any_model<all_kinds>("all kinds"), false);
}

TEST_CASE("gradients agree with finite differences where documents are packed") {
  check_gradients(any_model<all_kinds>("all kinds"), true);
}

TEST_CASE("gradients agree with finite differences under dropout, with a tied head") {
  check_gradients(any_model<tied_with_dropout>("tied"), false);
}

TEST_CASE("gradients agree with finite differences under label smoothing and z-loss") {
  check_gradients(any_model<all_kinds>("all kinds"), true, {.label_smoothing = 0.2f, .z_loss = 1e-2f});
}

TEST_CASE("gradients agree with finite differences where each target counts as an objective says") {
  Objective weighted;
  weighted.weigh = [](void*, const TokenBatch& batch, const float* log_probs, float* coefficients) {
    double loss = 0;
    for (std::int64_t t = 0; t < batch.tokens(); ++t) {
      if (batch.targets[t] < 0) continue;
      const double weight = static_cast<double>(t % 3) - 0.5, p = log_probs[t];
      loss += -weight * p + 0.05 * p * p;
      coefficients[t] = static_cast<float>(weight - 0.1 * p);
    }
    return loss;
  };
  check_gradients(any_model<all_kinds>("all kinds"), true, weighted);
}

TEST_CASE("gradients agree with finite differences where pairs of rows are compared") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Text text(model.config->vocab);
  LogProbs reference;
  std::vector<float> w(model.arena_floats);
  std::vector<std::byte> memory(model.loss_bytes(sequences, length));
  model.initialize(w.data(), 7);
  double unread = 0;
  model.loss(cpu(), w.data(), text.batch(false), reference.objective(), memory.data(), &unread);
  Dpo dpo{.beta = 0.05};
  check_gradients(model, false, dpo.objective(), reference.values.data());
}

TEST_CASE("an objective that says cross-entropy gives its bits, and the log-probabilities add up to the loss") {
  const Cpu q = cpu();
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Text text(model.config->vocab);
  const TokenBatch batch = text.batch(true);
  const std::vector<float> w = random_weights(model);
  Objective plain;
  plain.weigh = [](void*, const TokenBatch& b, const float* log_probs, float* coefficients) {
    double loss = 0;
    for (std::int64_t t = 0; t < b.tokens(); ++t) loss -= log_probs[t], coefficients[t] = 1;
    return loss;
  };
  const Trained fused = train(q, model, w, batch), twice = train(q, model, w, batch, plain);
  CHECK(fused.gradients == twice.gradients);
  CHECK(fused.loss == doctest::Approx(twice.loss).epsilon(1e-6));

  LogProbs found;
  std::vector<std::byte> memory(model.loss_bytes(sequences, length));
  double loss = 0, unread = 0;
  model.loss(q, w.data(), batch, {}, memory.data(), &loss);
  CHECK(loss / static_cast<double>(batch.counted()) == doctest::Approx(fused.loss).epsilon(1e-6));
  model.loss(q, w.data(), batch, found.objective(), memory.data(), &unread);
  double sum = 0;
  for (std::size_t t = 0; t < found.values.size(); ++t) {
    sum -= found.values[t];
    CHECK((found.values[t] < 0) == (batch.targets[t] >= 0));
  }
  CHECK(sum == doctest::Approx(loss).epsilon(1e-6));
}

TEST_CASE("a frozen prefix gets no gradient, and the rest gets its bits") {
  const Cpu q = cpu();
  for (const AnyModel& model : {any_model<all_kinds>("kept"), any_model<recomputed>("again")}) {
    const Text text(model.config->vocab);
    const std::vector<float> w = random_weights(model);
    const Trained whole = train(q, model, w, text.batch(true)), part = train(q, model, w, text.batch(true), {}, 3);
    CHECK(part.loss == whole.loss);
    for (const NamedTensor& t : model.tensors) {
      CAPTURE(t.name());
      const bool frozen = t.name().starts_with("token_embd") || t.name().starts_with("blk.0.") ||
                          t.name().starts_with("blk.1.") || t.name().starts_with("blk.2.");
      for (std::size_t i = t.offset; i < t.offset + static_cast<std::size_t>(t.size()); ++i)
        REQUIRE(part.gradients[i] == (frozen ? 0.f : whole.gradients[i]));
    }
  }
}

TEST_CASE("a step moves the biases of experts by their loads, which are no part of the gradient") {
  const Cpu q = cpu();
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Text text(model.config->vocab);
  const TokenBatch batch = text.batch(true);
  std::vector<float> w = random_weights(model);
  const std::vector<float> before = w;
  Trained counted = train(q, model, w, batch);
  auto learner =
      Gradient::create(q, model, std::make_unique<AdamW>(*AdamW::create(q, model.tensors, w.size(), {})), 1.0);
  REQUIRE(learner);
  std::vector<std::byte> memory(learner->bytes(sequences, length));
  TrainingHost host;
  const auto learned =
      learner->measure(q, w.data(), {.batches = {&batch, 1}, .seed = 3, .first = 2}, memory.data(), host);
  learner->update(q, w.data(), {.rate = 1e-3});
  double square = 0;
  int layers = 0;
  for (const NamedTensor& t : model.tensors) {
    float* const g = counted.gradients.data() + t.offset;
    if (t.role != Role::balance) {
      for (std::int64_t i = 0; i < t.size(); ++i) square += double{g[i]} * double{g[i]};
      continue;
    }
    ++layers;
    const float mean = static_cast<float>(batch.tokens() * all_kinds.moe.top_k) / static_cast<float>(t.size());
    for (std::int64_t e = 0; e < t.size(); ++e) {
      const std::size_t at = t.offset + static_cast<std::size_t>(e);
      CHECK(w[at] == before[at] + (g[e] < mean ? all_kinds.moe.balance_rate : -all_kinds.moe.balance_rate));
    }
  }
  CHECK(layers == 2);
  CHECK(learned->norm == doctest::Approx(std::sqrt(square)).epsilon(1e-6));
}

TEST_CASE("dropout changes with the step and is off in evaluation") {
  const AnyModel model = any_model<tied_with_dropout>("tied");
  const Cpu q = cpu();
  const Text text(model.config->vocab);
  const TokenBatch batch = text.batch(false);
  const std::vector<float> w = random_weights(model);
  std::vector<std::byte> memory(model.train_bytes(sequences, length));
  std::vector<float> g(model.arena_floats);
  const auto loss = [&](std::uint64_t step) {
    double sum = 0;
    model.train(q, w.data(), batch, {.scale = 1.f, .seed = 3, .step = step}, memory.data(), g.data(), &sum);
    return sum;
  };
  CHECK(loss(1) == loss(1));
  CHECK(loss(1) != loss(2));
  const AnyModel plain = any_model<tied_without_dropout>("plain");
  std::vector<std::byte> room(std::max(model.loss_bytes(sequences, length), plain.train_bytes(sequences, length)));
  double evaluated = 0, trained = 0;
  model.loss(q, w.data(), batch, {}, room.data(), &evaluated);
  plain.train(q, w.data(), batch, {.scale = 1.f}, room.data(), g.data(), &trained);
  CHECK(evaluated == doctest::Approx(trained).epsilon(1e-6));
}

TEST_CASE("computing forward again gives the same bits as keeping it") {
  const Cpu q = cpu();
  const AnyModel kept = any_model<all_kinds>("kept"), again = any_model<recomputed>("again");
  const Text text(kept.config->vocab);
  const std::vector<float> w = random_weights(kept);
  const Trained a = train(q, kept, w, text.batch(true)), b = train(q, again, w, text.batch(true));
  CHECK(a.loss == b.loss);
  CHECK(a.gradients == b.gradients);
  CHECK(again.train_bytes(4, 256) < kept.train_bytes(4, 256));
}

TEST_CASE("loss and gradients are the same bits for every number of threads") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Text text(model.config->vocab);
  const std::vector<float> w = random_weights(model);
  const Trained one = train(cpu(1), model, w, text.batch(true));
  for (int threads : {2, 3}) {
    const Trained many = train(cpu(threads), model, w, text.batch(true));
    CHECK(one.loss == many.loss);
    CHECK(one.gradients == many.gradients);
  }
}

/// Of more than 2^18 products each.
constexpr Config wide{.vocab = 512,
                      .width = 128,
                      .context = 64,
                      .layers = pattern("M A"),
                      .attention = {.heads = 4},
                      .mamba2 = {.head_dim = 32, .state = 16},
                      .ffn = {.hidden = 256}};

TEST_CASE("gradients of BF16 products are near those of f32, and the same bits for every number of threads") {
  const AnyModel model = any_model<wide>("wide");
  const std::vector<float> w = random_weights(model);
  const Text text(wide.vocab);
  const Cpu one = cpu(1), two = cpu(2);
  const Trained exact = train(one, model, w, text.batch(false));
  const Trained rounded = train(one.with(Precision::bf16), model, w, text.batch(false));
  CHECK(rounded.loss == doctest::Approx(exact.loss).epsilon(1e-2));
  CHECK(rounded.gradients != exact.gradients);
  double product = 0, a = 0, b = 0;
  for (std::size_t i = 0; i < exact.gradients.size(); ++i) {
    const double x = exact.gradients[i], y = rounded.gradients[i];
    product += x * y, a += x * x, b += y * y;
  }
  CHECK(product / std::sqrt(a * b) > 0.995);
  CHECK(train(two.with(Precision::bf16), model, w, text.batch(false)).gradients == rounded.gradients);
}

TEST_CASE("every instruction level gives the same gradients, to rounding") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Text text(model.config->vocab);
  const std::vector<float> w = random_weights(model);
  Cpu q = cpu();
  const Trained best = train(q, model, w, text.batch(false));
  q.limit(Isa::base);
  const Trained base = train(q, model, w, text.batch(false));
  CHECK(base.loss == doctest::Approx(best.loss).epsilon(1e-6));
  CHECK(difference(base.gradients, best.gradients) < 1e-5);
}

TEST_CASE("token by token, and in pieces, a model says what it says of the whole text") {
  check_decoding(any_model<all_kinds>("all kinds"));
  check_decoding(any_model<tied_without_dropout>("tied"));
}

TEST_CASE("a packed row gives the gradients of its documents run alone") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const Cpu q = cpu();
  const Text text(model.config->vocab);
  const std::vector<float> w = random_weights(model);
  const Trained packed = train(q, model, w, text.batch(true));
  const std::int64_t counted = text.batch(true).counted();
  std::vector<float> sum(model.arena_floats);
  std::vector<std::byte> memory(model.train_bytes(1, length));
  double loss = 0;
  for (std::int64_t row = 0; row < sequences; ++row)
    for (const auto& [begin, end] : {std::pair{0, 10}, std::pair{10, 11}, std::pair{11, 21}}) {
      TokenBatch b;
      b.length = end - begin;
      b.inputs = text.inputs.data() + row * length + begin, b.targets = text.targets.data() + row * length + begin;
      model.train(q, w.data(), b, {.scale = 1.f / static_cast<float>(counted)}, memory.data(), sum.data(), &loss);
    }
  CHECK(packed.loss == doctest::Approx(loss / static_cast<double>(counted)).epsilon(1e-6));
  CHECK(difference(packed.gradients, sum) < 2e-6);
}

TEST_CASE("operations of a token: two for each weight that multiplies it, and what attention sees") {
  static constexpr Config plain{.vocab = 100,
                                .width = 8,
                                .context = 16,
                                .layers = pattern("A M A", 3),
                                .attention = {.heads = 2},
                                .mamba2 = {.head_dim = 8, .state = 4},
                                .ffn = {.hidden = 16},
                                .tied = true};
  static constexpr Config window{.vocab = 100,
                                 .width = 8,
                                 .context = 16,
                                 .layers = pattern("A", 1),
                                 .attention = {.heads = 2, .window = 4},
                                 .ffn = {.hidden = 16},
                                 .tied = false};
  const AnyModel a = any_model<plain>("plain"), b = any_model<window>("window");
  CHECK(3 * a.flops(10) == 6 * static_cast<double>(a.parameters) + 12 * 2 * 8 * 5.5);
  CHECK(3 * b.flops(10) ==
        doctest::Approx(6 * static_cast<double>(b.parameters - 800) + 12 * 8 * (1 + 2 + 3 + 4 * 7) / 10.0)
            .epsilon(1e-12));
}

TEST_CASE("the table of weights covers the arena: unique names, aligned, no overlap") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  std::set<std::string> names;
  std::size_t end = 0;
  std::int64_t total = 0;
  for (const NamedTensor& t : model.tensors) {
    CHECK(names.insert(std::string(t.name())).second);
    CHECK(t.offset % 16 == 0);
    CHECK(t.offset >= end);
    CHECK(t.size() > 0);
    end = t.offset + static_cast<std::size_t>(t.size());
    total += t.size();
  }
  CHECK(end <= model.arena_floats);
  CHECK(total == model.parameters);
  CHECK(names.count("blk.0.ssm_in.weight") == 1);
  CHECK(names.count("blk.1.attn_qkv.weight") == 1);
  CHECK(names.count("blk.3.ffn_down.weight") == 1);
  CHECK(names.count("output.weight") == 1);
}

TEST_CASE("initial weights are a function of the seed, with the spread their kind asks for") {
  using Model = LanguageModel<presets::nano>;
  std::vector<float> a(Model::arena_floats), b(Model::arena_floats);
  Model::initialize(a.data(), 1), Model::initialize(b.data(), 1);
  CHECK(a == b);
  Model::initialize(b.data(), 2);
  CHECK(a != b);
  for (const NamedTensor& t : Model::tensors) {
    CAPTURE(t.name());
    const float* w = a.data() + t.offset;
    double mean = 0, square = 0;
    for (std::int64_t i = 0; i < t.size(); ++i) mean += w[i], square += double{w[i]} * w[i];
    mean /= static_cast<double>(t.size()), square /= static_cast<double>(t.size());
    if (t.init == Init::normal()) CHECK(std::sqrt(square) == doctest::Approx(0.02).epsilon(0.05));
    if (t.init == Init::constant(1.f)) CHECK(mean == 1);
    if (t.init.then == Init::Then::log)
      CHECK((*std::min_element(w, w + t.size()) >= 0 && *std::max_element(w, w + t.size()) <= std::log(16.f)));
    if (t.init.then == Init::Then::inverse_softplus)
      for (std::int64_t i = 0; i < t.size(); ++i) {
        const double step = std::log1p(std::exp(double{w[i]}));
        CHECK((step > 0.00099 && step < 0.1001));
      }
  }
}

TEST_CASE("gates of mLSTM read nothing at first, and knots are means that count as their tokens do") {
  using Model = LanguageModel<all_kinds>;
  std::vector<float> w(Model::arena_floats);
  Model::initialize(w.data(), 1);
  int as_said = 0;
  for (const NamedTensor& t : Model::tensors) {
    const std::vector<float> values(w.begin() + static_cast<std::ptrdiff_t>(t.offset),
                                    w.begin() + static_cast<std::ptrdiff_t>(t.offset) + t.size());
    as_said += t.name() == "blk.5.mlstm_forget_gate.bias" && values == std::vector{3.f, 6.f};
    as_said += t.name() == "blk.5.mlstm_input_gate.bias" && values == std::vector{-10.f, -10.f};
    as_said += t.name() == "blk.5.mlstm_gates.weight" && values == std::vector<float>(values.size(), 0.f);
    as_said += t.name() == "blk.6.knot_gain.bias" && values == std::vector<float>(6, std::log(3.f));
    as_said += t.name() == "blk.6.knot_tie.weight" && values == std::vector<float>(48, 0.f);
  }
  CHECK(as_said == 5);
}

namespace {

/// The model with adapters on these matrices, over weights drawn as the other tests draw them.
struct WithAdapters {
  std::vector<float> base;
  AdaptedModel adapted;

  explicit WithAdapters(const AnyModel& model, const LoraSettings& settings, std::vector<AdapterTarget> targets)
      : base(random_weights(model)),
        adapted(*AdaptedModel::create(model, base_in_arena(model.tensors, model.slot_count, base.data()), targets,
                                      settings)) {}
  explicit WithAdapters(const AnyModel& model, const LoraSettings& settings = {.rank = 3, .alpha = 5})
      : WithAdapters(model, settings, all_targets(model.tensors)) {}
};

}  // namespace

TEST_CASE("adapters have the gradients of all kinds of layers: those of merged matrices, by the chain rule") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  std::vector<AdapterTarget> some;
  for (const AdapterTarget& t : all_targets(model.tensors))
    if (const NamedTensor& n = model.tensors[t.tensor]; n.block() > 0)
      some.push_back({t.tensor, std::count(n.parts.begin(), n.parts.end(), 0) < 4 ? 0b101U : 1U});
  const LoraSettings settings{.rank = 4, .alpha = 5, .rank_stabilised = true};
  const Text text(model.config->vocab);
  const TokenBatch batch = text.batch(true);
  for (const auto& targets : {all_targets(model.tensors), some}) {
    const WithAdapters with(model, settings, targets);
    const AnyModel& adapted = with.adapted.model();
    const std::vector<float> adapters = random_weights(adapted);
    std::vector<float> merged = with.base;
    merge_adapters(cpu(), model.tensors, with.adapted.base(), adapters.data(), merged.data());
    const Trained of_adapters = train(cpu(), adapted, adapters, batch), of_merged = train(cpu(), model, merged, batch);
    CHECK(of_adapters.loss == doctest::Approx(of_merged.loss).epsilon(1e-6));
    for (const AdapterTarget& target : targets) {
      const NamedTensor& t = model.tensors[target.tensor];
      CAPTURE(t.name());
      const Adapter& a = *with.adapted.base().tensors[t.slot].adapter;
      std::vector<float> want(adapted.arena_floats), got = want;
      const float* dw = of_merged.gradients.data() + t.offset;
      std::int64_t row = 0;
      for (std::int64_t p = 0; p < a.count; ++p) {
        const Adapter::Part part = a.parts[static_cast<std::size_t>(p)];
        const auto at_a = static_cast<std::int64_t>(a.a) + p * a.rank * t.cols,
                   at_b = static_cast<std::int64_t>(a.b) + row * a.rank;
        const float* of_part = dw + part.first * t.cols;
        gemm_reference(part.rows, a.rank, t.cols, a.scale, row_major(of_part, t.cols),
                       transposed(adapters.data() + at_a, t.cols), 0.f, want.data() + at_b, a.rank);
        gemm_reference(a.rank, t.cols, part.rows, a.scale, transposed(adapters.data() + at_b, a.rank),
                       row_major(of_part, t.cols), 0.f, want.data() + at_a, t.cols);
        row += part.rows;
      }
      double largest = 1e-3;
      for (std::size_t i = a.a; i < a.b + static_cast<std::size_t>(row * a.rank); ++i)
        got[i] = of_adapters.gradients[i], largest = std::max(largest, std::abs(double{want[i]}));
      CHECK(difference(got, want) < 1e-4 * largest);
    }
  }
}

TEST_CASE("adapters with dropout agree with finite differences") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  check_gradients(WithAdapters(model, {.rank = 3, .alpha = 0.5, .dropout = 0.3}).adapted.model(), false);
}

TEST_CASE("an adapter of zeros changes no bit, any other is what it is merged into the weights") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const WithAdapters with(model);
  const AnyModel& adapted = with.adapted.model();
  const Text text(model.config->vocab);
  const TokenBatch batch = text.batch(true);
  std::vector<float> zeros(adapted.arena_floats);
  adapted.initialize(zeros.data(), 5);
  CHECK(train(cpu(), adapted, zeros, batch).loss == train(cpu(), model, with.base, batch).loss);

  const std::vector<float> adapters = random_weights(adapted);
  std::vector<float> merged = with.base;
  merge_adapters(cpu(), model.tensors, with.adapted.base(), adapters.data(), merged.data());
  const Trained one = train(cpu(1), adapted, adapters, batch);
  CHECK(one.loss == doctest::Approx(train(cpu(), model, merged, batch).loss).epsilon(1e-6));
  CHECK(std::abs(one.loss - train(cpu(), model, with.base, batch).loss) > 1e-3);
  const Trained many = train(cpu(3), adapted, adapters, batch);
  CHECK(many.loss == one.loss);
  CHECK(many.gradients == one.gradients);
}

TEST_CASE("adapters that cannot be say why") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const std::vector<float> base = random_weights(model);
  const auto message = [&](const LoraSettings& settings, std::vector<AdapterTarget> targets) {
    const auto made =
        AdaptedModel::create(model, base_in_arena(model.tensors, model.slot_count, base.data()), targets, settings);
    return made ? std::string() : made.error().message;
  };
  const std::vector<AdapterTarget> all = all_targets(model.tensors);
  const auto named = [&](std::string_view name) {
    for (std::size_t i = 0; i < model.tensors.size(); ++i)
      if (model.tensors[i].name() == name) return std::vector<AdapterTarget>{{i, 1}};
    return std::vector<AdapterTarget>{};
  };
  CHECK(message({.rank = 0}, all) == "a rank must be 1 to 1024, found 0");
  CHECK(message({.alpha = 0}, all) == "alpha must be above 0, found 0.000000");
  CHECK(message({}, {}) == "no matrix gets an adapter");
  CHECK(message({}, named("output.weight")) == "output.weight is no matrix of a block");
  CHECK(message({}, named("blk.1.ffn_gate_up_exps.weight")) ==
        "blk.1.ffn_gate_up_exps.weight is a stack of experts, which get no adapters");
}

namespace {

/// The weights of a base as f32, in an arena: what its matrices are decoded to.
std::vector<float> decoded(const AnyModel& model, const StoredBase& base) {
  std::vector<float> w(model.arena_floats);
  for (const NamedTensor& t : model.tensors) {
    const BaseTensor& from = base.tensors()[t.slot];
    REQUIRE((from.stored != nullptr) == t.packed());
    if (from.stored)
      decode_part(Isa::base, *from.stored, 0, t.rows, 0, t.cols, w.data() + t.offset, t.cols);
    else
      std::copy_n(from.values, t.size(), w.data() + t.offset);
  }
  return w;
}

}  // namespace

TEST_CASE("adapters over a base as it is stored have the gradients of those over what it is decoded to") {
  for (const AnyModel& model : {any_model<all_kinds>("all kinds"), any_model<tied_without_dropout>("tied")}) {
    const Text text(model.config->vocab);
    const TokenBatch batch = text.batch(true);
    const std::vector<float> w = random_weights(model);
    for (const BaseFormat format : {BaseFormat::as_they_come, BaseFormat::nf4}) {
      const auto base = StoredBase::create(cpu(), model, w.data(), format);
      REQUIRE(base);
      const std::vector<float> dense = decoded(model, *base);
      CHECK((dense == w) == (format == BaseFormat::as_they_come));
      const std::vector<AdapterTarget> targets = all_targets(model.tensors);
      const LoraSettings settings{.rank = 3, .alpha = 5};
      const auto stored = AdaptedModel::create(model, base->tensors(), targets, settings);
      const auto plain =
          AdaptedModel::create(model, base_in_arena(model.tensors, model.slot_count, dense.data()), targets, settings);
      REQUIRE(stored);
      REQUIRE(plain);
      const std::vector<float> adapters = random_weights(stored->model());
      const Trained got = train(cpu(), stored->model(), adapters, batch);
      const Trained want = train(cpu(), plain->model(), adapters, batch);
      CHECK(got.loss == doctest::Approx(want.loss).epsilon(1e-6));
      CHECK(difference(got.gradients, want.gradients) < 1e-5);
      CHECK(train(cpu(3), stored->model(), adapters, batch).gradients == got.gradients);
    }
  }
}

TEST_CASE("a base whose matrices are not whole says what is missing") {
  const AnyModel model = any_model<all_kinds>("all kinds");
  const auto message = [&](std::vector<RowSource> sources) {
    const auto base = StoredBase::create(
        cpu(), model, sources, [](auto...) { return Result<void>(); }, [](auto...) { return Result<void>(); },
        BaseFormat::as_they_come);
    return base ? std::string() : base.error().message;
  };
  CHECK(message({{0, 1, 60, Format::f32}}) == "weight token_embd.weight lacks row 0");
  CHECK(message({{0, 0, 60, Format::f32}}) == "weight token_embd.weight has 61 rows, 60 were given");
  CHECK(message({{0, 0, 61, Format::q4_0}}) ==
        "weight token_embd.weight has rows of 48 numbers, and blocks of Q4_0 have 32");
}
