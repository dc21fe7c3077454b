// Trains a small model on tokens that the program holds in memory: here a machine that walks between rooms, and reports
// each of them. No file is read or written.
#include <chimera/config/pattern.hpp>
#include <chimera/core/device.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/train/trainer.hpp>

#include <cstdint>
#include <cstdio>
#include <vector>

using namespace chimera;

namespace {

constexpr Config walker{.vocab = 16,
                        .width = 32,
                        .context = 32,
                        .layers = pattern("M A", 2),
                        .attention = {.heads = 2},
                        .mamba2 = {.head_dim = 16, .state = 16},
                        .ffn = {.hidden = 64}};

/// Room after room, each next to the one before it on a ring of sixteen; the machine turns around now and then.
std::vector<std::int32_t> walk(int rooms) {
  std::vector<std::int32_t> tokens;
  Random random{7, 0};
  for (std::int32_t room = 0, step = 1; rooms > 0; --rooms) {
    tokens.push_back(room);
    if (random.below(8) == 0) step = -step;
    room = (room + step + walker.vocab) % walker.vocab;
  }
  return tokens;
}

struct Printer : TrainingHost {
  void on_validation(const ValidationReport& r) override {
    std::printf("after %lld steps: %.3f nats a token\n", static_cast<long long>(r.step), r.loss);
  }
};

int fail(const Error& error) { return std::fprintf(stderr, "train_from_memory: %s\n", error.message.c_str()), 1; }

}  // namespace

int main() {
  const std::vector<std::int32_t> tokens = walk(20'000);
  const auto corpus = Corpus::of(tokens, walker.vocab);
  if (!corpus) return fail(corpus.error());
  const auto cpu = Cpu::create();
  if (!cpu) return fail(cpu.error());
  const TrainerSettings settings{
      .steps = 150, .batch = 8, .context = 32, .learning_rate = 4e-3, .validation_interval = 50};
  auto trainer = Trainer::create(*cpu, any_model<walker>("walker"), split(*corpus), settings);
  if (!trainer) return fail(trainer.error());
  Printer host;
  if (const auto ended = trainer->run(host); !ended) return fail(ended.error());
  return trainer->progress().validation_loss < 0.6 ? 0 : 1;  // a coin of 1 to 8 has 0.377 nats
}
