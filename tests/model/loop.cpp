// Models that tokens pass through several times: gradients, depths that are drawn, decoding, and the plain stack that a
// loop without memory is.
#include "model/random_weights.hpp"

#include <chimera/chimera.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

using namespace chimera;

/// All passes are learned.
constexpr Config looped{.vocab = 61,
                        .width = 48,
                        .context = 64,
                        .layers = pattern("A M+E SK GD R"),
                        .attention = {.heads = 6, .kv_heads = 2, .window = 9},
                        .mamba2 = {.head_dim = 12, .state = 10, .groups = 2, .chunk = 8},
                        .rg_lru = {.inner = 30, .heads = 3},
                        .gated_deltanet = {.key_heads = 2, .value_heads = 4, .key_dim = 16, .chunk = 8, .eps = .3f},
                        .span_knot = {.span = 4},
                        .ffn = {.hidden = 40},
                        .moe = {.experts = 5, .expert_hidden = 16},
                        .loop = {.first = 1, .last = 3, .passes = 3},
                        .tied = false,
                        .embedding_scale = 40.f,
                        .residual_scale = 0.7f};

/// Passes are drawn, two of them are learned, and nothing is kept.
constexpr Config drawn = [] {
  Config c = looped;
  c.loop.mean = 1.7f, c.loop.backprop = 2, c.checkpointing = true;
  return c;
}();

constexpr std::int64_t sequences = 4, length = 21;

Cpu cpu(int threads = 2) { return *Cpu::create(threads); }

const NamedTensor& tensor(const AnyModel& model, std::string_view name) {
  return *std::find_if(model.tensors.begin(), model.tensors.end(),
                       [&](const NamedTensor& t) { return t.name() == name; });
}

/// A loop that keeps nothing of its state.
std::vector<float> without_memory(const AnyModel& model, std::vector<float> w) {
  const NamedTensor& t = tensor(model, "loop_a_log");
  std::fill_n(w.begin() + static_cast<std::ptrdiff_t>(t.offset), t.size(), 30.f);
  return w;
}

struct Text {
  std::vector<std::int32_t> inputs, targets, starts;

  Text() {
    Random random{5, 0, 0};
    for (std::int64_t t = 0; t < sequences * length; ++t) {
      inputs.push_back(static_cast<std::int32_t>(random.below(61)));
      targets.push_back(t % 5 == 3 ? -1 : static_cast<std::int32_t>(random.below(61)));
      starts.push_back(t % length < 10 + t / length ? 0 : static_cast<std::int32_t>(10 + t / length));
    }
  }
  TokenBatch batch(int passes = 0) const {
    TokenBatch b;
    b.sequences = sequences, b.length = length, b.inputs = inputs.data(), b.targets = targets.data();
    b.document_start = starts.data(), b.passes = passes;
    return b;
  }
  std::vector<std::int32_t> row(std::int64_t r) const {
    return {inputs.begin() + r * length, inputs.begin() + (r + 1) * length};
  }
};

struct Trained {
  double loss = 0;
  std::vector<float> gradients;
};

Trained train(const Cpu& q, const AnyModel& model, const std::vector<float>& w, const TokenBatch& batch,
              std::uint64_t step = 2, int first_block = 0) {
  std::vector<std::byte> memory(model.train_bytes(batch.sequences, batch.length));
  Trained t{0, std::vector<float>(model.arena_floats)};
  model.train(q, w.data(), batch, {.scale = 0.1f, .seed = 3, .step = step, .first_block = first_block}, memory.data(),
              t.gradients.data(), &t.loss);
  return t;
}

double difference(const std::vector<float>& a, const std::vector<float>& b) {
  REQUIRE(a.size() == b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
  return most;
}

std::vector<float> logits(const Cpu& q, const AnyModel& model, const std::vector<float>& w, const TokenBatch& batch) {
  std::vector<std::byte> memory(model.loss_bytes(batch.sequences, batch.length));
  std::vector<float> all(static_cast<std::size_t>(batch.tokens() * model.config->vocab));
  model.forward(q, w.data(), batch, memory.data(), all.data());
  return all;
}

std::vector<float> copy(const Result<Session::Logits>& found) {
  REQUIRE(found);
  return {found->begin(), found->end()};
}

}  // namespace

TEST_CASE("every gradient of a looped model agrees with finite differences, for each number of passes") {
  const Cpu q = cpu(1);
  const AnyModel model = any_model<looped>("looped");
  const Text text;
  const std::vector<float> w = random_weights(model);
  for (const int passes : {1, 3}) {
    const TokenBatch batch = text.batch(passes);
    const Trained at = train(q, model, w, batch);
    for (const NamedTensor& t : model.tensors) {
      if (t.role == Role::balance) continue;
      if (passes == 1 && t.name().starts_with("blk.") && !t.name().starts_with("blk.1.")) continue;
      double norm = 0;
      for (std::int64_t i = 0; i < t.size(); ++i)
        norm += std::pow(double{at.gradients[t.offset + static_cast<std::size_t>(i)]}, 2);
      norm = std::sqrt(norm);
      CAPTURE(passes);
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
        const double found = 0.05 * (train(q, model, up, batch).loss - train(q, model, down, batch).loss);
        best = std::min(best, std::abs(found - slope) / (slope + 1e-4));
        if (best < 4e-3) break;
      }
      CHECK(best < 4e-3);
    }
  }
}

TEST_CASE("sequences of several depths in one batch learn as those of one depth do") {
  const AnyModel fixed = any_model<looped>("fixed"), model = any_model<drawn>("drawn");
  const Text text;
  // Without memory the passes before those that are learned change nothing, and what is learned can be compared.
  const std::vector<float> w = without_memory(model, random_weights(model));
  std::vector<int> seen(4);
  for (std::uint64_t step = 0; step < 8; ++step) {
    const Depths<drawn> depths = Depths<drawn>::drawn(sequences, 3, step);
    std::vector<int> passes(sequences);
    std::vector<std::int64_t> places;
    depths.each([&](std::int64_t s, std::int64_t place) {
      places.push_back(place);
      for (int pass = 0; pass < 3; ++pass) passes[static_cast<std::size_t>(s)] += place < depths.at_work(pass);
    });
    std::sort(places.begin(), places.end());
    for (std::int64_t s = 0; s < sequences; ++s) CHECK(places[static_cast<std::size_t>(s)] == s);

    Trained sum{0, std::vector<float>(fixed.arena_floats)};
    for (int depth = 1; depth <= 3; ++depth) {
      Text one = text;
      for (std::int64_t s = 0; s < sequences; ++s) {
        const bool of_depth = passes[static_cast<std::size_t>(s)] == depth;
        seen[static_cast<std::size_t>(depth)] += of_depth;
        if (!of_depth) std::fill_n(one.targets.begin() + s * length, length, -1);
      }
      const Trained part = train(cpu(), fixed, w, one.batch(std::min(depth, 2)), step);
      sum.loss += part.loss;
      for (std::size_t i = 0; i < sum.gradients.size(); ++i) sum.gradients[i] += part.gradients[i];
    }
    Trained found = train(cpu(), model, w, text.batch(), step);
    CHECK(found.loss == doctest::Approx(sum.loss).epsilon(1e-6));
    for (const NamedTensor& t : model.tensors)  // of choices, not of gradients
      if (t.role == Role::balance)
        std::fill_n(found.gradients.data() + t.offset, t.size(), 0.f),
            std::fill_n(sum.gradients.data() + t.offset, t.size(), 0.f);
    CHECK(difference(found.gradients, sum.gradients) < 2e-5);
    CHECK(train(cpu(3), model, w, text.batch(), step).gradients ==
          train(cpu(1), model, w, text.batch(), step).gradients);
  }
  CHECK(*std::min_element(seen.begin() + 1, seen.end()) > 3);
}

TEST_CASE("the gradient goes through the last passes alone, with the bits of a run that has no others") {
  const AnyModel fixed = any_model<looped>("fixed"), model = any_model<drawn>("drawn");
  const Text text;
  const std::vector<float> w = random_weights(model);
  for (const int passes : {1, 2}) {
    const Trained a = train(cpu(), fixed, w, text.batch(passes)), b = train(cpu(), model, w, text.batch(passes));
    CHECK(a.loss == b.loss);
    CHECK(a.gradients == b.gradients);
  }
  const Trained a = train(cpu(), fixed, w, text.batch(3)), b = train(cpu(), model, w, text.batch(3));
  CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-6));
  for (const NamedTensor& t : model.tensors) {
    CAPTURE(t.name());
    const std::vector<float> x(a.gradients.begin() + static_cast<std::ptrdiff_t>(t.offset),
                               a.gradients.begin() + static_cast<std::ptrdiff_t>(t.offset) + t.size()),
        y(b.gradients.begin() + static_cast<std::ptrdiff_t>(t.offset),
          b.gradients.begin() + static_cast<std::ptrdiff_t>(t.offset) + t.size());
    const bool behind = t.name().starts_with("blk.4.") || t.name().starts_with("output");
    CHECK((difference(x, y) < 1e-5) == behind);
  }
}

TEST_CASE("a loop is frozen as a whole") {
  const AnyModel model = any_model<looped>("looped");
  const Text text;
  const std::vector<float> w = random_weights(model);
  const Trained whole = train(cpu(), model, w, text.batch());
  for (const int first_block : {1, 2, 4}) {
    const Trained part = train(cpu(), model, w, text.batch(), 2, first_block);
    for (const NamedTensor& t : model.tensors) {
      CAPTURE(t.name());
      const int block = t.name().starts_with("blk.") ? t.name()[4] - '0' : t.name().starts_with("loop_") ? 1 : 4;
      const bool learned = t.name() != "token_embd.weight" && (first_block == 1 ? block >= 1 : block == 4);
      for (std::size_t i = t.offset; i < t.offset + static_cast<std::size_t>(t.size()); ++i)
        REQUIRE(part.gradients[i] == (learned ? whole.gradients[i] : 0.f));
    }
  }
}

TEST_CASE("what a loop keeps of its state is below 1 after any update, and nothing of it decays") {
  const AnyModel model = any_model<looped>("looped");
  const Cpu q = cpu();
  const Text text;
  std::vector<float> w(model.arena_floats);
  model.initialize(w.data(), 1);
  const float *a_log = w.data() + tensor(model, "loop_a_log").offset,
              *delta = w.data() + tensor(model, "loop_delta").offset,
              *input = w.data() + tensor(model, "loop_input").offset;
  const std::vector<float> ones(48, 1.f), zeros(48);
  const auto kept = [&] {
    std::vector<float> h(48);
    inject(q, 1, 48, {a_log, delta, input}, ones.data(), zeros.data(), h.data());
    return h;
  };
  for (const float k : kept()) CHECK(k == doctest::Approx(std::sqrt(0.2)).epsilon(1e-6));
  for (const NamedTensor& t : model.tensors)
    if (t.name().starts_with("loop_")) CHECK(!t.decays());
  auto adamw = AdamW::create(q, model.tensors, w.size(), {});
  REQUIRE(adamw);
  for (int step = 1; step <= 4; ++step) {
    Trained t = train(q, model, w, text.batch());
    for (const NamedTensor& other : model.tensors)
      if (!other.name().starts_with("loop_")) std::fill_n(t.gradients.data() + other.offset, other.size(), 0.f);
    adamw->update(q, w.data(), t.gradients.data(), {.number = step, .rate = 100});  // far too large
    const std::vector<float> h = kept();
    CHECK(*std::max_element(h.begin(), h.end()) < 1.f);
    CHECK(*std::min_element(h.begin(), h.end()) >= 0.f);
  }
}

TEST_CASE("a loop without memory is the plain stack with the input that it is given") {
  static constexpr Config plain{.vocab = 61,
                                .width = 32,
                                .context = 64,
                                .layers = pattern("A R"),
                                .attention = {.heads = 4},
                                .rg_lru = {.heads = 2},
                                .ffn = {.hidden = 40},
                                .tied = false};
  static constexpr Config once = [] {
    Config c = plain;
    c.loop = {.first = 0, .last = 1, .passes = 1, .most = 4};
    return c;
  }();
  const AnyModel a = evaluation_model<plain>("plain"), b = evaluation_model<once>("once");
  CHECK(b.parameters == a.parameters + 4 * 32);
  const std::vector<float> w = without_memory(b, random_weights(b));
  std::vector<float> stack(w.begin(), w.begin() + static_cast<std::ptrdiff_t>(a.arena_floats));
  const float *norm = w.data() + tensor(b, "loop_norm.weight").offset,
              *delta = w.data() + tensor(b, "loop_delta").offset, *input = w.data() + tensor(b, "loop_input").offset;
  for (std::size_t token = 0; token < 61; ++token) {
    float* x = stack.data() + token * 32;
    double square = 0;
    for (std::size_t c = 0; c < 32; ++c) square += double{x[c]} * double{x[c]};
    const double root = std::sqrt(square / 32 + 1e-5);
    for (std::size_t c = 0; c < 32; ++c)
      x[c] = static_cast<float>(x[c] / root * norm[c] * std::log1p(std::exp(double{delta[c]})) * input[c]);
  }
  const Text text;
  const std::vector<float> expected = logits(cpu(), a, stack, text.batch());
  CHECK(difference(logits(cpu(), b, w, text.batch()), expected) < 1e-5);
  CHECK(difference(logits(cpu(), b, w, text.batch(4)), expected) < 1e-5);
}

TEST_CASE("operations of a token count the layers of a loop once for each pass") {
  static constexpr Config once = [] {
    Config c = looped;
    c.loop = {};
    return c;
  }();
  static constexpr Config in_loop = [] {
    Config c = once;
    c.layers = pattern("M+E SK GD");
    return c;
  }();
  const double ends = 2.0 * (61 + 1) * 48;
  const double block_flops = inference_model<in_loop>("in loop").flops(20) - ends;
  CHECK(inference_model<looped>("looped").flops(20) ==
        doctest::Approx(inference_model<once>("once").flops(20) + 2 * 4 * 48 + 2 * block_flops).epsilon(1e-12));
}

TEST_CASE("token by token, and in pieces, a looped model says what it says of the whole text") {
  const AnyModel model = any_model<looped>("looped");
  const Cpu q = cpu();
  const Text text;
  const std::vector<float> w = random_weights(model);
  const auto packed = PackedModel::create(q, model, w.data());
  REQUIRE(packed);
  TokenBatch whole = text.batch();
  whole.sequences = 1, whole.document_start = nullptr;
  const std::vector<std::int32_t> tokens = text.row(0);
  std::vector<Session> sessions;
  for (const int passes : {1, 2, 3}) {
    CAPTURE(passes);
    whole.passes = passes;
    const std::vector<float> all = logits(q, model, w, whole);
    const auto expected = [&](std::size_t t) {
      return std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(t * 61),
                                all.begin() + static_cast<std::ptrdiff_t>((t + 1) * 61));
    };
    auto steps = Session::create(q, *packed, {.kv = KvFormat::f32, .passes = passes}),
         pieces = Session::create(q, *packed, {.piece = 6, .kv = KvFormat::f32, .passes = passes});
    REQUIRE(steps);
    REQUIRE(pieces);
    for (std::size_t t = 0; t < tokens.size(); ++t) CHECK(difference(copy(steps->step(tokens[t])), expected(t)) < 2e-5);
    CHECK(difference(copy(pieces->prefill(tokens)), expected(tokens.size() - 1)) < 2e-5);
    sessions.push_back(std::move(*steps));
  }
  // Sessions of several depths in one pass, and each alone.
  std::vector<std::vector<float>> alone;
  std::vector<Session*> together;
  for (Session& s : sessions) {
    auto fork = s.fork();
    REQUIRE(fork);
    alone.push_back(copy(fork->step(7)));
    together.push_back(&s);
  }
  std::swap(together[0], together[1]), std::swap(alone[0], alone[1]);
  REQUIRE(Session::step_all(together, std::vector<std::int32_t>(3, 7)));
  for (std::size_t i = 0; i < 3; ++i) CHECK(copy(together[i]->logits()) == alone[i]);

  // Another number of passes.
  const auto saved = sessions[0].save();
  REQUIRE(saved);
  CHECK(sessions[2].restore(*saved).error().message ==
        "the session was saved with 1 passes through the loop, and this one has 3");
  CHECK(sessions[2].copy_from(sessions[1]).error().message ==
        "a session of 2 passes through the loop cannot be copied into one of 3");
  CHECK(sessions[0].restore(*saved));
  CHECK(Session::create(q, *packed, {.passes = 4}).error().message ==
        "a session's passes must be from 1 to the model's 3, found 4");
}

TEST_CASE("passes end where little changes, and later ones have the states of the last") {
  using Layout = ModelLayout<looped>;
  const AnyModel model = any_model<looped>("looped");
  const Cpu q = cpu();
  const Text text;
  const std::vector<float> w = random_weights(model);
  const auto packed = PackedModel::create(q, model, w.data());
  REQUIRE(packed);
  const std::vector<std::int32_t> tokens = text.row(1);
  auto two = Session::create(q, *packed, {.passes = 2}), three = Session::create(q, *packed),
       ends = Session::create(q, *packed, {.stop = 1e6f}), goes_on = Session::create(q, *packed, {.stop = 1e-9f});
  for (auto* s : {&two, &three, &ends, &goes_on}) REQUIRE((*s)->prefill(tokens));
  CHECK(copy(ends->logits()) == copy(two->logits()));
  CHECK(copy(goes_on->logits()) == copy(three->logits()));
  CHECK(copy(ends->step(3)) == copy(two->step(3)));
  REQUIRE(three->copy_from(*ends));  // all passes again, on the states of the second
  CHECK(copy(three->step(5)) != copy(two->step(5)));

  std::vector<std::byte> state(model.state_bytes(KvFormat::f32, 64)), room(model.decode_bytes(length));
  const Run run{.count = length, .state = state.data(), .context = 64, .stop = 1e6f};
  ModelPass pass;
  pass.runs = {&run, 1}, pass.rows = length, pass.kv = KvFormat::f32, pass.tokens = tokens.data();
  pass.memory = room.data();
  for (int stage = 0; stage < model.stages; ++stage) model.decode(q, packed->tensors(), pass, stage);
  const auto& at = Layout::states(KvFormat::f32).whole_at;
  for (std::size_t i = 4; i < 7; ++i) {  // the steps of the second pass
    const std::size_t bytes = at[i + 1] - at[i], first = at[i], later = at[i + 3], before = at[i - 3];
    CHECK(std::memcmp(state.data() + first, state.data() + later, bytes) == 0);
    CHECK((bytes == 0 || std::memcmp(state.data() + first, state.data() + before, bytes) != 0));
  }
  const std::size_t ring = Layout::ring_at(KvFormat::f32, 64, 5), size = Layout::ring_at(KvFormat::f32, 64, 6) - ring;
  REQUIRE(size > 0);
  CHECK(std::memcmp(state.data() + ring, state.data() + Layout::ring_at(KvFormat::f32, 64, 8), size) == 0);
}
