// Training on a device with memory of its own: the bits of the processor's.
#include "train/far_device.hpp"

#include "../temporary_folder.hpp"

#include <chimera/align/dpo.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

constexpr Config mixed{.vocab = 96,
                       .width = 32,
                       .context = 40,
                       .layers = pattern("A M R GD XM SK TM"),
                       .attention = {.heads = 4, .kv_heads = 2, .qkv_bias = true, .output_bias = true, .qk_norm = true},
                       .mamba2 = {.head_dim = 8, .state = 16, .chunk = 16},
                       .rg_lru = {.heads = 4, .bias = true},
                       .gated_deltanet = {.key_heads = 2, .value_heads = 4, .key_dim = 8, .chunk = 16},
                       .mlstm = {.heads = 2, .chunk = 16},
                       .span_knot = {.span = 4, .top_knots = 3},
                       .titans = {.persistent = 3, .segment = 16},
                       .ffn = {.hidden = 48},
                       .loop = {.first = 1, .last = 3},
                       .sub_norm = true,
                       .logit_cap = 20.f,
                       .dropout = 0.1f};

constexpr Config again = [] {
  Config c = mixed;
  c.checkpointing = true, c.dropout = 0, c.sub_norm = false;
  c.embedding_rank = 8, c.layers = pattern("A+E M R+E GD TM"), c.moe = {.experts = 4, .expert_hidden = 16},
  c.attention.output_gate = true, c.loop = {.first = 1, .last = 2, .most = 4, .mean = 2.f, .backprop = 2};
  return c;
}();

const TrainerSettings settings{.steps = 4,
                               .batch = 2,
                               .context = 40,
                               .accumulation = 2,
                               .learning_rate = 0.01,
                               .floor = 1,
                               .validation_interval = 2,
                               .checkpoint_interval = 2};

struct Listener : TrainingHost {
  std::vector<double> numbers;

  void on_step(const StepReport& r) override { numbers.insert(numbers.end(), {r.loss, r.gradient_norm}); }
  void on_validation(const ValidationReport& r) override {
    numbers.insert(numbers.end(), {r.loss, static_cast<double>(r.targets)});
  }
};

/// Documents of some lengths, one after the other.
struct Text {
  std::vector<std::int32_t> tokens;
  std::optional<Corpus> corpus;

  Text() {
    for (std::int32_t i = 0; i < 1'200; ++i) tokens.push_back(i % 29 == 0 || i % 67 == 0 ? 0 : 1 + i * i % 95);
    auto made = Corpus::of(tokens, mixed.vocab, 0);
    REQUIRE(made);
    corpus = std::move(*made);
  }
  Split split() const { return chimera::split(*corpus); }
};

/// The weights as the host sees them.
template <Device D>
std::vector<float> weights_of(const D& q, TrainerOn<D>& t) {
  const std::size_t n = t.model().arena_floats;
  auto view = HostView<D>::create(t.weights(), n * sizeof(float));
  REQUIRE(view);
  REQUIRE(view->fetch(q));
  return {view->floats(), view->floats() + n};
}

template <const Config& C>
void compare() {
  const auto cpu = Cpu::create(2);
  const far::Device q(*cpu);
  const Text text;
  TemporaryFolder here, there;
  auto near = Trainer::create(*cpu, any_model<C>("mixed"), text.split(), settings, here.path);
  auto distant =
      TrainerOn<far::Device>::create(q, any_model<C, far::Device>("mixed"), text.split(), settings, there.path);
  REQUIRE(near);
  REQUIRE(distant);
  CHECK(weights_of(*cpu, *near) == weights_of(q, *distant));
  Listener a, b;
  REQUIRE(near->run(a));
  REQUIRE(distant->run(b));
  CHECK(a.numbers.size() > 10);
  CHECK(a.numbers == b.numbers);
  CHECK(weights_of(*cpu, *near) == weights_of(q, *distant));

  // What one saved the other goes on from.
  auto next = settings;
  next.steps = 6;
  auto near2 = Trainer::create(*cpu, any_model<C>("mixed"), text.split(), next, there.path);
  auto distant2 = TrainerOn<far::Device>::create(q, any_model<C, far::Device>("mixed"), text.split(), next, here.path);
  CHECK(near2->resume()->step == 4);
  CHECK(distant2->resume()->step == 4);
  REQUIRE(near2->run(a));
  REQUIRE(distant2->run(b));
  CHECK(a.numbers == b.numbers);
  CHECK(weights_of(*cpu, *near2) == weights_of(q, *distant2));

  // A run of which nothing was saved ends there, too.
  auto whole = Trainer::create(*cpu, any_model<C>("mixed"), text.split(), next);
  REQUIRE(whole->run(a));
  CHECK(weights_of(*cpu, *whole) == weights_of(*cpu, *near2));
}

}  // namespace

TEST_CASE("a device with memory of its own trains to the processor's bits") {
  SUBCASE("with all kinds of layers, and dropout") { compare<mixed>(); }
  SUBCASE("with activations that are computed again") { compare<again>(); }
}

TEST_CASE("an objective of the host's reads what a device with memory of its own computed") {
  const auto cpu = Cpu::create(2);
  const far::Device q(*cpu);
  const Text text;
  Dpo dpo;
  const auto train = [&]<Device D>(const D& device) {
    const auto model = any_model<again, D>("mixed");
    auto optimizer = AdamWOn<D>::create(device, model.tensors, model.arena_floats, {});
    auto learner = GradientOn<D>::create(device, model, std::make_unique<AdamWOn<D>>(std::move(*optimizer)), 1.0);
    TrainingPartsOn<D> parts{.train = std::make_unique<Windows>(text.split().train, WindowOrder::random, 3),
                             .validation = nullptr,
                             .learner = std::make_unique<GradientOn<D>>(std::move(*learner)),
                             .objective = dpo.objective()};
    auto trainer = TrainerOn<D>::create(device, model, std::move(parts), settings);
    REQUIRE(trainer);
    CHECK(*trainer->measure_step() > 0);
    Listener host;
    REQUIRE(trainer->run(host));
    return std::pair(host.numbers, weights_of(device, *trainer));
  };
  CHECK(train(*cpu) == train(q));
}

TEST_CASE("what went wrong on a device ends a run in its sentence") {
  const auto cpu = Cpu::create(1);
  const far::Device q(*cpu);
  const Text text;
  auto trainer = TrainerOn<far::Device>::create(q, any_model<again, far::Device>("mixed"), text.split(), settings);
  REQUIRE(trainer);
  struct Breaks : TrainingHost {
    const far::Device* q = nullptr;
    void on_step(const StepReport& r) override {
      if (r.step == 2) q->fail("the device fell off");
    }
  } host;
  host.q = &q;
  const auto ended = trainer->run(host);
  REQUIRE(!ended);
  CHECK(ended.error().message == "the device fell off");
}
