#include <doctest/doctest.h>

#include <chimera/generate/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

using namespace chimera;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr TokenSamplerSettings everything{.temperature = 1.f, .top_k = 0, .top_p = 1.f, .min_p = 0.f};

std::vector<std::int32_t> draws(const std::vector<float>& logits, const TokenSamplerSettings& settings, int count) {
  auto sampler = TokenSampler::create(static_cast<std::int64_t>(logits.size()), settings);
  REQUIRE(sampler);
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(sampler->draw(logits));
  return tokens;
}

/// The distribution as the filters' definitions say it, each on whole vectors of probabilities.
std::vector<double> distribution(const std::vector<float>& logits, const TokenSamplerSettings& s) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<std::size_t>(s.top_k)));
  const auto softmax = [&](double temperature) {
    std::vector<double> p;
    for (std::size_t i : order) p.push_back(std::exp(static_cast<double>(logits[i] - logits[order[0]]) / temperature));
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
  };
  std::vector<double> p = softmax(1);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < p.size() && sum < static_cast<double>(s.top_p)) sum += p[kept++];
  order.resize(kept);
  p = softmax(1);
  while (p[order.size() - 1] < static_cast<double>(s.min_p) * p[0]) order.pop_back();
  p = softmax(static_cast<double>(s.temperature));
  std::vector<double> all(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) all[order[i]] = p[i];
  return all;
}

void check_frequencies(const std::vector<float>& logits, const TokenSamplerSettings& settings) {
  constexpr int count = 20'000;
  std::vector<double> expected = distribution(logits, settings), found(logits.size());
  for (std::int32_t token : draws(logits, settings, count)) found[static_cast<std::size_t>(token)] += 1. / count;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    CAPTURE(i);
    // Five standard deviations of a binomial count.
    CHECK(std::abs(found[i] - expected[i]) <= 5 * std::sqrt(expected[i] * (1 - expected[i]) / count));
  }
}

}  // namespace

TEST_CASE("each filter, and all of them, give the distribution of their definition") {
  const std::vector<float> logits{0.3f, 2.f, -1.f, 1.9f, -4.f, 0.9f, 2.f, -0.2f, 1.1f};
  check_frequencies(logits, everything);
  for (float temperature : {0.1f, 0.7f, 3.f}) {
    TokenSamplerSettings s = everything;
    s.temperature = temperature;
    check_frequencies(logits, s);
    s.top_k = 4;
    check_frequencies(logits, s);
    s.top_k = 0, s.top_p = 0.6f;
    check_frequencies(logits, s);
    s.top_p = 1.f, s.min_p = 0.3f;
    check_frequencies(logits, s);
    s.top_k = 7, s.top_p = 0.9f;
    check_frequencies(logits, s);
  }
  check_frequencies(logits, {});
}

TEST_CASE("a temperature of 0, a top-k of 1, a tiny top-p and a min-p of 1 take the likeliest token") {
  const std::vector<float> logits{1.f, 3.f, 2.9f, 3.f - 1e-6f};
  TokenSamplerSettings s = everything;
  s.temperature = 0.f;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
  s.temperature = -1.f;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
  s = everything, s.top_k = 1;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
  s = everything, s.top_p = 1e-9f;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
  s = everything, s.min_p = 1.f;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
  s = everything, s.temperature = 1e-30f;
  CHECK(draws(logits, s, 20) == std::vector<std::int32_t>(20, 1));
}

TEST_CASE("equal logits: the first is the likeliest") {
  TokenSamplerSettings s = everything;
  s.temperature = 0.f;
  CHECK(draws(std::vector<float>(7, 0.5f), s, 3) == std::vector<std::int32_t>(3, 0));
  s = everything, s.top_k = 2;
  for (std::int32_t token : draws(std::vector<float>(7, 0.5f), s, 200)) CHECK(token < 2);
}

TEST_CASE("a seed names one sequence of tokens") {
  const std::vector<float> logits(50, 0.f);
  TokenSamplerSettings a = everything, b = everything;
  b.seed = 2;
  CHECK(draws(logits, a, 100) == draws(logits, a, 100));
  CHECK(draws(logits, a, 100) != draws(logits, b, 100));
}

TEST_CASE("logits that are no numbers are never drawn") {
  const std::vector<float> logits{not_a_number, 1.f, -infinity, 2.f, not_a_number};
  for (std::int32_t token : draws(logits, everything, 500)) CHECK((token == 1 || token == 3));
  CHECK(draws({not_a_number, not_a_number}, everything, 2) == std::vector<std::int32_t>(2, 0));
  CHECK(draws({-infinity, -infinity}, everything, 2) == std::vector<std::int32_t>(2, 0));
  CHECK(draws({0.f, infinity, 1.f}, everything, 2) == std::vector<std::int32_t>(2, 1));
}

TEST_CASE("settings that make no sense are errors") {
  const auto message = [](TokenSamplerSettings s) {
    auto sampler = TokenSampler::create(10, s);
    return sampler ? std::string() : sampler.error().message;
  };
  CHECK(message({}) == "");
  CHECK(message({.temperature = not_a_number}) == "temperature must be a number, found nan");
  CHECK(message({.temperature = infinity}) == "temperature must be a number, found inf");
  CHECK(message({.top_p = 0.f}) == "top_p must be above 0 and at most 1, found 0.000000");
  CHECK(message({.top_p = 1.5f}) == "top_p must be above 0 and at most 1, found 1.500000");
  CHECK(message({.min_p = -0.1f}) == "min_p must be between 0 and 1, found -0.100000");
  CHECK_FALSE(TokenSampler::create(0, {}));
}
