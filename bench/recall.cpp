// Which mixer learns to recall what, and with how much state: models of two layers of one kind and of equal size, taught
//   mqar       to give the value of each key asked for, of pairs read before (multi-query associative recall: Zoology,
//              2312.04927, whose generator's gaps and difficulties these are: 4 pairs in 64 tokens, 8 in 128, 16 in 256,
//              64 in 512)
//   copy       to say a text of 16, 64 or 256 tokens again (Repeat After Me, 2402.01032)
//   selective  to say 16 tokens in their order that lay among 32, 128 or 512 of noise (Mamba, 2312.00752)
// Every row is new. A run ends when 99.5 % of the answers to rows that nobody learned from are right, or with its steps.
// usage: recall [--json] [--svg FILE] [--task NAME] [--only WORD] [--hardest N] [--seeds N] [--steps N] [--rate R]
#include "figure.hpp"

#include <chimera/training.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace chimera;

constexpr int vocab = 512;
constexpr std::int64_t answer_tokens = 16;  // of `selective`

/// A model of one word, whose feed-forward layers take what its mixers leave of 132,000 weights.
constexpr Config of_word(Layers layers) {
  Config c{.vocab = vocab, .width = 64, .context = 576, .layers = layers};
  c.attention = {.heads = 2};
  c.mamba2 = {.head_dim = 32, .state = 32};
  c.rg_lru = {.heads = 2};
  c.gated_deltanet = {.key_heads = 2, .value_heads = 2, .key_dim = 32};
  c.mlstm = {.heads = 2};
  c.titans = {.heads = 2, .persistent = 8, .segment = 32};
  for (c.ffn.hidden = 8; parameter_count(c) < 132'000; c.ffn.hidden += 8) {
  }
  return c;
}
constexpr Config word_a = of_word(pattern("A", 2)), word_m = of_word(pattern("M", 2)),
                 word_r = of_word(pattern("R", 2)), word_gd = of_word(pattern("GD", 2)),
                 word_xm = of_word(pattern("XM", 2)), word_tm = of_word(pattern("TM", 2)),
                 word_sk = of_word(pattern("SK", 2));

/// A difficulty of a task: rows of `length` tokens, in which `count` things are to be remembered.
struct Task {
  enum class Kind : std::uint8_t { mqar, copy, selective };
  Kind kind;
  std::int64_t length, count;
};
constexpr std::string_view task_names[] = {"mqar", "copy", "selective"};
constexpr Task tasks[] = {
    {Task::Kind::mqar, 64, 4},        {Task::Kind::mqar, 128, 8},      {Task::Kind::mqar, 256, 16},
    {Task::Kind::mqar, 512, 64},      {Task::Kind::copy, 32, 16},      {Task::Kind::copy, 128, 64},
    {Task::Kind::copy, 512, 256},     {Task::Kind::selective, 48, 16}, {Task::Kind::selective, 144, 16},
    {Task::Kind::selective, 528, 16},
};
std::string name_of(const Task& t) {
  return std::string(task_names[static_cast<int>(t.kind)]) + " " + std::to_string(t.count) + " in " +
         std::to_string(t.length);
}

/// n different numbers below `end`, each drawn like the first unless it is taken.
template <class Draw>
std::vector<std::int32_t> different(std::int64_t n, std::int64_t end, Draw draw) {
  std::vector<std::int32_t> found;
  std::vector<bool> taken(static_cast<std::size_t>(end));
  while (static_cast<std::int64_t>(found.size()) < n)
    if (const auto i = static_cast<std::size_t>(draw()); !taken[i])
      taken[i] = true, found.push_back(static_cast<std::int32_t>(i));
  return found;
}

/// Rows of a task, each a function of the seed and of its number.
struct Rows : BatchSource {
  Task task;
  std::uint64_t seed;

  Rows(const Task& t, std::uint64_t s) : task(t), seed(s) {}
  Result<void> validate(std::int64_t, std::int64_t) const override { return {}; }
  std::uint64_t rows(std::int64_t) const override { return std::uint64_t{1} << 40; }
  std::int64_t tokens() const override { return 0; }

  Result<void> fill(std::uint64_t first, BatchBuffer& batch) override {
    for (std::int64_t number = 0; number < batch.rows(); ++number)
      write(batch.row(number), {seed, first + static_cast<std::uint64_t>(number)});
    return {};
  }

 private:
  void write(const BatchBuffer::Row& row, Random random) const {
    std::fill(row.targets.begin(), row.targets.end(), -1);
    std::fill(row.starts.begin(), row.starts.end(), 0);
    const auto below = [&](std::int64_t end) {
      return static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(end)));
    };
    const auto n = static_cast<std::size_t>(task.count);
    switch (task.kind) {
      case Task::Kind::mqar: {  // pairs, then each key once more, soon or late, among tokens that mean nothing
        constexpr std::int32_t half = vocab / 2;
        const std::int64_t room = (task.length - 2 * task.count) / 2;
        const auto keys = different(task.count, half, [&] { return below(half); });
        const auto values = different(task.count, half, [&] { return below(half); });
        const auto gaps = different(task.count, room, [&] {  // P(gap <= x) = (x / room)^0.01
          const double gap = static_cast<double>(room) * std::pow(random.uniform(), 1 / 0.01);
          return std::min(room - 1, static_cast<std::int64_t>(gap));
        });
        for (std::int32_t& t : row.tokens) t = below(vocab);
        for (std::size_t i = 0; i < n; ++i) {
          row.tokens[2 * i] = keys[i], row.tokens[2 * i + 1] = half + values[i];
          const auto asked = 2 * n + 2 * static_cast<std::size_t>(gaps[i]);
          row.tokens[asked] = keys[i], row.targets[asked] = half + values[i];
        }
        return;
      }
      case Task::Kind::copy:  // the text, a mark in place of its first token, and the others of it
        for (std::size_t i = 0; i < n; ++i) row.tokens[i] = 1 + below(26);
        for (std::size_t i = 0; i < n; ++i) {
          row.tokens[n + i] = i == 0 ? 0 : row.tokens[i - 1];
          row.targets[n + i] = row.tokens[i];
        }
        return;
      case Task::Kind::selective: {  // tokens and noise, and a mark for each answer
        const std::size_t noisy = row.tokens.size() - n;
        auto places = different(task.count, static_cast<std::int64_t>(noisy), [&] { return random.below(noisy); });
        std::sort(places.begin(), places.end());
        for (std::size_t i = 0; i < noisy; ++i) row.tokens[i] = 1;
        for (std::size_t i = 0; i < n; ++i) {
          row.tokens[noisy + i] = 0;
          row.targets[noisy + i] = row.tokens[static_cast<std::size_t>(places[i])] = 2 + below(answer_tokens);
        }
        return;
      }
    }
  }
};

struct Run {
  double accuracy = 0;     // of rows that it did not learn from
  std::int64_t steps = 0;  // until it was right, or all
};

/// Looks how many answers are right, now and then, and ends the run when they are.
struct Examiner : TrainingHost {
  const Cpu& q;
  const AnyModel& model;
  const Task& task;
  Trainer* trainer = nullptr;
  Run run{};

  Examiner(const Cpu& cpu, const AnyModel& tested, const Task& t) : q(cpu), model(tested), task(t) {}

  void on_step(const StepReport& report) override {
    run.steps = report.step;
    if (report.step % 100 == 0) run.accuracy = accuracy();
  }
  bool should_stop() override { return run.accuracy >= 0.995; }

  double accuracy() {
    constexpr std::int64_t rows = 16, rounds = 16;
    Rows unseen(task, 1'000'003);
    auto batch = BatchBuffer::create(rows, task.length);
    auto memory = Buffer::of_bytes(model.loss_bytes(rows, task.length));
    auto logits = Buffer::create(static_cast<std::size_t>(rows * task.length * vocab));
    if (!batch || !memory || !logits) return 0;
    double right = 0, all = 0;
    for (std::uint64_t i = 0; i < rounds; ++i) {
      (void)unseen.fill(i * rows, *batch);
      const TokenBatch seen = batch->batch(0, rows);
      model.forward(q, trainer->weights(), seen, memory->bytes(), logits->data());
      for (std::int64_t t = 0; t < seen.tokens(); ++t) {
        if (seen.targets[t] < 0) continue;
        const float* const x = logits->data() + t * vocab;
        ++all, right += std::max_element(x, x + vocab) - x == seen.targets[t];
      }
    }
    return right / all;
  }
};

struct Options {
  std::int64_t steps = 3'000, seeds = 3, hardest = 4;
  double rate = 3e-3;
  std::string task, only, svg;
};

Result<Run> learn(const Cpu& q, const AnyModel& model, const Task& task, const Options& o, std::uint64_t seed) {
  const TrainerSettings settings{.steps = o.steps,
                                 .batch = std::clamp<std::int64_t>(8'192 / task.length, 16, 64),
                                 .context = task.length,
                                 .seed = seed,
                                 .learning_rate = o.rate,
                                 .validation_interval = 0};
  auto optimizer = AdamW::create(q, model.tensors, model.arena_floats, settings.adamw);
  if (!optimizer) return optimizer.error();
  auto learner = Gradient::create(q, model, std::make_unique<AdamW>(std::move(*optimizer)), settings.clip);
  if (!learner) return learner.error();
  TrainingParts parts;
  parts.train = std::make_unique<Rows>(task, seed);
  parts.learner = std::make_unique<Gradient>(std::move(*learner));
  auto trainer = Trainer::create(q, model, std::move(parts), settings);
  if (!trainer) return trainer.error();
  Examiner host(q, model, task);
  host.trainer = &*trainer;
  if (const auto ended = trainer->run(host); !ended) return ended.error();
  host.run.accuracy = host.accuracy();
  return host.run;
}

/// A point of the plot: a model on a task, over all seeds.
struct Point {
  std::string_view word;
  std::size_t task;
  double state, mean, low, high;
};

/// A panel for each task: bytes of state against the share of right answers.
void write_svg(const std::string& path, const std::vector<Point>& points) {
  std::ofstream file(path);
  constexpr int width = 260, height = 200, columns = 4;
  std::vector<std::size_t> shown;
  for (const Point& p : points)
    if (shown.empty() || shown.back() != p.task) shown.push_back(p.task);
  const int rows = (static_cast<int>(shown.size()) + columns - 1) / columns;
  file << "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " << columns * width << " " << rows * height
       << "\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n";
  for (std::size_t panel = 0; panel < shown.size(); ++panel) {
    const int left = static_cast<int>(panel) % columns * width + 34,
              top = static_cast<int>(panel) / columns * height + 24;
    const int wide = width - 50, high = height - 62;
    file << "<text x=\"" << left << "\" y=\"" << top - 8 << "\" font-weight=\"bold\">" << name_of(tasks[shown[panel]])
         << "</text>\n<rect x=\"" << left << "\" y=\"" << top << "\" width=\"" << wide << "\" height=\"" << high
         << "\" fill=\"none\" stroke=\"#999\"/>\n";
    for (const int percent : {0, 50, 100})
      file << "<text x=\"" << left - 4 << "\" y=\"" << top + high - high * percent / 100 + 4
           << "\" text-anchor=\"end\">" << percent << "</text>\n";
    const auto x = [&](double bytes) { return left + wide * (std::log2(bytes) - 8) / 12; };  // 256 B to 1 MiB
    const auto y = [&](double share) { return top + high * (1 - share); };
    for (const auto& [bytes, text] : {std::pair{1024., "1 KiB"}, {32768., "32 KiB"}, {1048576., "1 MiB"}})
      file << "<text x=\"" << x(bytes) << "\" y=\"" << top + high + 14 << "\" text-anchor=\"middle\">" << text
           << "</text>\n";
    for (const Point& p : points)
      if (p.task == shown[panel])
        file << "<line x1=\"" << x(p.state) << "\" x2=\"" << x(p.state) << "\" y1=\"" << y(p.low) << "\" y2=\""
             << y(p.high) << "\" stroke=\"#48c\"/><circle cx=\"" << x(p.state) << "\" cy=\"" << y(p.mean)
             << "\" r=\"3\" fill=\"#26a\"/><text x=\"" << x(p.state) + 5 << "\" y=\"" << y(p.mean) + 4 << "\">"
             << p.word << "</text>\n";
  }
  file << "<text x=\"4\" y=\"" << rows * height - 6
       << "\">share of right answers (%), mean and range of seeds, by bytes of state at the row's "
          "length</text>\n</svg>\n";
}

int fail(const Error& error) { return std::fprintf(stderr, "recall: %s\n", error.message.c_str()), 1; }

}  // namespace

int main(int argc, char** argv) {
  const bool json = take_flag(argc, argv, "--json");
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view flag = argv[i];
    const char* const value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (value && flag == "--svg")
      o.svg = value;
    else if (value && flag == "--task")
      o.task = value;
    else if (value && flag == "--only")
      o.only = value;
    else if (value && flag == "--hardest")
      o.hardest = std::atoll(value);
    else if (value && flag == "--seeds")
      o.seeds = std::max(1LL, std::atoll(value));
    else if (value && flag == "--steps")
      o.steps = std::max(1LL, std::atoll(value));
    else if (value && flag == "--rate")
      o.rate = std::atof(value);
    else
      return std::fprintf(stderr,
                          "usage: recall [--json] [--svg FILE] [--task mqar|copy|selective] [--only WORD] "
                          "[--hardest N] [--seeds N] [--steps N] [--rate R]\n"),
             2;
  }
  const auto cpu = Cpu::create();
  if (!cpu) return fail(cpu.error());
  const AnyModel models[] = {any_model<word_a>("A"),   any_model<word_m>("M"),   any_model<word_r>("R"),
                             any_model<word_gd>("GD"), any_model<word_xm>("XM"), any_model<word_tm>("TM"),
                             any_model<word_sk>("SK")};
  std::vector<Point> points;
  std::int64_t level = 0;
  for (std::size_t t = 0; t < std::size(tasks); ++t) {
    const Task& task = tasks[t];
    level = t > 0 && tasks[t - 1].kind == task.kind ? level + 1 : 1;
    if (level > o.hardest || (!o.task.empty() && o.task != task_names[static_cast<int>(task.kind)])) continue;
    for (const AnyModel& model : models) {
      if (!o.only.empty() && o.only != model.name) continue;
      Point p{model.name, t, static_cast<double>(model.state_bytes(KvFormat::f32, task.length)), 0, 1, 0};
      std::string steps;
      for (std::int64_t seed = 1; seed <= o.seeds; ++seed) {
        const auto run = learn(*cpu, model, task, o, static_cast<std::uint64_t>(seed));
        if (!run) return fail(run.error());
        p.mean += run->accuracy / static_cast<double>(o.seeds);
        p.low = std::min(p.low, run->accuracy), p.high = std::max(p.high, run->accuracy);
        steps += (steps.empty() ? "" : " ") + std::to_string(run->steps);
      }
      points.push_back(p);
      if (json)
        write_json({std::string(model.name) + ", " + name_of(task), p.mean, "of answers"});
      else
        std::printf("%-18s %-3s %6.1f %% (%.1f - %.1f), %8.0f bytes of state, %lld weights, steps %s\n",
                    name_of(task).c_str(), model.name.data(), 100 * p.mean, 100 * p.low, 100 * p.high, p.state,
                    static_cast<long long>(model.parameters), steps.c_str());
      std::fflush(stdout);
    }
  }
  if (!o.svg.empty()) write_svg(o.svg, points);
  return 0;
}
