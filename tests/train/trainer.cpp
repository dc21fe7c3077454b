#include <chimera/train/trainer.hpp>

#include "../temporary_folder.hpp"
#include "bigram_model.hpp"

#include <doctest/doctest.h>

#include <sys/resource.h>
#include <csignal>
#include <cstring>
#include <memory>
#include <vector>

using namespace chimera;
using bigram::faults;

namespace {

/// Keeps all it hears; stops when `stop_after` polls have passed.
struct Listener : TrainingHost {
  std::vector<StepReport> steps;
  std::vector<ValidationReport> validations;
  std::vector<std::string> checkpoints;
  std::int64_t stop_after = -1;

  void on_step(const StepReport& r) override { steps.push_back(r); }
  void on_validation(const ValidationReport& r) override { validations.push_back(r); }
  void on_checkpoint(const std::string& path) override { checkpoints.push_back(path); }
  bool should_stop() override { return stop_after >= 0 && stop_after-- == 0; }
};

/// A corpus, a device and a trainer on them.
struct TestRun {
  TemporaryFolder data_folder;
  std::unique_ptr<Corpus> corpus;
  std::unique_ptr<Cpu> q;
  std::unique_ptr<Trainer> trainer;
  Listener host;

  explicit TestRun(const TrainerSettings& settings, const std::string& folder = "", int threads = 1,
                   const std::string& text = bigram::text(20'000)) {
    faults = {};
    corpus = std::make_unique<Corpus>(*Corpus::open(write_file(data_folder / "t.txt", text), bigram::vocab));
    q = std::make_unique<Cpu>(*Cpu::create(threads));
    auto made = Trainer::create(*q, bigram::model(), split(*corpus), settings, folder);
    INFO((made.ok() ? "" : made.error().message));
    REQUIRE(made.ok());
    trainer = std::make_unique<Trainer>(std::move(*made));
  }
  Ended run() {
    const auto ended = trainer->run(host);
    INFO((ended.ok() ? "" : ended.error().message));
    REQUIRE(ended.ok());
    return *ended;
  }
  std::string error() {
    const auto ended = trainer->run(host);
    REQUIRE_FALSE(ended.ok());
    return ended.error().message;
  }
  std::vector<float> weights() const { return {trainer->weights(), trainer->weights() + bigram::model().arena_floats}; }
};

TrainerSettings quick() {
  return {.steps = 40,
          .batch = 4,
          .context = 32,
          .learning_rate = 0.05,
          .validation_interval = 10,
          .checkpoint_interval = 0};
}

std::string error_of(const TrainerSettings& settings, const std::string& text, const std::string& folder = "") {
  TemporaryFolder data;
  auto corpus = Corpus::open(write_file(data / "t.txt", text), bigram::vocab);
  auto q = Cpu::create(1);
  auto made = Trainer::create(*q, bigram::model(), split(*corpus), settings, folder);
  REQUIRE_FALSE(made.ok());
  return made.error().message;
}

void check_mentions(const std::string& message, const std::string& part) {
  CAPTURE(message);
  CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("a model learns its text") {
  TrainerSettings s = quick();
  s.steps = 200;
  TestRun run(s);
  CHECK(run.run() == Ended::finished);
  CHECK(run.host.steps.size() == 200);
  CHECK(run.host.steps.front().loss == doctest::Approx(std::log(257)).epsilon(0.02));
  const double best = bigram::entropy(bigram::text(20'000));
  CHECK(run.trainer->progress().validation_loss > best - 0.05);
  CHECK(run.trainer->progress().validation_loss < best + 0.1);
  CHECK(run.host.validations.size() == 20);
  CHECK(run.host.validations.back().loss == run.trainer->progress().validation_loss);
}

TEST_CASE("the report of a step says what happened") {
  TrainerSettings s = quick();
  s.accumulation = 2, s.warmup = 10;
  TestRun run(s);
  run.run();
  const StepReport& r = run.host.steps[19];
  CHECK(r.step == 20);
  CHECK(r.steps == 40);
  CHECK(r.tokens == 20 * 4 * 32 * 2);
  CHECK(r.learning_rate == 0.05 * s.resolved_schedule().factor(20));
  CHECK(run.host.steps[4].learning_rate == doctest::Approx(0.025));
  CHECK(r.gradient_norm > 0);
  CHECK(r.tokens_per_second > 0);
  CHECK(r.flops_per_second ==
        doctest::Approx(r.tokens_per_second * 6 * static_cast<double>(bigram::model().parameters)));
  CHECK(r.seconds > 0);
  CHECK(r.seconds_left > 0);
  CHECK(run.host.steps.back().seconds_left == 0);
  CHECK(r.skip == Skip::none);
}

TEST_CASE("validation is the mean over every target of the split, once") {
  TestRun run(quick());
  const std::int64_t n = run.corpus->tokens(), first = n - n / 10;
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n - first));
  run.corpus->read(first, n - first, tokens.data());
  TokenBatch whole;
  whole.length = n - first - 1, whole.inputs = tokens.data(), whole.targets = tokens.data() + 1;
  const Loss expected = bigram::run(run.trainer->weights(), whole, nullptr, 0);
  const auto report = run.trainer->validate();
  REQUIRE(report);
  CHECK(report->targets == n - first - 1);
  CHECK(report->loss == doctest::Approx(expected.mean()).epsilon(1e-9));
}

TEST_CASE("validation can be limited to its first tokens") {
  TrainerSettings s = quick();
  s.validation_tokens = 500;
  CHECK(TestRun(s).trainer->validate()->targets == 500);
}

TEST_CASE("micro-batches add up to one large batch") {
  TrainerSettings large = quick(), small = quick();
  large.batch = 8, small.batch = 2, small.accumulation = 4;
  // Documents make the number of targets differ between micro-batches: a mean of means would differ.
  std::string text;
  for (int i = 0; i < 2'000; ++i) text += std::string(static_cast<std::size_t>(i % 11), 'a') + "bc\n<|endoftext|>\n";
  TestRun a(large, "", 1, text), b(small, "", 1, text);
  a.run();
  b.run();
  double worst = 0;
  const auto wa = a.weights(), wb = b.weights();
  for (std::size_t i = 0; i < wa.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(wa[i] - wb[i])));
  CHECK(worst < 1e-4);
  for (std::size_t i = 0; i < a.host.steps.size(); ++i)
    CHECK(a.host.steps[i].loss == doctest::Approx(b.host.steps[i].loss).epsilon(1e-5));
}

TEST_CASE("n steps, save, load and n steps are 2n steps, bit for bit") {
  for (WindowOrder order : {WindowOrder::random, WindowOrder::shuffled}) {
    TrainerSettings s = quick();
    s.order = order, s.accumulation = 2, s.schedule = ScheduleShape::wsd_sqrt, s.validation_interval = 0;
    TestRun whole(s);
    faults.noise = true;
    whole.run();

    TemporaryFolder folder;
    s.checkpoint_interval = 20;
    TestRun first(s, folder.path);
    faults.noise = true;
    first.host.stop_after = 45;  // in the middle of step 23
    CHECK(first.run() == Ended::stopped);
    CHECK(first.host.checkpoints.back() == folder / "checkpoint-000022.chimera");

    TestRun second(s, folder.path);
    faults.noise = true;
    const auto resumed = second.trainer->resume();
    REQUIRE(resumed);
    CHECK(resumed->step == 22);
    CHECK(resumed->note == "");
    CHECK(second.run() == Ended::finished);
    CHECK(std::memcmp(whole.trainer->weights(), second.trainer->weights(),
                      bigram::model().arena_floats * sizeof(float)) == 0);
    for (std::size_t i = 0; i < second.host.steps.size(); ++i)
      CHECK(second.host.steps[i].loss == whole.host.steps[22 + i].loss);
    Progress p = second.trainer->progress(), expected = whole.trainer->progress();
    p.seconds = expected.seconds = 0;
    CHECK(to_lines(p) == to_lines(expected));

    REQUIRE(whole.trainer->save(folder / "whole").ok());
    REQUIRE(second.trainer->save(folder / "second").ok());
    const auto a = Checkpoint::open(folder / "whole"), b = Checkpoint::open(folder / "second");
    for (const char* part : {"weights", "moment1", "moment2"})
      CHECK(std::memcmp(a->section(part)->data(), b->section(part)->data(), a->section(part)->size()) == 0);
  }
}

TEST_CASE("the number of threads changes no bit") {
  TestRun a(quick(), "", 1), b(quick(), "", 3);
  a.run();
  b.run();
  CHECK(a.weights() == b.weights());
}

TEST_CASE("a step without sense is skipped, said and counted; the weights stay") {
  for (Skip kind : {Skip::loss_not_finite, Skip::gradient_not_finite, Skip::spike}) {
    TrainerSettings s = quick();
    s.steps = 31, s.validation_interval = 0;
    TestRun run(s);
    // What the weights were before and after step 31, which is micro-batch 30.
    TemporaryFolder folder;
    std::vector<float> before;
    struct Watch : Listener {
      TestRun* run;
      std::vector<float>* before;
      void on_step(const StepReport& r) override {
        Listener::on_step(r);
        if (r.step == 30) *before = run->weights();
      }
    } watch;
    watch.run = &run, watch.before = &before;
    (kind == Skip::loss_not_finite       ? faults.nan_loss
     : kind == Skip::gradient_not_finite ? faults.infinite_gradient
                                         : faults.spike) = 30;
    REQUIRE(run.trainer->run(watch).ok());
    CHECK(watch.steps[30].skip == kind);
    CHECK(watch.steps[30].skipped == 1);
    CHECK(watch.steps[29].skip == Skip::none);
    CHECK(run.weights() == before);
    CHECK(run.trainer->progress().updates == 30);
    CHECK(run.trainer->progress().step == 31);
    CHECK(name(watch.steps[30].skip) != "");
  }
}

TEST_CASE("the run goes on after a skipped step, from a clean gradient") {
  TrainerSettings s = quick();
  s.steps = 200;
  TestRun run(s);
  faults.nan_loss = 3, faults.infinite_gradient = 60, faults.spike = 100;
  run.run();
  CHECK(run.trainer->progress().skipped == 3);
  CHECK(run.trainer->progress().validation_loss < bigram::entropy(bigram::text(20'000)) + 0.1);
}

TEST_CASE("a run that only skips ends with an error") {
  TrainerSettings s = quick();
  s.skip_limit = 5;
  TestRun run(s);
  faults.forever_from = 10;
  check_mentions(run.error(),
                 "ended at step 15: 5 steps in a row were skipped, the last because the loss is not finite");
}

TEST_CASE("a loss that stays high is soon no spike") {
  TrainerSettings s = quick();
  s.steps = 60;
  TestRun run(s);
  // A fresh model, loss 5.5, in a run whose loss was 1: twice the running mean passes 5.5 after some 20 steps.
  Progress low;
  low.loss_mean = 1, low.updates = 100;
  TemporaryFolder folder;
  std::vector<float> moments(bigram::model().arena_floats);
  const std::size_t n = bigram::model().arena_floats;
  const std::array state{Section::of("weights", run.trainer->weights(), n), Section::of("moment1", moments.data(), n),
                         Section::of("moment2", moments.data(), n)};
  REQUIRE(save_checkpoint(folder / "c", bigram::model(), low, s, state).ok());
  REQUIRE(run.trainer->load(folder / "c").ok());
  run.run();
  CHECK(run.host.steps.front().skip == Skip::spike);
  CHECK(run.host.steps.back().skip == Skip::none);
  CHECK(run.trainer->progress().skipped > 10);
  CHECK(run.trainer->progress().skipped < 30);
}

TEST_CASE("stopping before the first step saves nothing and loses nothing") {
  TemporaryFolder folder;
  TestRun run(quick(), folder.path);
  run.host.stop_after = 0;
  CHECK(run.run() == Ended::stopped);
  CHECK(run.host.steps.empty());
  CHECK(list_folder(folder.path)->empty());
}

TEST_CASE("a stop during validation is resumed by validating") {
  TemporaryFolder folder;
  TrainerSettings s = quick();
  TestRun run(s, folder.path);
  run.host.stop_after = 12;  // ten steps, then the third batch of the first validation
  CHECK(run.run() == Ended::stopped);
  CHECK(run.host.validations.empty());
  CHECK(run.trainer->progress().step == 10);
  CHECK(find_checkpoint(folder.path).ok());
}

TEST_CASE("a checkpoint does not wait for the validation at its step") {
  TemporaryFolder folder;
  TrainerSettings s = quick();
  s.checkpoint_interval = 10;
  struct Killed : Listener {  // looks at what a kill in the midst of a validation would leave
    std::string folder;
    std::int64_t left = 0;
    bool should_stop() override {
      if (steps.size() == 20 && list_checkpoints(folder)->size() > 0) left = list_checkpoints(folder)->front();
      return left == 20;
    }
  } host;
  host.folder = folder.path;
  TestRun run(s, folder.path);
  REQUIRE(run.trainer->run(host).ok());
  CHECK(host.left == 20);
  CHECK(host.validations.size() == 1);  // of step 10

  TestRun resumed(s, folder.path);
  REQUIRE(resumed.trainer->resume());
  CHECK(resumed.run() == Ended::finished);
  REQUIRE(resumed.host.validations.size() == 3);
  CHECK(resumed.host.validations.front().step == 20);  // made good
  CHECK(read_checkpoint_header(folder / "checkpoint-000040.chimera")->progress.validation_step == 40);
}

TEST_CASE("what was learned is saved before the last validation") {
  TemporaryFolder folder;
  TestRun run(quick(), folder.path);
  struct Last : Listener {
    std::string folder;
    bool saved = false;
    void on_validation(const ValidationReport& r) override {
      Listener::on_validation(r);
      saved = r.step == 40 && find_checkpoint(folder).ok();
    }
  } host;
  host.folder = folder.path;
  REQUIRE(run.trainer->run(host).ok());
  CHECK(host.saved);
  CHECK(host.checkpoints.size() == 1);
}

TEST_CASE("checkpoints come at their interval and old ones go") {
  TemporaryFolder folder;
  TrainerSettings s = quick();
  s.checkpoint_interval = 15, s.keep = 2;
  TestRun run(s, folder.path);
  run.run();
  CHECK(run.host.checkpoints.size() == 3);
  CHECK(*list_checkpoints(folder.path) == std::vector<std::int64_t>{40, 30});
}

TEST_CASE("a folder with checkpoints is resumed or left alone") {
  TemporaryFolder folder;
  TestRun(quick(), folder.path).run();
  TestRun again(quick(), folder.path);
  check_mentions(again.error(), "holds checkpoints of an earlier run");
  REQUIRE(again.trainer->resume());
  CHECK(again.run() == Ended::finished);
  CHECK(again.host.steps.empty());
}

TEST_CASE("resuming an empty folder starts at the beginning") {
  TemporaryFolder folder;
  TestRun run(quick(), folder.path);
  const auto resumed = run.trainer->resume();
  REQUIRE(resumed);
  CHECK(resumed->path.empty());
  CHECK(run.run() == Ended::finished);
}

TEST_CASE("resuming passes over damage, and says so; with nothing else it fails and changes nothing") {
  TemporaryFolder folder;
  TrainerSettings s = quick();
  s.checkpoint_interval = 20;
  TestRun(s, folder.path).run();
  std::string newest = read_file(folder / "checkpoint-000040.chimera");
  newest[newest.size() / 2] ^= 1;
  write_file(folder / "checkpoint-000040.chimera", newest);
  TestRun run(s, folder.path);
  const auto resumed = run.trainer->resume();
  REQUIRE(resumed);
  CHECK(resumed->step == 20);
  check_mentions(resumed->note, "checkpoint-000040.chimera: its section");
  write_file(folder / "checkpoint-000020.chimera", "x");
  TestRun none(s, folder.path);
  const auto before = none.weights();
  const auto failed = none.trainer->resume();
  REQUIRE_FALSE(failed.ok());
  check_mentions(failed.error().message, "checkpoint-000020.chimera");
  CHECK(none.weights() == before);
}

TEST_CASE("resuming says which settings and data are others") {
  TemporaryFolder folder;
  TestRun(quick(), folder.path).run();
  TrainerSettings s = quick();
  s.steps = 60, s.batch = 2;
  TestRun run(s, folder.path, 1, bigram::text(10'000));
  const auto resumed = run.trainer->resume();
  REQUIRE(resumed);
  CHECK(resumed->note == "steps 40 is now 60, batch 4 is now 2; the training data had 18000 tokens and now has 9000");
  CHECK(run.run() == Ended::finished);
  CHECK(run.trainer->progress().step == 60);
}

TEST_CASE("resuming says that the data is other data of the same size") {
  TemporaryFolder folder;
  std::string text = bigram::text(20'000);
  TestRun(quick(), folder.path, 1, text).run();
  TestRun same(quick(), folder.path, 1, text);
  CHECK(same.trainer->resume()->note == "");
  text[9'000] ^= 1;
  TestRun other(quick(), folder.path, 1, text);
  CHECK(other.trainer->resume()->note == "the training data is not the same: as many tokens, and others");

  // A checkpoint of a version that did not know says nothing.
  Progress old = same.trainer->progress();
  old.data_checksum = 0, old.step = 41;
  const std::size_t n = bigram::model().arena_floats;
  std::vector<float> zeros(n);
  const std::array state{Section::of("weights", zeros.data(), n), Section::of("moment1", zeros.data(), n),
                         Section::of("moment2", zeros.data(), n)};
  REQUIRE(save_checkpoint(checkpoint_path(folder.path, 41), bigram::model(), old, quick(), state).ok());
  CHECK(other.trainer->resume()->note == "");
}

TEST_CASE("a full disk ends the run with its reason; the last checkpoint stays") {
  TemporaryFolder folder;
  TrainerSettings s = quick();
  s.checkpoint_interval = 10;
  TestRun run(s, folder.path);
  std::signal(SIGXFSZ, SIG_IGN);
  struct Filler : Listener {
    rlimit before;
    void on_checkpoint(const std::string& path) override {
      Listener::on_checkpoint(path);
      const rlimit small{1 << 16, before.rlim_max};
      ::setrlimit(RLIMIT_FSIZE, &small);
    }
  } host;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &host.before) == 0);
  const auto ended = run.trainer->run(host);
  ::setrlimit(RLIMIT_FSIZE, &host.before);
  REQUIRE_FALSE(ended.ok());
  check_mentions(ended.error().message, "cannot write " + (folder / "checkpoint-000020.chimera"));
  CHECK(*find_checkpoint(folder.path) == folder / "checkpoint-000010.chimera");
  CHECK(list_folder(folder.path)->size() == 1);
}

TEST_CASE("measuring a step changes nothing") {
  TestRun a(quick()), b(quick());
  CHECK(*a.trainer->measure_step() > 0);
  a.run();
  b.run();
  CHECK(a.weights() == b.weights());
}

TEST_CASE("a run's length can be set late") {
  TestRun run(quick());
  REQUIRE(run.trainer->set_steps(12).ok());
  CHECK_FALSE(run.trainer->set_steps(0).ok());
  run.run();
  CHECK(run.host.steps.size() == 12);
  CHECK(run.host.steps.back().learning_rate == doctest::Approx(0.005));
}

TEST_CASE("the host may change the run's length from within it, longer or shorter") {
  for (std::int64_t steps : {7, 60}) {
    TemporaryFolder folder;
    TestRun run(quick(), folder.path);
    struct Clock : Listener {
      Trainer* trainer;
      std::int64_t steps;
      void on_step(const StepReport& r) override {
        Listener::on_step(r);
        if (r.step == 7 || r.step == 40) REQUIRE(trainer->set_steps(steps).ok());
      }
    } host;
    host.trainer = run.trainer.get(), host.steps = steps;
    REQUIRE(run.trainer->run(host).ok());
    CHECK(run.trainer->progress().step == steps);
    CHECK(host.validations.back().step == steps);
    CHECK(*list_checkpoints(folder.path) == std::vector<std::int64_t>{steps});
  }
}

TEST_CASE("without a validation split there is no validation") {
  TestRun run(quick());
  auto made = Trainer::create(*run.q, bigram::model(), split(*run.corpus, 0), quick());
  REQUIRE(made);
  CHECK_FALSE(made->validates());
  REQUIRE(made->run(run.host).ok());
  CHECK(run.host.validations.empty());
}

TEST_CASE("a validation split in which nothing counts ends no run early") {
  TestRun run(quick(), "", 1, bigram::text(2'000) + "\n<|endoftext|>\n<|endoftext|>\n");
  const std::int64_t n = run.corpus->tokens();
  const Split data{{&*run.corpus, 0, n - 2}, {&*run.corpus, n - 2, n}};
  auto made = Trainer::create(*run.q, bigram::model(), data, quick());
  REQUIRE(made);
  CHECK(made->validate()->targets == 0);
  const auto ended = made->run(run.host);
  REQUIRE(ended);
  CHECK(*ended == Ended::finished);
  CHECK(run.host.validations.size() == 4);
  CHECK(run.host.validations.back().targets == 0);
  CHECK(made->progress().validation_step == 0);  // there is no validation loss
}

TEST_CASE("a step in which no target counts is skipped, and said to be one") {
  std::string text;
  for (int i = 0; i < 200; ++i) text += "<|endoftext|>\n";
  TrainerSettings s = quick();
  s.skip_limit = 5;
  TestRun run(s, "", 1, text);
  const auto before = run.weights();
  check_mentions(run.error(), "the last because no target counts");
  CHECK(run.host.steps.front().skip == Skip::no_targets);
  CHECK(std::isnan(run.host.steps.front().loss));
  CHECK(run.weights() == before);
}

TEST_CASE("a run that cannot be: one sentence") {
  TrainerSettings s = quick();
  const std::string text = bigram::text(1'000);
  s.context = 600;
  check_mentions(error_of(s, text), "at most the model's 512 tokens, found 600");
  s = quick();
  check_mentions(error_of(s, bigram::text(35)), "needs at least 33 tokens to train on, found 31");
  TemporaryFolder folder;
  check_mentions(error_of(s, text, write_file(folder / "f", "x")), "it is a file");
  s.steps = 0;
  check_mentions(error_of(s, text), "steps must be at least 1, found 0");
  s = quick(), s.batch = -1;
  check_mentions(error_of(s, text), "batch must be");
  s = quick(), s.batch = 1 << 24, s.context = 1 << 24;
  check_mentions(error_of(s, text), "batch * context must be at most");
  s = quick(), s.learning_rate = std::nan("");
  check_mentions(error_of(s, text), "learning_rate must be positive, found nan");
  s = quick(), s.adamw.beta2 = 1;
  check_mentions(error_of(s, text), "beta2");
  s = quick(), s.warmup = -2;
  check_mentions(error_of(s, text), "warmup");

  TemporaryFolder data;
  auto corpus = Corpus::open(write_file(data / "t", text), 1'000);
  auto q = Cpu::create(1);
  check_mentions(Trainer::create(*q, bigram::model(), split(*corpus), quick()).error().message,
                 "a vocabulary of 1000, the model has 257");
}
