#include <doctest/doctest.h>

#include <chimera/generate/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <vector>

using namespace chimera;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

using Settings = TokenSamplerSettings;
using Tokens = std::vector<std::int32_t>;

/// Without any filter.
Settings everything() { return {.temperature = 1.f, .top_k = 0, .top_p = 1.f, .min_p = 0.f}; }

TokenSampler sampler_of(std::size_t vocab, const Settings& settings, const Tokens& past = {}) {
  auto sampler = TokenSampler::create(static_cast<std::int64_t>(vocab), settings);
  REQUIRE(sampler);
  sampler->accept(past);
  return std::move(*sampler);
}

Tokens draws(const std::vector<float>& logits, const Settings& settings, int count) {
  TokenSampler sampler = sampler_of(logits.size(), settings);
  Tokens tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(*sampler.draw(logits));
  return tokens;
}

/// Of all tokens: 0 for those that are no candidates.
std::vector<double> probabilities(TokenSampler& sampler, const std::vector<float>& logits) {
  const auto d = sampler.distribution(logits);
  REQUIRE(d);
  std::vector<double> all(logits.size());
  for (std::size_t i = 0; i < d->candidates.size(); ++i)
    all[static_cast<std::size_t>(d->candidates[i].token)] = static_cast<double>(d->probabilities[i]);
  return all;
}
std::vector<double> probabilities(const std::vector<float>& logits, const Settings& settings, const Tokens& past = {}) {
  TokenSampler sampler = sampler_of(logits.size(), settings, past);
  return probabilities(sampler, logits);
}

/// Logits as the penalties leave them.
std::vector<float> penalized(const std::vector<float>& logits, const Settings& settings, const Tokens& past) {
  TokenSampler sampler = sampler_of(logits.size(), settings, past);
  const auto d = sampler.distribution(logits);
  REQUIRE(d);
  std::vector<float> all(logits.size(), not_a_number);
  for (const Candidate& c : d->candidates) all[static_cast<std::size_t>(c.token)] = c.logit;
  return all;
}

/// The definitions of all steps but XTC and mirostat, one after the other, on whole vectors of f64.
std::vector<double> reference(const std::vector<float>& logits, const Settings& s, const Tokens& past) {
  std::vector<double> x(logits.begin(), logits.end());
  for (const LogitBias& b : s.logit_bias) x[static_cast<std::size_t>(b.token)] += static_cast<double>(b.bias);
  const auto last = [&](std::int64_t n) {
    return n < 0 || n >= static_cast<std::int64_t>(past.size()) ? past : Tokens(past.end() - n, past.end());
  };
  std::map<std::size_t, int> counts;
  for (const std::int32_t t : last(s.repeat_last_n)) ++counts[static_cast<std::size_t>(t)];
  for (const auto& [t, count] : counts) {
    const double r = static_cast<double>(s.repeat_penalty);
    x[t] = (x[t] > 0 ? x[t] / r : x[t] * r) - count * static_cast<double>(s.frequency_penalty) -
           static_cast<double>(s.presence_penalty);
  }
  if (s.dry_multiplier > 0) {  // breakers: single tokens
    const Tokens text = last(s.dry_last_n);
    std::vector<std::size_t> longest(x.size());
    const auto breaks = [&](std::int32_t t) {
      return std::find(s.dry_breakers.begin(), s.dry_breakers.end(), Tokens{t}) != s.dry_breakers.end();
    };
    for (std::size_t end = 0; end < text.size(); ++end) {  // text[end] is the token that would come again
      std::size_t n = 0;
      while (n < end && text[end - 1 - n] == text[text.size() - 1 - n] && !breaks(text[end - 1 - n])) ++n;
      std::size_t& most = longest[static_cast<std::size_t>(text[end])];
      if (n >= static_cast<std::size_t>(s.dry_allowed_length) && !breaks(text[end])) most = std::max(most, n);
    }
    for (std::size_t t = 0; t < x.size(); ++t)
      if (longest[t] > 0)
        x[t] -= static_cast<double>(s.dry_multiplier) *
                std::pow(static_cast<double>(s.dry_base),
                         static_cast<double>(longest[t]) - static_cast<double>(s.dry_allowed_length));
  }
  std::vector<std::size_t> kept(x.size());
  std::iota(kept.begin(), kept.end(), std::size_t{0});
  const auto sort = [&] { std::stable_sort(kept.begin(), kept.end(), [&](auto a, auto b) { return x[a] > x[b]; }); };
  const auto softmax = [&](double temperature) {
    double best = -1e300, sum = 0;
    for (const std::size_t t : kept) best = std::max(best, x[t]);
    std::vector<double> p(x.size());
    for (const std::size_t t : kept) sum += p[t] = std::exp((x[t] - best) / temperature);
    for (double& v : p) v /= sum;
    return p;
  };
  sort();
  if (s.top_n_sigma > 0) {
    double mean = 0, square = 0;
    for (const double v : x) mean += v / static_cast<double>(x.size());
    for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(x.size());
    const double floor = x[kept[0]] - static_cast<double>(s.top_n_sigma) * std::sqrt(square);
    while (x[kept.back()] < floor) kept.pop_back();
  }
  if (s.top_k > 0) kept.resize(std::min(kept.size(), static_cast<std::size_t>(s.top_k)));
  if (s.typical_p < 1) {
    const std::vector<double> p = softmax(1);
    double entropy = 0, sum = 0;
    for (const std::size_t t : kept) entropy -= p[t] * std::log(p[t]);
    const auto oddity = [&](std::size_t t) { return std::abs(-std::log(p[t]) - entropy); };
    std::stable_sort(kept.begin(), kept.end(), [&](auto a, auto b) { return oddity(a) < oddity(b); });
    std::size_t n = 0;
    while (n < kept.size() && sum <= static_cast<double>(s.typical_p)) sum += p[kept[n++]];
    kept.resize(n);
    sort();
  }
  if (s.top_p < 1) {
    const std::vector<double> p = softmax(1);
    double sum = 0;
    std::size_t n = 0;
    while (n < kept.size() && sum < static_cast<double>(s.top_p)) sum += p[kept[n++]];
    kept.resize(n);
  }
  if (s.min_p > 0)
    while (x[kept.back()] < x[kept[0]] + std::log(static_cast<double>(s.min_p))) kept.pop_back();
  double temperature = static_cast<double>(s.temperature);
  if (s.temperature_range > 0 && kept.size() > 1) {
    const double range = static_cast<double>(s.temperature_range), low = std::max(0., temperature - range);
    const std::vector<double> p = softmax(1);
    double entropy = 0;
    for (const std::size_t t : kept) entropy -= p[t] * std::log(p[t]);
    temperature = low + (temperature + range - low) * std::pow(entropy / std::log(static_cast<double>(kept.size())),
                                                               static_cast<double>(s.temperature_exponent));
  }
  return softmax(temperature);
}

std::vector<float> random_logits(Random& random, std::size_t n) {
  std::vector<float> x(n);
  for (float& v : x) v = 2.5f * random.normal();
  return x;
}

}  // namespace

TEST_CASE("any settings give the distribution of their definitions") {
  Random random{11, 0, 0};
  const auto one_of = [&](auto... values) {
    const std::array all{static_cast<float>(values)...};
    return all[random.below(all.size())];
  };
  for (int round = 0; round < 400; ++round) {
    const std::size_t vocab = std::array<std::size_t, 6>{1, 5, 64, 65, 300, 1500}[random.below(6)];
    Settings s;
    s.temperature = one_of(0.3, 0.8, 1, 2);
    s.top_k = static_cast<std::int64_t>(one_of(0, 1, 7, 40, 40, 1000));
    s.top_p = one_of(0.5, 0.95, 0.99, 1), s.min_p = one_of(0, 0.02, 0.05, 0.3);
    s.typical_p = one_of(1, 1, 0.4, 0.9), s.top_n_sigma = one_of(0, 0, 1, 2.5);
    s.repeat_penalty = one_of(1, 1, 1.3, 0.8), s.frequency_penalty = one_of(0, 0, 0.4, -0.2);
    s.presence_penalty = one_of(0, 0, 0.7), s.repeat_last_n = static_cast<std::int64_t>(one_of(0, 3, 64, -1));
    s.dry_multiplier = one_of(0, 0.8, 2), s.dry_allowed_length = static_cast<std::int64_t>(one_of(1, 2, 3));
    s.dry_last_n = static_cast<std::int64_t>(one_of(-1, -1, 20, 0));
    s.temperature_range = one_of(0, 0, 0.5), s.temperature_exponent = one_of(1, 0.5);
    if (vocab > 4) s.dry_breakers = {{3}}, s.logit_bias = {{2, one_of(1, -2)}, {4, one_of(3, -5)}};
    Tokens past(random.below(90));
    for (std::int32_t& t : past) t = static_cast<std::int32_t>(random.below(std::min<std::size_t>(vocab, 6)));
    const std::vector<float> logits = random_logits(random, vocab);

    const std::vector<double> expected = reference(logits, s, past), found = probabilities(logits, s, past);
    CAPTURE(round);
    double apart = 0;
    for (std::size_t t = 0; t < vocab; ++t) apart = std::max(apart, std::abs(expected[t] - found[t]));
    CHECK(apart < 2e-5);
  }
}

TEST_CASE("draws are as frequent as their probability says") {
  const std::vector<float> logits{0.3f, 2.f, -1.f, 1.9f, -4.f, 0.9f, 2.f, -0.2f, 1.1f};
  Settings narrow = everything(), cold = everything();
  narrow.top_k = 5, cold.temperature = 0.4f;
  for (const Settings& s : {everything(), narrow, cold, Settings{}}) {
    constexpr int count = 40'000;
    const std::vector<double> expected = reference(logits, s, {});
    std::vector<int> found(logits.size());
    for (const std::int32_t token : draws(logits, s, count)) ++found[static_cast<std::size_t>(token)];
    double chi_square = 0;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (expected[i] == 0) CHECK(found[i] == 0);
      if (expected[i] > 0) chi_square += std::pow(found[i] - expected[i] * count, 2) / (expected[i] * count);
    }
    CHECK(chi_square < 32);  // 8 degrees of freedom: 1 in 10,000
  }
}

TEST_CASE("a temperature of 0, a top-k of 1, a tiny top-p and a min-p of 1 take the likeliest token") {
  const std::vector<float> logits{1.f, 3.f, 2.9f, 3.f - 1e-6f};
  const Tokens likeliest(20, 1);
  Settings s = everything();
  s.temperature = 0.f;
  CHECK(draws(logits, s, 20) == likeliest);
  s.temperature = -1.f;
  CHECK(draws(logits, s, 20) == likeliest);
  s = everything(), s.top_k = 1;
  CHECK(draws(logits, s, 20) == likeliest);
  s = everything(), s.top_p = 1e-9f;
  CHECK(draws(logits, s, 20) == likeliest);
  s = everything(), s.min_p = 1.f;
  CHECK(draws(logits, s, 20) == likeliest);
  s = everything(), s.temperature = 1e-30f;
  CHECK(draws(logits, s, 20) == likeliest);
  s = everything(), s.temperature = 1e-45f;
  CHECK(draws(logits, s, 20) == likeliest);
}

TEST_CASE("equal logits: the first is the likeliest") {
  Settings s = everything();
  s.temperature = 0.f;
  CHECK(draws(std::vector<float>(700, 0.5f), s, 3) == Tokens(3, 0));
  s = everything(), s.top_k = 2;
  for (std::int32_t token : draws(std::vector<float>(700, 0.5f), s, 200)) CHECK(token < 2);
}

TEST_CASE("penalties, by hand") {
  Settings s = everything();
  s.repeat_penalty = 2.f, s.frequency_penalty = 0.25f, s.presence_penalty = 0.5f;
  // Token 0 once, 1 three times, 3 never; tokens outside the vocabulary do not count.
  CHECK(penalized({4.f, -1.f, 0.f, 1.f}, s, {1, 0, 1, 2, 1, 99, -7}) ==
        std::vector<float>{2.f - 0.75f, -2.f - 1.25f, -0.75f, 1.f});
  s.repeat_last_n = 2;
  CHECK(penalized({4.f, -1.f, 0.f, 1.f}, s, {1, 0, 1, 3, 3}) == std::vector<float>{4.f, -1.f, 0.f, 0.5f - 1.f});
  s.repeat_last_n = 0;
  CHECK(penalized({4.f, -1.f}, s, {1, 0}) == std::vector<float>{4.f, -1.f});
}

TEST_CASE("what was drawn is penalized as what was accepted, as far as the memory reaches") {
  Settings s = everything();
  s.temperature = 0.f, s.presence_penalty = 100.f, s.repeat_last_n = 3;
  // The last three are out: four tokens take turns.
  CHECK(draws({5.f, 4.f, 3.f, 2.f, 1.f}, s, 9) == Tokens{0, 1, 2, 3, 0, 1, 2, 3, 0});
  TokenSampler sampler = sampler_of(5, s, Tokens(1000, 4));
  sampler.accept(Tokens{0, 1});
  CHECK(*sampler.draw(std::vector<float>{5.f, 4.f, 3.f, 2.f, 100.f}) == 2);
  CHECK(*sampler.draw(std::vector<float>{5.f, 4.f, 3.f, 2.f, 100.f}) == 4);
  sampler.reset();
  CHECK(*sampler.draw(std::vector<float>{5.f, 4.f, 3.f, 2.f, 1.f}) == 0);
}

TEST_CASE("DRY, by hand") {
  Settings s = everything();
  s.dry_multiplier = 1.f, s.dry_base = 2.f, s.dry_allowed_length = 2;
  const std::vector<float> zeros(5);
  const auto loss = [&](const Tokens& past) {
    std::vector<float> x = penalized(zeros, s, past);
    for (float& v : x) v = 0.f - v;
    return x;
  };
  using Loss = std::vector<float>;
  CHECK(loss({}) == Loss(5));
  CHECK(loss({0}) == Loss(5));
  // "0 1" came before, and 2 followed it; one token alone is no repetition yet.
  CHECK(loss({0, 1, 2, 0, 1}) == Loss{0, 0, 1, 0, 0});
  CHECK(loss({0, 1, 2, 3, 1}) == Loss(5));
  // Three tokens repeat: 2^(3 - 2).
  CHECK(loss({0, 1, 2, 3, 0, 1, 2}) == Loss{0, 0, 0, 2, 0});
  // Of repetitions that the same token would continue, the longest counts; other tokens have their own.
  CHECK(loss({4, 0, 1, 2, 0, 1, 2, 3, 4, 0, 1}) == Loss{0, 0, 2, 0, 0});
  CHECK(loss({4, 0, 1, 2, 0, 1, 3, 4, 0, 1}) == Loss{0, 0, 2, 1, 0});
  // A repetition may overlap itself.
  CHECK(loss({1, 1, 1, 1, 1}) == Loss{0, 4, 0, 0, 0});
  s.dry_last_n = 3;
  CHECK(loss({0, 1, 2, 0, 1}) == Loss(5));
  s.dry_last_n = -1;
  // A breaker ends what repeats, and is never penalized itself.
  s.dry_breakers = {{1}};
  CHECK(loss({0, 1, 2, 3, 0, 1, 2}) == Loss(5));
  CHECK(loss({2, 3, 1, 0, 2, 3}) == Loss(5));
  CHECK(loss({1, 2, 3, 4, 1, 2, 3}) == Loss{0, 0, 0, 0, 1});
  s.dry_breakers = {{1, 0}, {1, 0, 2}};
  CHECK(loss({0, 1, 2, 3, 0, 1, 2}) == Loss{0, 0, 0, 2, 0});
  CHECK(loss({1, 0, 2, 3, 4, 1, 0, 2, 3}) == Loss(5));
  CHECK(loss({1, 0, 2, 3, 3, 4, 1, 0, 2, 3, 3}) == Loss{0, 0, 0, 0, 1});
  s.dry_breakers.clear();
  // The penalty of a very long repetition stays a number, or forbids.
  s.dry_base = 1.75f;
  const Loss long_loss = loss(Tokens(2000, 1));
  CHECK(std::isfinite(long_loss[1]));
  CHECK(long_loss[1] > 1e37f);
  s.dry_multiplier = 1e10f;
  CHECK(probabilities(zeros, s, Tokens(2000, 1))[1] == 0);
}

TEST_CASE("the order of the steps") {
  const std::vector<float> logits{3.f, 2.f, 1.f, 0.f};
  // Penalties come before top-k: the token that takes the place of the penalized one is drawn.
  Settings s = everything();
  s.presence_penalty = 5.f, s.top_k = 1;
  CHECK(probabilities(logits, s, {0}) == std::vector<double>{0, 1, 0, 0});
  // Biases come before penalties: 0.5 (3 + 1) = 2, not 0.5 3 + 1.
  s = everything(), s.logit_bias = {{0, 1.f}}, s.repeat_penalty = 2.f;
  CHECK(penalized(logits, s, {0})[0] == 2.f);
  // Top-k comes before top-p: of two, the first has 0.73 of the mass; of all four, 0.64.
  s = everything(), s.top_k = 2, s.top_p = 0.7f;
  CHECK(probabilities(logits, s)[0] == 1);
  s.top_k = 0;
  CHECK(probabilities(logits, s)[1] > 0);
  // Typical comes before min-p: it may remove the likeliest, and min-p is relative to what is left.
  s = everything(), s.typical_p = 0.2f, s.min_p = 0.9f;
  CHECK(probabilities({2.f, 1.f, 0.9f, 0.8f, 0.7f, 0.6f}, s)[0] == 0);
  // The temperature comes last: the filters see the probabilities without it.
  s = everything(), s.min_p = 0.3f, s.temperature = 100.f;
  CHECK(probabilities(logits, s)[2] == 0);
  CHECK(probabilities(logits, s)[1] > 0.49);
}

TEST_CASE("XTC leaves alone the least likely of those above the threshold, as often as asked") {
  const std::vector<float> logits{std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  Settings s = everything();
  s.xtc_probability = 1.f;
  const auto tokens = [&](float threshold) {
    s.xtc_threshold = threshold;
    Tokens left;
    const std::vector<double> p = probabilities(logits, s);
    for (std::size_t t = 0; t < p.size(); ++t)
      if (p[t] > 0) left.push_back(static_cast<std::int32_t>(t));
    return left;
  };
  CHECK(tokens(0.05f) == Tokens{3});
  CHECK(tokens(0.15f) == Tokens{2, 3});
  CHECK(tokens(0.25f) == Tokens{1, 2, 3});
  CHECK(tokens(0.35f) == Tokens{0, 1, 2, 3});
  CHECK(tokens(0.45f) == Tokens{0, 1, 2, 3});
  CHECK(tokens(0.f) == Tokens{3});
  s.top_k = 3;  // what top-k removed does not come back
  CHECK(tokens(0.05f) == Tokens{2});

  s = everything(), s.xtc_probability = 0.3f, s.xtc_threshold = 0.25f;
  TokenSampler sampler = sampler_of(4, s);
  int acted = 0;
  for (int i = 0; i < 10'000; ++i) acted += probabilities(sampler, logits)[0] == 0;
  CHECK(std::abs(acted - 3000) < 5 * 46);  // five standard deviations
  // XTC's dice are its own: while it does nothing, the draws are those without it.
  s.xtc_threshold = 0.6f;
  CHECK(draws(logits, s, 100) == draws(logits, everything(), 100));
}

TEST_CASE("mirostat leaves out penalties and DRY, and keeps biases, as llama.cpp's chain has it") {
  const std::vector<float> logits{3.f, 2.f, 1.f, 0.f};
  Settings s;
  s.temperature = 1.f, s.mirostat = true, s.logit_bias = {{1, -2.f}};
  TokenSampler plain = sampler_of(4, s);
  s.repeat_penalty = 10.f, s.frequency_penalty = 1.f, s.presence_penalty = 1.f;
  s.dry_multiplier = 2.f, s.dry_allowed_length = 1;
  const auto probabilities_of = [&](float temperature) {
    s.temperature = temperature;
    TokenSampler sampler = sampler_of(4, s);
    sampler.accept(std::vector<std::int32_t>{0, 1, 0, 1, 0, 1});
    return probabilities(sampler, logits);
  };
  CHECK(probabilities_of(1.f) == probabilities(plain, logits));
  CHECK(probabilities_of(0.f)[0] == 1);
  s.mirostat = false;
  CHECK(probabilities_of(1.f) != probabilities(plain, logits));
}

TEST_CASE("mirostat cuts at mu and steers it to tau") {
  const std::vector<float> logits{std::log(0.5f), std::log(0.25f), std::log(0.125f), std::log(0.125f)};
  Settings s;  // its filters are not used
  s.temperature = 1.f, s.top_k = 1, s.mirostat = true, s.mirostat_tau = 1.1f, s.mirostat_eta = 0.2f;
  TokenSampler sampler = sampler_of(4, s);
  float mu = 2.2f;
  for (int i = 0; i < 200; ++i) {
    CHECK(sampler.surprise_limit() == doctest::Approx(mu).epsilon(1e-4));
    const std::vector<double> p = probabilities(sampler, logits);
    // Surprises are 1, 2, 3 and 3 bits.
    const std::size_t kept = mu < 2 ? 1 : mu < 3 ? 2 : 4;
    CHECK(static_cast<std::size_t>(std::count_if(p.begin(), p.end(), [](double v) { return v > 0; })) == kept);
    const std::int32_t token = *sampler.draw(logits);
    mu -= 0.2f * (-std::log2(static_cast<float>(p[static_cast<std::size_t>(token)])) - 1.1f);
  }
  sampler.reset();
  CHECK(sampler.surprise_limit() == 2.2f);

  // Over a wide distribution the mean surprise comes to tau.
  Random random{5, 0, 0};
  const std::vector<float> wide = random_logits(random, 5000);
  s.mirostat_tau = 4.f, s.mirostat_eta = 0.1f, s.temperature = 0.8f;
  TokenSampler steered = sampler_of(5000, s);
  double surprise = 0;
  for (int i = 0; i < 2000; ++i) {
    const std::vector<double> p = probabilities(steered, wide);
    surprise -= std::log2(p[static_cast<std::size_t>(*steered.draw(wide))]) / 2000;
  }
  CHECK(surprise == doctest::Approx(4).epsilon(0.02));
  s.temperature = 0.f;
  CHECK(draws(logits, s, 5) == Tokens(5, 0));
}

TEST_CASE("a seed names one sequence of tokens") {
  const std::vector<float> logits(50, 0.f);
  Settings a = everything(), b = everything();
  b.seed = 2;
  CHECK(draws(logits, a, 100) == draws(logits, a, 100));
  CHECK(draws(logits, a, 100) != draws(logits, b, 100));
  TokenSampler sampler = sampler_of(50, a);
  const std::int32_t first = *sampler.draw(logits);
  for (int i = 0; i < 10; ++i) CHECK(sampler.draw(logits));
  sampler.reset();
  CHECK(*sampler.draw(logits) == first);
}

TEST_CASE("logits that are no numbers are an error for that call alone") {
  TokenSampler sampler = sampler_of(3, {});
  CHECK(sampler.draw(std::vector<float>{1.f, not_a_number, 2.f}).error().message ==
        "logits are numbers or minus infinity, found nan for token 1");
  CHECK_FALSE(sampler.draw(std::vector<float>{1.f, infinity, 2.f}));
  CHECK_FALSE(sampler.draw(std::vector<float>(3, -infinity)));
  CHECK_FALSE(sampler.draw(std::vector<float>(4)));
  CHECK(*sampler.draw(std::vector<float>{-infinity, 0.f, -infinity}) == 1);
  // A bias may forbid tokens, but not all.
  Settings s;
  s.logit_bias = {{0, -infinity}};
  CHECK(draws({9.f, 1.f}, s, 5) == Tokens(5, 1));
  s.logit_bias = {{0, -infinity}, {1, -infinity}};
  CHECK_FALSE(sampler_of(2, s).draw(std::vector<float>{9.f, 1.f}));
}

TEST_CASE("only tokens that are allowed are drawn, whatever the settings") {
  std::vector<float> logits;
  for (int i = 0; i < 150; ++i) logits.push_back(std::sin(static_cast<float>(i)) * 5.f);
  const Tokens some{3, 63, 64, 100, 127, 128, 149};
  std::vector<std::uint64_t> allowed(3);
  for (const std::int32_t t : some) allowed[static_cast<std::size_t>(t / 64)] |= std::uint64_t{1} << (t % 64);
  std::vector<float> expected(150, -infinity);
  for (const std::int32_t t : some) expected[static_cast<std::size_t>(t)] = logits[static_cast<std::size_t>(t)];

  Settings greedy{.temperature = 0.f}, wide{.temperature = 3.f, .top_k = 0, .top_p = 1.f, .min_p = 0.f},
      edited = wide, surprising = wide;
  edited.repeat_penalty = 1.3f, edited.logit_bias = {{3, 2.f}, {5, 100.f}}, edited.dry_multiplier = 1.f;
  surprising.mirostat = true;
  for (const Settings& s : {greedy, Settings{}, wide, edited, surprising}) {
    TokenSampler masked = sampler_of(150, s), by_hand = sampler_of(150, s);
    std::set<std::int32_t> drawn;
    for (int i = 0; i < 200; ++i) {
      const auto token = masked.draw(logits, allowed);
      REQUIRE(token);
      CHECK(*token == *by_hand.draw(expected));  // as if the logits had come so
      drawn.insert(*token);
    }
    CHECK(std::includes(some.begin(), some.end(), drawn.begin(), drawn.end()));
    if (s.temperature == 3.f && !s.mirostat) CHECK(drawn.size() == some.size());
    CHECK(*masked.draw(logits) == *by_hand.draw(logits));  // for that call alone
  }

  TokenSampler sampler = sampler_of(150, wide);
  CHECK(sampler.draw(logits, std::vector<std::uint64_t>(3)).error().message == "no token can follow: none is allowed");
  allowed = {0, 0, std::uint64_t{1} << 22};  // 150: beyond the vocabulary
  CHECK(sampler.draw(logits, allowed).error().message == "no token can follow: none is allowed");
  CHECK(sampler.draw(logits, std::vector<std::uint64_t>(2, ~std::uint64_t{0})).error().message ==
        "tokens that are allowed are 3 words of 64 bits for a vocabulary of 150, found 2");
  std::vector<float> likely(150, 0.f);
  likely[7] = -infinity;
  CHECK(sampler.draw(likely, std::vector<std::uint64_t>{1 << 7, 0, 0}).error().message ==
        "no token can follow: all logits are minus infinity");
  CHECK_FALSE(sampler.draw(std::vector<float>(149), std::vector<std::uint64_t>(3, 1)));
}

TEST_CASE("settings that make no sense are errors that name the rule and what was found") {
  const auto message = [](const Settings& s) {
    const auto sampler = TokenSampler::create(10, s);
    return sampler ? std::string() : sampler.error().message;
  };
  CHECK(message({}) == "");
  CHECK(message({.temperature = not_a_number}) == "temperature must be a number, found nan");
  CHECK(message({.temperature = infinity}) == "temperature must be a number, found inf");
  CHECK(message({.top_p = 0.f}) == "top_p must be above 0 and at most 1, found 0.000000");
  CHECK(message({.top_p = 1.5f}) == "top_p must be above 0 and at most 1, found 1.500000");
  CHECK(message({.min_p = -0.5f}) == "min_p must be between 0 and 1, found -0.500000");
  CHECK(message({.logit_bias = {{10, 1.f}}}) == "a logit bias is for a token of the vocabulary of 10, found token 10");
  CHECK(message({.logit_bias = {{-1, 1.f}}}) == "a logit bias is for a token of the vocabulary of 10, found token -1");
  CHECK(message({.logit_bias = {{3, infinity}}}) ==
        "the logit bias of token 3 must be a number or minus infinity, found inf");
  CHECK(message({.repeat_last_n = -2}) == "repeat_last_n must be between -1 and 65536, found -2");
  CHECK(message({.repeat_penalty = 0.f}) == "repeat_penalty must be above 0, found 0.000000");
  CHECK(message({.frequency_penalty = infinity}) == "frequency_penalty must be a number, found inf");
  CHECK(message({.presence_penalty = not_a_number}) == "presence_penalty must be a number, found nan");
  CHECK(message({.dry_multiplier = -1.f}) == "dry_multiplier must be 0 or more, found -1.000000");
  CHECK(message({.dry_base = 0.5f}) == "dry_base must be 1 or more, found 0.500000");
  CHECK(message({.dry_allowed_length = 0}) == "dry_allowed_length must be between 1 and 65536, found 0");
  CHECK(message({.dry_last_n = 100'000}) == "dry_last_n must be between -1 and 65536, found 100000");
  CHECK(message({.dry_breakers = {{}}}) == "a DRY breaker must have at least 1 token, found none");
  CHECK(message({.top_n_sigma = infinity}) == "top_n_sigma must be a number, found inf");
  CHECK(message({.typical_p = 0.f}) == "typical_p must be above 0 and at most 1, found 0.000000");
  CHECK(message({.xtc_probability = 2.f}) == "xtc_probability must be between 0 and 1, found 2.000000");
  CHECK(message({.xtc_threshold = -1.f}) == "xtc_threshold must be between 0 and 1, found -1.000000");
  CHECK(message({.temperature_range = -1.f}) == "temperature_range must be 0 or more, found -1.000000");
  CHECK(message({.temperature_exponent = not_a_number}) == "temperature_exponent must be 0 or more, found nan");
  CHECK(message({.mirostat_tau = -1.f}) == "mirostat_tau must be 0 or more, found -1.000000");
  CHECK(message({.mirostat_eta = infinity}) == "mirostat_eta must be 0 or more, found inf");
  CHECK_FALSE(TokenSampler::create(0, {}));
}
