// Models whose matrices have three values: they learn, and decode what training computes.
#include <chimera/chimera.hpp>

#include <doctest/doctest.h>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using namespace chimera;

constexpr Config whole{.vocab = 61,
                       .width = 256,
                       .context = 64,
                       .layers = pattern("A M+E R GD"),
                       .attention = {.heads = 8, .kv_heads = 4},
                       .mamba2 = {.expand = 1, .head_dim = 32, .state = 16},
                       .gated_deltanet = {.key_heads = 4, .key_dim = 64},
                       .ffn = {.hidden = 256},
                       .moe = {.experts = 3, .top_k = 2, .expert_hidden = 256},
                       .ternary = {.on = true}};
constexpr Config groups_in_two_bits = [] {
  Config c = whole;
  c.ternary.group = 256;
  return c;
}();
constexpr Config small_groups = [] {
  Config c = whole;
  c.width = 128, c.ffn.hidden = 192, c.moe.expert_hidden = 64, c.ternary.group = 64;
  return c;
}();
constexpr Config kept = [] {
  Config c = whole;
  c.ternary.on = false;
  return c;
}();

std::vector<std::int32_t> tokens(std::int64_t n) {
  std::vector<std::int32_t> t;
  for (std::int64_t i = 0; i < n; ++i) t.push_back(static_cast<std::int32_t>(i * i % 7 * 8 + i % 3));
  return t;
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("a ternary model learns, and decodes what training computes", C, ternary_model) {
  const AnyModel model = any_model<C::config>("ternary");
  const Cpu q = *Cpu::create(2);
  constexpr std::int64_t length = 40;
  const std::vector<std::int32_t> text = tokens(length + 1);
  TokenBatch batch;
  batch.length = length, batch.inputs = text.data(), batch.targets = text.data() + 1;
  auto weights = Buffer::create(model.arena_floats);
  REQUIRE(weights);
  model.initialize(weights->data(), 3);

  auto optimizer = AdamW::create(q, model.tensors, model.arena_floats, {});
  auto learner = Gradient::create(q, model, std::make_unique<AdamW>(std::move(*optimizer)), 1.0);
  REQUIRE(learner);
  std::vector<std::byte> memory(learner->bytes(1, length));
  TrainingHost host;
  double first = 0, last = 0;
  for (int i = 0; i < 60; ++i) {
    last = learner->measure(q, weights->data(), {.batches = {&batch, 1}}, memory.data(), host)->loss.mean();
    if (i == 0) first = last;
    learner->update(q, weights->data(), {.number = i + 1, .rate = 3e-3});
  }
  CHECK(first > 3.5);
  CHECK(last < 1.0);

  const auto base = StoredBase::create(q, model, weights->data(), BaseFormat::as_they_come);
  REQUIRE(base);
  CHECK(base->bytes() < model.arena_floats * (model.config->width % 256 == 0 ? 1 : 2));
  const auto adapted = AdaptedModel::create(model, base->tensors(), all_targets(model.tensors), {});
  REQUIRE(adapted);
  std::vector<float> adapters(adapted->model().arena_floats);
  adapted->model().initialize(adapters.data(), 1);
  memory.resize(std::max({memory.size(), adapted->model().loss_bytes(1, length), model.loss_bytes(1, length)}));
  double with_codes = 0, with_weights = 0;
  adapted->model().loss(q, adapters.data(), batch, {}, memory.data(), &with_codes);
  model.loss(q, weights->data(), batch, {}, memory.data(), &with_weights);
  CHECK(with_codes == doctest::Approx(with_weights).epsilon(1e-3));

  std::vector<float> logits(static_cast<std::size_t>(length * C::config.vocab));
  memory.resize(std::max(memory.size(), model.loss_bytes(1, length)));
  model.forward(q, weights->data(), batch, memory.data(), logits.data());
  const auto packed = PackedModel::create(q, model, weights->data());
  REQUIRE(packed);
  auto session = Session::create(q, *packed, {.kv = KvFormat::f32});
  REQUIRE(session);
  double difference = 0, size = 0;
  for (std::int64_t t = 0; t < length; ++t) {
    const auto got = session->step(text[static_cast<std::size_t>(t)]);
    REQUIRE(got);
    for (std::size_t v = 0; v < got->size(); ++v) {
      const double want = static_cast<double>(logits[static_cast<std::size_t>(t) * got->size() + v]);
      difference += std::pow(static_cast<double>((*got)[v]) - want, 2), size += want * want;
    }
  }
  // Decoding rounds its inputs otherwise: to powers of two of a row's scale.
  CHECK(std::sqrt(difference / size) < 0.03);
}

template <const Config& C>
struct Model {
  static constexpr const Config& config = C;
};
TEST_CASE_TEMPLATE_INVOKE(ternary_model, Model<whole>, Model<groups_in_two_bits>, Model<small_groups>);

TEST_CASE("matrices of three values are packed in two bits, the embedding as it is") {
  const Cpu q = *Cpu::create(1);
  std::vector<float> weights(any_model<whole>("").arena_floats);
  any_model<whole>("").initialize(weights.data(), 1);
  const auto three = PackedModel::create(q, any_model<whole>(""), weights.data());
  const auto plain = PackedModel::create(q, any_model<kept>(""), weights.data());
  REQUIRE(three);
  REQUIRE(plain);
  CHECK(three->bytes() < plain->bytes() / 8);
}
