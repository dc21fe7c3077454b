// Pairs of answers: their rows, and what a reference model says of them.
#include "align/nano.hpp"
#include "temporary_folder.hpp"

#include <chimera/align/dpo.hpp>
#include <chimera/align/preferences.hpp>
#include <chimera/core/device.hpp>

#include <doctest/doctest.h>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {

using namespace chimera;

MarkedTokens answer(std::size_t asked, std::size_t answered, std::int32_t id) {
  MarkedTokens m{std::vector<std::int32_t>(asked, 7), std::vector<bool>(asked, false)};
  m.ids.resize(asked + answered, id), m.said.resize(asked + answered, true);
  return m;
}
MarkedPair pair(std::size_t asked, std::size_t answered, std::int32_t id) {
  return {answer(asked, answered, id), answer(asked, answered + 1, id + 1)};
}

bool says(const auto& result, std::string_view words) {
  return !result && result.error().message.find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("a pair is two rows; what a reference says of each token stands beside its target") {
  const std::vector<MarkedPair> pairs{
      pair(2, 2, 10), pair(3, 4, 20), pair(9, 2, 30), {answer(2, 2, 40), answer(2, 2, 40)}};
  Preferences source = Preferences::create(pairs, 6, WindowOrder::in_order);
  CHECK(source.counts().used == 2);
  CHECK(source.counts().cut == 1);
  CHECK(source.counts().left_out == 2);
  CHECK(source.rows(6) == 4);
  REQUIRE(source.validate(6, 256).ok());
  auto batch = BatchBuffer::create(6, 6);
  CHECK(says(source.fill(0, *batch), "not measured"));

  const Cpu q = *Cpu::create(2);
  const AnyModel model = nano_model();
  std::vector<float> w(model.arena_floats);
  model.initialize(w.data(), 1);
  REQUIRE(*source.measure_reference(q, model, w.data(), 3));
  REQUIRE(source.fill(0, *batch).ok());
  CHECK(std::vector<std::int32_t>(batch->row(1).tokens.begin(), batch->row(1).tokens.end()) ==
        std::vector<std::int32_t>{7, 7, 11, 11, 0, 0});
  CHECK(std::vector<std::int32_t>(batch->row(1).targets.begin(), batch->row(1).targets.end()) ==
        std::vector<std::int32_t>{-1, 11, 11, 11, -1, -1});
  CHECK(batch->row(4).targets[1] == -1);  // past the end

  // The model itself is its reference: no pair is preferred, and nothing has moved.
  Dpo dpo;
  double loss = 0;
  std::vector<std::byte> memory(model.loss_bytes(6, 6));
  const TokenBatch all = batch->batch(0, 6);
  model.loss(q, w.data(), all, dpo.objective(), memory.data(), &loss);
  CHECK(dpo.objective().counted(all) == 2);
  CHECK(loss == doctest::Approx(2 * std::log(2)).epsilon(1e-5));
  CHECK(dpo.seen.pairs == 2);
  CHECK(dpo.seen.mean_margin() == doctest::Approx(0).epsilon(1e-5));
  CHECK(dpo.seen.kl() < 1e-9);

  const TemporaryFolder folder;
  const std::string path = folder / "reference.safetensors";
  REQUIRE(source.save_reference(path, 5).ok());
  Preferences again = Preferences::create(pairs, 6, WindowOrder::in_order);
  CHECK(says(again.load_reference(path, 6), "of another model"));
  CHECK(says(Preferences::create(std::span(pairs).first(1), 6, WindowOrder::in_order).load_reference(path, 5),
             "of other pairs"));
  REQUIRE(again.load_reference(path, 5).ok());
  auto other = BatchBuffer::create(6, 6);
  REQUIRE(again.fill(0, *other).ok());
  for (std::int64_t r = 0; r < 4; ++r)
    for (std::size_t t = 0; t < 6; ++t) CHECK(other->row(r).reference[t] == batch->row(r).reference[t]);
}
