#include <chimera/train/rope_search.hpp>

#include <chimera/model/language_model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "model/random_weights.hpp"

using namespace chimera;

namespace {

constexpr Config scaled(float factor) {
  Config c{
      .vocab = 11, .width = 16, .context = 96, .layers = pattern("A"), .attention = {.heads = 2}, .ffn = {.hidden = 8}};
  Rope& rope = c.attention.rope;
  rope.scaling = RopeScaling::longrope, rope.factor = 4, rope.original_context = 24;
  for (std::size_t i = 0; i < 4; ++i) rope.short_factor[i] = rope.long_factor[i] = factor;
  return c;
}
constexpr Config start = scaled(4);
constexpr Config kept = [] {
  Config c = scaled(1.5f);
  c.attention.rope.long_factor[3] = 3, c.attention.rope.kept = 5;
  return c;
}();
const AnyModel model = evaluation_model<start>("start"), other = evaluation_model<kept>("kept");

/// Rows of random tokens.
struct Rows : BatchSource {
  Result<void> validate(std::int64_t, std::int64_t) const override { return {}; }
  Result<void> fill(std::uint64_t first, BatchBuffer& batch) override {
    for (std::int64_t r = 0; r < batch.rows(); ++r) {
      Random random{7, first + static_cast<std::uint64_t>(r)};
      for (auto list : {batch.row(r).tokens, batch.row(r).targets})
        for (std::int32_t& t : list) t = static_cast<std::int32_t>(random.below(11));
    }
    return {};
  }
  std::uint64_t rows(std::int64_t) const override { return 100; }
  std::int64_t tokens() const override { return 0; }
};

const Cpu& cpu() {
  static const auto q = Cpu::create(2);
  return *q;
}

}  // namespace

TEST_CASE("frequencies told at run time are those of a model compiled with them") {
  const std::vector<float> weights = random_weights(model);
  auto rows = BatchBuffer::create(2, 96);
  REQUIRE(rows);
  REQUIRE(Rows{}.fill(0, *rows));
  const RopeTurns turns = rope_turns(kept.attention.rope, 8, kept.context);
  auto memory = Buffer::of_bytes(model.loss_bytes(2, 96));
  REQUIRE(memory);
  const auto loss = [&](const AnyModel& m, const RopeTurns* by) {
    TokenBatch batch = rows->batch(0, 2);
    batch.turns = by;
    double sum = 0;
    m.loss(cpu(), weights.data(), batch, {}, memory->bytes(), &sum);
    return sum;
  };
  CHECK(loss(model, &turns) == loss(other, nullptr));
  CHECK(loss(model, nullptr) != loss(other, nullptr));
}

TEST_CASE("a search finds factors that are at least as good as those it starts with") {
  const std::vector<float> weights = random_weights(model);
  Rows rows;
  RopeSearchHost host;
  const RopeSearchSettings settings{.texts = 2, .rounds = 3, .population = 8, .parents = 3, .most_kept = 16};
  const auto search = [&](const RopeSearchSettings& s) {
    return search_rope(cpu(), model, weights.data(), rows, s, host);
  };
  const auto found = search(settings);
  REQUIRE(found);
  CHECK(found->tried == 24);
  CHECK(found->best.loss <= std::min({found->linear.loss, found->ntk.loss, found->yarn.loss}));
  CHECK(found->linear.factors[0] == 4);
  CHECK(found->ntk.factors[0] == 1);
  CHECK(found->ntk.factors[3] == 4);
  const auto& f = found->best.factors;
  CHECK(std::is_sorted(f.begin(), f.begin() + 4));
  CHECK(f[0] >= 1);
  CHECK(f[3] <= 5);
  CHECK(f[4] == 0);
  CHECK(found->best.kept <= 16);

  const auto again = search(settings);
  REQUIRE(again);
  CHECK(again->best.factors == f);
  CHECK(again->best.loss == found->best.loss);
  const Config c = found->applied(start);
  CHECK(c.attention.rope.long_factor == f);
  CHECK(c.attention.rope.short_factor == f);
  CHECK(broken_rule(c) == nullptr);
}

TEST_CASE("a search can be stopped, and says what it cannot do") {
  const std::vector<float> weights = random_weights(model);
  Rows rows;
  struct : RopeSearchHost {
    int rounds = 0;
    void on_round(const RopeSearch&) override { ++rounds; }
    bool should_stop() override { return rounds == 1; }
  } host;
  const auto stopped = search_rope(cpu(), model, weights.data(), rows, {.texts = 1, .population = 3}, host);
  REQUIRE(stopped);
  CHECK(stopped->stopped);
  CHECK(stopped->tried == 3);

  const auto error = [&](const AnyModel& m, const RopeSearchSettings& s) {
    const auto r = search_rope(cpu(), m, weights.data(), rows, s, host);
    return r ? std::string() : r.error().message;
  };
  CHECK(error(model, {.population = 2}) == "a search for factors has at least 3 candidates a round, found 2");
  CHECK(error(model, {.context = 97}) == "context must be at most the model's 96 tokens, found 97");
  CHECK(error(inference_model<start>("start"), {}).ends_with("compiled for evaluation or training"));
  AnyModel plain = model;
  static constexpr Config unscaled{.vocab = 11, .width = 16, .layers = pattern("A"), .attention = {.heads = 2}};
  plain.config = &unscaled;
  CHECK(error(plain, {}).ends_with("that longer_context gave this scaling"));
}
