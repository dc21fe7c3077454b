#include "numeric.hpp"

#include <chimera/kernels/f32/cross_entropy.hpp>

#include <numeric>

using namespace chimera;

namespace {

double reference(CrossEntropy s, std::int64_t vocab, const std::vector<std::int32_t>& targets, const Doubles& logits) {
  double total = 0;
  for (std::size_t r = 0; r < targets.size(); ++r) {
    if (targets[r] < 0) continue;
    const double* x = logits.data() + r * static_cast<std::size_t>(vocab);
    const double top = *std::max_element(x, x + vocab);
    double sum = 0, mean = 0;
    for (std::int64_t i = 0; i < vocab; ++i) sum += std::exp(x[i] - top), mean += x[i] / static_cast<double>(vocab);
    const double lse = top + std::log(sum), e = static_cast<double>(s.smoothing);
    total += (1 - e) * (lse - x[targets[r]]) + e * (lse - mean) + static_cast<double>(s.z) * lse * lse;
  }
  return total;
}

}  // namespace

TEST_CASE("the loss and its gradient at odd vocabularies, with rows that do not count") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t vocab : {1, 3, 17, 288})
      for (const CrossEntropy s :
           {CrossEntropy{}, CrossEntropy{0.1f, 0.f}, CrossEntropy{0.f, 1e-2f}, CrossEntropy{0.2f, 1e-3f}}) {
        CAPTURE(vocab);
        CAPTURE(s.smoothing);
        CAPTURE(s.z);
        const std::int64_t rows = 29;
        Floats logits = noise(rows * vocab, 1);
        for (float& x : logits) x *= 6.f;
        std::vector<std::int32_t> targets;
        for (std::int64_t r = 0; r < rows; ++r)
          targets.push_back(r % 5 == 2 ? -1 : static_cast<std::int32_t>(r * 31 % vocab));
        std::vector<double> losses(targets.size(), 1e9);
        Floats same = logits, gradient = logits;
        double sum = 0;
        cross_entropy(q, s, rows, vocab, targets.data(), 0.5f, false, same.data(), losses.data());
        add_losses(q, rows, losses.data(), &sum);
        CHECK(same == logits);
        CHECK(sum == std::accumulate(losses.begin(), losses.end(), 0.0));
        CHECK(sum == doctest::Approx(reference(s, vocab, targets, doubles(logits))).epsilon(1e-6));
        cross_entropy(q, s, rows, vocab, targets.data(), 0.5f, true, gradient.data(), losses.data());
        check_gradient([&](const Doubles& x) { return 0.5 * reference(s, vocab, targets, x); }, logits, gradient);
        for (std::size_t r = 0; r < targets.size(); ++r)
          for (std::size_t i = 0; targets[r] < 0 && i < static_cast<std::size_t>(vocab); ++i)
            CHECK(gradient[r * static_cast<std::size_t>(vocab) + i] == 0.f);
      }
  });
}

TEST_CASE("log-probabilities of targets are the losses with the other sign") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t rows = 5, vocab = 19;
    Floats logits = noise(rows * vocab, 1), log_probs = filled(rows, unwritten);
    const Floats before = logits;
    const std::vector<std::int32_t> targets{3, 0, 18, -1, 7};
    std::vector<double> losses(5);
    target_log_probs(q, rows, vocab, targets.data(), logits.data(), log_probs.data());
    CHECK(logits == before);
    cross_entropy(q, {}, rows, vocab, targets.data(), 1.f, false, logits.data(), losses.data());
    for (std::size_t r = 0; r < losses.size(); ++r) CHECK(log_probs[r] == static_cast<float>(-losses[r]));
  });
}

TEST_CASE("a row's coefficient multiplies its gradient and not its loss") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t rows = 5, vocab = 19;
    const Floats logits = noise(rows * vocab, 1), coefficients{1.f, -2.f, 0.f, 0.5f, 3.f};
    const std::vector<std::int32_t> targets{3, 0, 18, -1, 7};
    std::vector<double> losses(5), same(5);
    Floats plain = logits, weighted = logits;
    cross_entropy(q, {}, rows, vocab, targets.data(), 0.5f, true, plain.data(), losses.data());
    cross_entropy(q, {}, rows, vocab, targets.data(), 0.5f, true, weighted.data(), same.data(), coefficients.data());
    CHECK(losses == same);
    for (std::size_t i = 0; i < plain.size(); ++i)
      CHECK(weighted[i] == doctest::Approx(plain[i] * coefficients[i / vocab]).epsilon(1e-5));
  });
}

TEST_CASE("huge logits neither overflow nor lose the loss") {
  on_every_cpu([](const Cpu& q) {
    Floats logits{1e8f, -1e8f, 0.f, 5.f, 1e8f, 80.f, 90.f, 100.f, -100.f, 3.f};
    const std::vector<std::int32_t> targets{0, 2};
    double losses[2];
    cross_entropy(q, {}, 2, 5, targets.data(), 1.f, true, logits.data(), losses);
    CHECK(losses[0] == doctest::Approx(std::log(2.0)));
    CHECK(losses[1] == doctest::Approx(std::log1p(std::exp(-10.0) + std::exp(-20.0))));
    for (const float g : logits) CHECK(std::isfinite(g));
  });
}
