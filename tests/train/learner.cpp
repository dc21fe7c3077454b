// Runs of other parts than those of chimera-train: another learner, objective and source.
#include <chimera/align/dpo.hpp>
#include <chimera/align/log_probs.hpp>
#include <chimera/train/trainer.hpp>

#include "../temporary_folder.hpp"
#include "bigram_model.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

constexpr std::int32_t good = 'g', bad = 'b';

/// Pairs of rows that begin alike: the chosen one goes on with one letter, the rejected one with another.
struct Pairs : BatchSource {
  Status validate(std::int64_t length, std::int64_t) const override {
    return length % 2 == 0 ? Status{} : Error{"pairs are of even length"};
  }
  Status fill(std::uint64_t first, BatchBuffer& batch) override {
    if (first >= ends) return Error{"the pairs have ended"};
    for (std::int64_t r = 0; r < batch.rows(); ++r) {
      const BatchBuffer::Row row = batch.row(r);
      const std::uint64_t number = first + static_cast<std::uint64_t>(r);
      for (std::size_t t = 0; t < row.tokens.size(); ++t) {
        const bool prompt = t < row.tokens.size() / 2;
        row.tokens[t] = static_cast<std::int32_t>('A' + (number / 2 + t) % 7);
        row.targets[t] = prompt ? -1 : number % 2 == 0 ? good : bad;
      }
    }
    batch.set_documents(false);
    return {};
  }
  std::uint64_t rows(std::int64_t) const override { return 14; }
  std::int64_t tokens() const override { return 1'000; }

  std::uint64_t ends = ~0ull;
};

/// Two losses, at the weights plus and minus the same noise, instead of a gradient (Malladi et al. 2023).
class TwoLosses : public Learner {
 public:
  explicit TwoLosses(const AnyModel& model) : model_(model) {}

  std::span<const Section> state() override { return state_; }
  std::size_t bytes(std::int64_t sequences, std::int64_t length) const override {
    return model_.loss_bytes(sequences, length);
  }
  std::optional<Learned> measure(const Cpu& q, float* weights, const Lesson& lesson, std::byte* memory,
                                 TrainingHost& host) override {
    const std::vector<float> before(weights, weights + model_.arena_floats);
    const auto restore = [&] { std::copy(before.begin(), before.end(), weights); };
    Loss up, down;
    seed_ = lesson.first + 1;
    for (auto [loss, moved] : {std::pair{&up, epsilon}, std::pair{&down, -epsilon}}) {
      move(weights, moved);
      for (const TokenBatch& batch : lesson.batches) {
        if (host.should_stop()) return restore(), std::nullopt;
        model_.loss(q, weights, batch, lesson.objective, memory, &loss->sum);
        loss->count += lesson.objective.counted(batch);
      }
      restore();
    }
    slope_ = (up.mean() - down.mean()) / (2 * double{epsilon});
    return Learned{{(up.sum + down.sum) / 2, up.count}, std::abs(slope_)};
  }
  void update(const Cpu&, float* weights, const Update& update) override {
    last_ = static_cast<float>(update.rate * slope_);
    move(weights, -last_);
  }
  void drop(const Cpu&) override { slope_ = 0; }

 private:
  static constexpr float epsilon = 1.f / 128;

  void move(float* weights, float by) const {
    Random r{seed_, 9};
    for (std::int64_t i = 0; i < model_.parameters; ++i) weights[i] += by * (r.uniform() < 0.5f ? -1.f : 1.f);
  }

  AnyModel model_;
  std::uint64_t seed_ = 0;
  double slope_ = 0;
  float last_ = 0;
  std::array<Section, 1> state_{Section::of("two.last", &last_, 1)};
};

struct Listener : TrainingHost {
  std::vector<StepReport> steps;
  std::vector<ValidationReport> validations;
  std::int64_t stop_after = -1;

  void on_step(const StepReport& r) override { steps.push_back(r); }
  void on_validation(const ValidationReport& r) override { validations.push_back(r); }
  bool should_stop() override { return stop_after >= 0 && stop_after-- == 0; }
};

const TrainerSettings settings{.steps = 30,
                               .batch = 4,
                               .context = 6,
                               .accumulation = 2,
                               .learning_rate = 0.05,
                               .adamw = {},
                               .validation_interval = 10,
                               .checkpoint_interval = 0};

std::unique_ptr<Learner> adamw(const Cpu& q) {
  const AnyModel model = bigram::model();
  auto optimizer = AdamW::create(q, model.tensors, model.arena_floats, {});
  return std::make_unique<Gradient>(*Gradient::create(q, model, std::make_unique<AdamW>(std::move(*optimizer)), 1.0));
}

Result<Trainer> create(const Cpu& q, std::unique_ptr<Learner> learner, const Objective& objective,
                       const std::string& folder = "", const TrainerSettings& s = settings) {
  bigram::faults = {};
  return Trainer::create(q, bigram::model(),
                         {std::make_unique<Pairs>(), std::make_unique<Pairs>(), std::move(learner), objective}, s,
                         folder);
}

std::vector<float> weights_of(Trainer& t) { return {t.weights(), t.weights() + t.model().arena_floats}; }

}  // namespace

TEST_CASE("a run of preferences: pairs of rows, an objective that compares them") {
  const auto q = Cpu::create(1);
  Dpo dpo{.beta = 0.3};
  auto trainer = create(*q, adamw(*q), dpo.objective());
  REQUIRE(trainer);
  Listener host;
  REQUIRE(trainer->run(host));
  // Eight rows of a step are four pairs; at the start both letters are about as likely.
  CHECK(host.steps.front().loss == doctest::Approx(std::log(2)).epsilon(0.05));
  CHECK(host.steps.back().loss < 0.5 * host.steps.front().loss);
  CHECK(host.validations.back().targets == 7);
  CHECK(host.validations.back().loss == doctest::Approx(host.steps.back().loss).epsilon(0.3));
  for (std::int32_t c = 'A'; c < 'A' + 7; ++c) {
    const float* row = trainer->weights() + c * bigram::vocab;
    CHECK(row[good] > row[bad] + 0.1f);
  }
}

TEST_CASE("the gradient of a comparison agrees with finite differences") {
  const AnyModel model = bigram::model();
  const auto q = Cpu::create(1);
  Pairs pairs;
  auto buffer = BatchBuffer::create(4, 6);
  REQUIRE(pairs.fill(3, *buffer).ok());
  TokenBatch batch = buffer->batch(0, 4);
  std::vector<float> w(model.arena_floats), g(model.arena_floats);
  model.initialize(w.data(), 3);
  LogProbs reference;
  double unread = 0;
  model.loss(*q, w.data(), batch, reference.objective(), nullptr, &unread);
  batch.reference = reference.values.data();
  Dpo dpo{.beta = 0.7};
  model.initialize(w.data(), 4);
  model.train(*q, w.data(), batch, {.scale = 0.5f, .objective = dpo.objective()}, nullptr, g.data(), &unread);
  double slope = 0;
  std::vector<float> up = w, down = w;
  for (std::size_t i = 0; i < w.size(); ++i) {
    up[i] += 0.1f * g[i], down[i] -= 0.1f * g[i];
    slope += static_cast<double>(up[i] - down[i]) * static_cast<double>(g[i]);
  }
  double above = 0, below = 0;
  model.loss(*q, up.data(), batch, dpo.objective(), nullptr, &above);
  model.loss(*q, down.data(), batch, dpo.objective(), nullptr, &below);
  CHECK(slope > 1e-3);
  CHECK(0.5 * (above - below) == doctest::Approx(slope).epsilon(1e-3));
}

TEST_CASE("a learner without a gradient learns, and goes on to the bit") {
  const auto q = Cpu::create(1);
  Dpo dpo{.beta = 0.3};
  TrainerSettings s = settings;
  s.learning_rate = 0.02, s.steps = 60;
  auto whole = create(*q, std::make_unique<TwoLosses>(bigram::model()), dpo.objective(), "", s);
  REQUIRE(whole);
  Listener host;
  CHECK(*whole->measure_step() > 0);
  REQUIRE(whole->run(host));
  CHECK(host.steps.back().loss < 0.9 * host.steps.front().loss);

  TemporaryFolder folder;
  auto first = create(*q, std::make_unique<TwoLosses>(bigram::model()), dpo.objective(), folder.path, s);
  Listener stops;
  stops.stop_after = 4 * 17 + 3;  // in the middle of a step, with the weights moved
  REQUIRE(first->run(stops));
  CHECK(first->progress().step < 20);
  auto second = create(*q, std::make_unique<TwoLosses>(bigram::model()), dpo.objective(), folder.path, s);
  REQUIRE(second->resume());
  CHECK(second->progress().step == first->progress().step);
  REQUIRE(second->run(stops));
  CHECK(weights_of(*whole) == weights_of(*second));

  const auto checkpoint = find_checkpoint(folder.path);
  REQUIRE(checkpoint);
  auto adam = create(*q, adamw(*q), {}, "", s);
  CHECK(adam->load(*checkpoint).error().message.find("it has no section \"moment1\"") != std::string::npos);
}

TEST_CASE("what a checkpoint has and the run does not know is named") {
  const auto q = Cpu::create(1);
  TemporaryFolder folder;
  struct Nothing : TwoLosses {
    using TwoLosses::TwoLosses;
    std::span<const Section> state() override { return {}; }
  };
  REQUIRE(create(*q, adamw(*q), {})->save(folder / "c").ok());
  auto trainer = create(*q, std::make_unique<Nothing>(bigram::model()), {});
  const auto before = weights_of(*trainer);
  CHECK(trainer->load(folder / "c").error().message ==
        "cannot load " + (folder / "c") + ": it has a section \"moment1\", which this run does not know");
  CHECK(weights_of(*trainer) == before);
}

TEST_CASE("label smoothing and z-loss reach the model in training and not in validation") {
  const auto q = Cpu::create(1);
  TrainerSettings s = settings;
  s.steps = 1, s.label_smoothing = 0.125, s.z_loss = 0.25;
  auto trainer = create(*q, adamw(*q), {}, "", s);
  Listener host;
  REQUIRE(trainer->run(host));
  CHECK(bigram::faults.trained.label_smoothing == 0.125f);
  CHECK(bigram::faults.trained.z_loss == 0.25f);
  CHECK(host.validations.size() == 1);
  CHECK(bigram::faults.validated.label_smoothing == 0);
  CHECK(bigram::faults.validated.z_loss == 0);
  Dpo dpo{.beta = 0.3};
  CHECK(create(*q, adamw(*q), dpo.objective(), "", s).error().message ==
        "label_smoothing and z_loss are of cross-entropy, and this run has an objective of its own");
}

TEST_CASE("a source that fails ends the run with its reason; one that does not fit begins none") {
  const auto q = Cpu::create(1);
  auto pairs = std::make_unique<Pairs>();
  pairs->ends = 40;
  auto trainer = Trainer::create(*q, bigram::model(), {std::move(pairs), nullptr, adamw(*q)}, settings);
  REQUIRE(trainer);
  CHECK_FALSE(trainer->validates());
  Listener host;
  CHECK(trainer->run(host).error().message == "the pairs have ended");
  CHECK(host.steps.size() == 5);
  TrainerSettings odd = settings;
  odd.context = 7;
  CHECK(create(*q, adamw(*q), {}, "", odd).error().message == "pairs are of even length");
}

TEST_CASE("tokens in memory train as those of a file do") {
  TemporaryFolder folder;
  const std::string text = bigram::text(5'000);
  const std::vector<std::int32_t> tokens(text.begin(), text.end());
  const auto q = Cpu::create(1);
  TrainerSettings s = settings;
  s.context = 32;
  std::vector<std::vector<float>> weights;
  std::array corpora{Corpus::open(write_file(folder / "t", text), bigram::vocab), Corpus::of(text, bigram::vocab),
                     Corpus::of(tokens, bigram::vocab)};
  for (const auto& corpus : corpora) {
    REQUIRE(corpus);
    auto trainer = Trainer::create(*q, bigram::model(), split(*corpus), s);
    Listener host;
    REQUIRE(trainer->run(host));
    weights.push_back(weights_of(*trainer));
  }
  CHECK(weights[0] == weights[1]);
  CHECK(weights[0] == weights[2]);
}
