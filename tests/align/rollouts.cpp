// Completions that a model writes itself, what they earn, and steps that learn from them.
#include "align/nano.hpp"

#include <chimera/align/grpo.hpp>
#include <chimera/align/rollouts.hpp>
#include <chimera/core/device.hpp>
#include <chimera/text/vocabulary.hpp>

#include <doctest/doctest.h>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace chimera;

/// Every problem is a number; a completion earns by its bytes, or nothing where `silent` says so.
struct Toy : Environment {
  bool silent = false;
  std::vector<std::string> asked = {}, written = {};

  Problem problem(std::uint64_t number) const override {
    return {{{"user", std::to_string(number % 1000)}}, std::to_string(number)};
  }
  void reward(std::span<const Completion> completions, std::span<double> rewards) override {
    for (std::size_t i = 0; i < completions.size(); ++i) {
      asked.push_back(completions[i].problem->answer), written.push_back(completions[i].text);
      std::uint32_t sum = 0;
      for (const char c : completions[i].text) sum = 31 * sum + static_cast<unsigned char>(c);
      rewards[i] = silent ? 1 : i == 0 ? std::numeric_limits<double>::quiet_NaN() : sum % 7;
    }
  }
};

constexpr std::int64_t length = 32;

struct Bench {
  Cpu q;
  AnyModel model = nano_model();
  Tokenizer tokenizer = *Tokenizer::create(byte_vocabulary(512));
  std::vector<float> weights = std::vector<float>(model.arena_floats);
  Toy toy = {};

  explicit Bench(int threads) : q(*Cpu::create(threads)) { model.initialize(weights.data(), 1); }

  Rollouts rollouts(RolloutSettings settings, const char* form = "chatml") {
    auto made = Rollouts::create(q, model, tokenizer, *chat_template_named(form), toy, length, settings);
    REQUIRE(made.ok());
    REQUIRE(made->follow(weights.data()).ok());
    return std::move(*made);
  }
};

bool same(BatchBuffer& a, BatchBuffer& b) {
  const auto equal = [](auto x, auto y) { return std::equal(x.begin(), x.end(), y.begin(), y.end()); };
  for (std::int64_t r = 0; r < a.rows(); ++r) {
    const auto x = a.row(r), y = b.row(r);
    if (!equal(x.tokens, y.tokens) || !equal(x.targets, y.targets) || !equal(x.old, y.old) ||
        !equal(x.advantages, y.advantages))
      return false;
  }
  return true;
}

}  // namespace

TEST_CASE("completions are rows, the same for any number of threads and of what is live") {
  Bench one(1), two(2);
  auto a = BatchBuffer::create(8, length), b = BatchBuffer::create(8, length);
  const RolloutSettings settings{.group = 4, .completion = 12, .seed = 3};
  RolloutSettings few = settings;
  few.live = 3;
  Rollouts first = one.rollouts(settings), second = two.rollouts(few);
  REQUIRE(first.fill(16, *a).ok());
  REQUIRE(second.fill(16, *b).ok());
  CHECK(same(*a, *b));
  CHECK(one.toy.asked[0] == "4");
  CHECK(one.toy.asked[4] == "5");
  CHECK(one.toy.written[0] != one.toy.written[1]);
  CHECK(first.seen().not_numbers == 1);
  CHECK(first.seen().completions == 8);
  CHECK(first.seen().written == first.seen().tokens);

  // What a row says is what was written, and a group's advantages add up to nothing.
  const std::size_t prompt =
      encode(one.tokenizer, *chat_template_named("chatml"), one.toy.problem(4).messages, true).size();
  double sum = 0;
  for (std::int64_t r = 0; r < 4; ++r) {
    const auto row = a->row(r);
    CHECK(row.targets[prompt - 2] == -1);
    CHECK(row.targets[prompt - 1] >= 0);
    CHECK(row.targets[prompt - 1] == row.tokens[prompt]);
    CHECK(row.advantages[prompt - 2] == 0);
    sum += double{row.advantages[prompt - 1]};
  }
  CHECK(sum == doctest::Approx(0).epsilon(1e-4));

  // Training says the same of the tokens: nothing has moved, and each counts what its advantage says.
  Grpo grpo;
  const TokenBatch batch = a->batch(0, 8);
  std::vector<std::byte> memory(one.model.loss_bytes(8, length));
  double loss = 0;
  one.model.loss(one.q, one.weights.data(), batch, grpo.objective(), memory.data(), &loss);
  CHECK(grpo.seen.targets == first.seen().tokens);
  CHECK(grpo.seen.farthest < 1e-4);
  CHECK(grpo.seen.clipped == 0);

  // Weights that changed write otherwise; those of 8 bits say nearly the same.
  for (float& w : one.weights) w *= 1.25f;
  REQUIRE(first.fill(16, *a).ok());
  CHECK(!same(*a, *b));
  RolloutSettings small = settings;
  small.format = Format::q8_0;
  Rollouts rounded = one.rollouts(small);
  REQUIRE(rounded.fill(16, *a).ok());
  grpo.seen = {};
  one.model.loss(one.q, one.weights.data(), a->batch(0, 8), grpo.objective(), memory.data(), &loss);
  CHECK(grpo.seen.farthest < 0.3);
  CHECK(grpo.seen.moved_kl() < 1e-3);
}

TEST_CASE("a group in which all earn the same is drawn again, and not for ever") {
  Bench bench(2);
  bench.toy.silent = true;
  auto batch = BatchBuffer::create(4, length);
  Rollouts rollouts = bench.rollouts({.group = 2, .completion = 3, .draws = 3});
  REQUIRE(rollouts.fill(0, *batch).ok());
  CHECK(rollouts.seen().again == 4);
  CHECK(rollouts.seen().silent == 2);
  CHECK(rollouts.seen().mean(&RolloutSeen::exact) == 1);
  CHECK(rollouts.seen().completions == 4);
  CHECK(bench.toy.asked.size() == 12);
  CHECK(bench.toy.asked[4] == std::to_string(std::uint64_t{1} << 32));
  for (std::int64_t r = 0; r < 4; ++r)
    for (const float a : batch->row(r).advantages) CHECK(a == 0);

  // What a reference says: here the model itself.
  REQUIRE(rollouts.refer_to(bench.weights.data(), 3).ok());
  REQUIRE(rollouts.fill(0, *batch).ok());
  for (std::int64_t r = 0; r < 4; ++r)
    for (std::size_t t = 0; t < length; ++t)
      CHECK(batch->row(r).reference[t] == doctest::Approx(batch->row(r).old[t]).epsilon(1e-4));

  const auto seen = rollouts.examine(bench.toy, 5);
  REQUIRE(seen.ok());
  CHECK(seen->completions == 5);
  CHECK(seen->again == 0);
}

TEST_CASE("what a rollout cannot be made of is told") {
  Bench bench(1);
  const auto error = [&](RolloutSettings settings) {
    return Rollouts::create(bench.q, bench.model, bench.tokenizer, *chat_template_named("plain"), bench.toy, length,
                            settings)
        .error()
        .message;
  };
  CHECK(error({.group = 1}) == "a group must have at least 2 completions, found 1");
  CHECK(error({.completion = 33}).find("at most those of a row, found 33") != std::string::npos);
  CHECK(error({.completion = 8, .format = Format::q4_0}) == "rollouts are written by weights in f32 or q8_0");
  auto batch = BatchBuffer::create(3, length);
  Rollouts rollouts = bench.rollouts({.group = 2, .completion = 4}, "plain");
  CHECK(rollouts.fill(0, *batch).error().message.find("whole groups of 2, found 3 rows") != std::string::npos);
  CHECK(rollouts.validate(16, 512).error().message.find("made for rows of 32") != std::string::npos);
}

TEST_CASE("a step of several updates numbers them one after the other, and ends at one that is not finite") {
  struct Fake : Learner {
    std::vector<std::int64_t>* numbers;
    Grpo* grpo;
    int measured = 0, dropped = 0, bad = 1'000;

    std::span<const Section> state() override { return {}; }
    std::size_t bytes(std::int64_t, std::int64_t) const override { return 0; }
    std::optional<Learned> measure(const Cpu&, float*, const Lesson&, std::byte*, TrainingHost&) override {
      grpo->seen.targets += ++measured;
      return Learned{{measured == bad ? std::numeric_limits<double>::quiet_NaN() : 1., 1}, 1};
    }
    void update(const Cpu&, float*, const Update& u) override { numbers->push_back(u.number); }
    void drop(const Cpu&) override { ++dropped; }
  };
  const Cpu q = *Cpu::create(1);
  Grpo grpo;
  std::vector<std::int64_t> numbers;
  auto fake = std::make_unique<Fake>();
  fake->numbers = &numbers, fake->grpo = &grpo;
  Fake& inner = *fake;
  GrpoUpdates updates(grpo, std::move(fake), 3);
  TrainingHost host;
  for (const std::int64_t step : {1, 2}) {
    updates.measure(q, nullptr, {}, nullptr, host);
    updates.update(q, nullptr, {.number = step});
  }
  CHECK(numbers == std::vector<std::int64_t>{1, 2, 3, 4, 5, 6});
  CHECK(updates.before().targets == 4);
  CHECK(grpo.seen.targets == 6);
  inner.bad = 8;
  updates.measure(q, nullptr, {}, nullptr, host);
  updates.update(q, nullptr, {.number = 3});
  CHECK(numbers.size() == 7);
  CHECK(inner.dropped == 1);
}
