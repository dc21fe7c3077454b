// The smallest language model: logits of the next byte are a row of a table plus a bias. It stands in for a real one
// where the trainer is tested, learns for real, and can be told to go wrong at a step.
#pragma once

#include <chimera/core/random.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace bigram {

using namespace chimera;

inline constexpr Config config{.vocab = 257, .width = 1, .context = 512};
inline constexpr Config other_config{.vocab = 257, .width = 2, .context = 512};
inline constexpr std::int64_t vocab = config.vocab;

/// What goes wrong, and at which micro-batch.
struct Faults {
  std::int64_t nan_loss = -1, infinite_gradient = -1, spike = -1, forever_from = -1;
  bool noise = false;  // the gradient depends on the step's seed and number, as with dropout
  std::int64_t calls = 0;
  Objective trained, validated;  // the last it was told
};
inline Faults faults;

inline const std::array<NamedTensor, 2> tensors = [] {
  std::array<NamedTensor, 2> t{};
  std::strcpy(t[0].text.data(), "bigram.weight");
  std::strcpy(t[1].text.data(), "bigram.bias");
  t[0].rows = t[0].cols = t[1].cols = vocab, t[1].rows = 1;
  t[0].role = Role::matrix;
  t[1].offset = aligned_floats(static_cast<std::size_t>(vocab * vocab));
  return t;
}();

/// Nats of the batch's targets, or what an objective makes of them; adds `scale` times its gradient.
inline Loss run(const float* weights, const TokenBatch& batch, float* gradient, double scale,
                const Objective& objective = {}) {
  const float* bias = weights + tensors[1].offset;
  std::vector<float> log_probs(static_cast<std::size_t>(batch.tokens())), coefficients(log_probs.size(), 1.f);
  const auto each = [&](auto&& f) {  // f(token, probabilities, their sum)
    std::vector<double> p(static_cast<std::size_t>(vocab));
    for (std::int64_t t = 0; t < batch.tokens(); ++t) {
      if (batch.targets[t] < 0) continue;
      const float* row = weights + batch.inputs[t] * vocab;
      double sum = 0;
      for (std::int64_t v = 0; v < vocab; ++v)
        sum += p[static_cast<std::size_t>(v)] = std::exp(static_cast<double>(row[v]) + static_cast<double>(bias[v]));
      f(t, p, sum);
    }
  };
  Loss loss{.count = objective.counted(batch)};
  each([&](std::int64_t t, const std::vector<double>& p, double sum) {
    const double log_prob = std::log(p[static_cast<std::size_t>(batch.targets[t])] / sum);
    loss.sum -= log_prob, log_probs[static_cast<std::size_t>(t)] = static_cast<float>(log_prob);
  });
  if (objective.weigh) loss.sum = objective.weigh(objective.self, batch, log_probs.data(), coefficients.data());
  if (!gradient) return loss;
  each([&](std::int64_t t, const std::vector<double>& p, double sum) {
    for (std::int64_t v = 0; v < vocab; ++v) {
      const float d = static_cast<float>(scale * static_cast<double>(coefficients[static_cast<std::size_t>(t)]) *
                                         (p[static_cast<std::size_t>(v)] / sum - (v == batch.targets[t])));
      gradient[batch.inputs[t] * vocab + v] += d;
      gradient[tensors[1].offset + static_cast<std::size_t>(v)] += d;
    }
  });
  return loss;
}

inline AnyModel model() {
  AnyModel m;
  m.name = "bigram";
  m.config = &config;
  m.tensors = tensors;
  m.parameters = vocab * vocab + vocab;
  m.arena_floats = tensors[1].offset + aligned_floats(static_cast<std::size_t>(vocab));
  m.of_batches.initialize = [](std::span<const NamedTensor>, float* weights, std::uint64_t seed) {
    Random r{seed, 1};
    for (std::int64_t i = 0; i < vocab * vocab; ++i) weights[i] = 0.02f * r.normal();
  };
  m.flops = [](std::int64_t) { return 2 * static_cast<double>(vocab * vocab + vocab); };
  m.of_batches.loss_bytes =
      m.of_batches.train_bytes = [](std::int64_t, std::int64_t, const BaseWeights*) { return std::size_t{1}; };
  m.of_batches.loss = [](const Cpu&, ModelWeights weights, const TokenBatch& batch, const Objective& objective,
                         std::byte*, double* sum) {
    faults.validated = objective;
    *sum += run(weights.arena, batch, nullptr, 0, objective).sum;
  };
  m.of_batches.train = [](const Cpu&, ModelWeights weights, const TokenBatch& batch, const TrainingStep& step,
                          std::byte*, float* gradient, double* sum) {
    const std::int64_t n = static_cast<std::int64_t>(step.step);
    ++faults.calls;
    faults.trained = step.objective;
    double scale = static_cast<double>(step.scale);
    if (faults.noise) scale *= 1 + static_cast<double>(unit(philox(step.seed, 5, step.step)[0]));
    Loss loss = run(weights.arena, batch, gradient, scale, step.objective);
    if (n == faults.nan_loss || (faults.forever_from >= 0 && n >= faults.forever_from))
      loss.sum = std::numeric_limits<double>::quiet_NaN();
    if (n == faults.infinite_gradient) gradient[100] = std::numeric_limits<float>::infinity();
    if (n == faults.spike) loss.sum *= 10;
    *sum += loss.sum;
  };
  return m;
}

/// Text in which each byte says much about the next.
inline std::string text(std::size_t bytes) {
  const std::string words[] = {"the ", "model ", "learns ", "from ", "text ", "and ", "state ", "space.\n"};
  Random r{11, 3};
  std::string out;
  while (out.size() < bytes) out += words[r.below(8)];
  return out.substr(0, bytes);
}

/// Nats per byte that a table of pairs can reach on a text.
inline double entropy(const std::string& text) {
  std::vector<double> pairs(256 * 256), singles(256);
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    const std::size_t a = static_cast<unsigned char>(text[i]), b = static_cast<unsigned char>(text[i + 1]);
    ++pairs[a * 256 + b], ++singles[a];
  }
  double sum = 0;
  for (std::size_t i = 0; i < pairs.size(); ++i)
    if (pairs[i] > 0) sum -= pairs[i] * std::log(pairs[i] / singles[i / 256]);
  return sum / static_cast<double>(text.size() - 1);
}

}  // namespace bigram
