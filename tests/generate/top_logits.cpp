#include <doctest/doctest.h>

#include <chimera/core/random.hpp>
#include <chimera/generate/top_logits.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

using namespace chimera;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

/// Normal, with many equal values where `coarse`.
std::vector<float> random_logits(std::size_t n, std::uint64_t seed, bool coarse = false) {
  Random random{seed, 0, 0};
  std::vector<float> x(n);
  for (float& v : x) v = coarse ? std::round(random.normal()) : 3 * random.normal();
  return x;
}

std::vector<Candidate> sorted(const std::vector<float>& logits) {
  std::vector<Candidate> all;
  for (std::size_t i = 0; i < logits.size(); ++i) all.push_back({logits[i], static_cast<std::int32_t>(i)});
  std::stable_sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
  return all;
}

constexpr std::size_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 1000, 4097};

}  // namespace

TEST_CASE("maxima, exponentials and their sum, at every level") {
  for (const Isa isa : {Isa::base, Isa::avx2, Isa::avx512}) {
    if (isa > detect_isa()) continue;
    for (const std::size_t n : sizes) {
      std::vector<float> x = random_logits(n, n), maxima((n + 63) / 64), y(n);
      bool nan = false;
      const std::int64_t count = static_cast<std::int64_t>(n);
      dispatch<BlockMaxima>(isa, x.data(), count, maxima.data(), &nan);
      CHECK_FALSE(nan);
      for (std::size_t b = 0; b < maxima.size(); ++b)
        CHECK(maxima[b] == *std::max_element(&x[64 * b], &x[0] + std::min(n, 64 * b + 64)));
      double sum = 0, expected = 0;
      dispatch<ExponentialSum>(isa, x.data(), count, 2.f, 0.5f, &sum);
      dispatch<Exponentials>(isa, x.data(), count, 2.f, 0.5f, y.data());
      for (std::size_t i = 0; i < n; ++i) {
        const double e = std::exp((static_cast<double>(x[i]) - 2) / 0.5);
        expected += e;
        CHECK(static_cast<double>(y[i]) == doctest::Approx(e).epsilon(1e-5));
      }
      CHECK(sum == doctest::Approx(expected).epsilon(1e-5));
      for (const std::size_t at : {std::size_t{0}, n / 2, n - 1}) {
        std::vector<float> with_nan = x;
        with_nan[at] = not_a_number;
        nan = false;
        dispatch<BlockMaxima>(isa, with_nan.data(), count, maxima.data(), &nan);
        CHECK(nan);
      }
    }
  }
}

TEST_CASE("the top is that of a sort, for every count, above every floor, with equal logits") {
  for (const std::size_t n : sizes)
    for (const bool coarse : {false, true}) {
      const std::vector<float> logits = random_logits(n, 7 * n, coarse);
      const std::vector<Candidate> expected = sorted(logits);
      auto top = TopLogits::create(static_cast<std::int64_t>(n));
      REQUIRE(top);
      REQUIRE(top->read(logits));
      CHECK(top->best() == expected[0].logit);
      for (const std::size_t count : {std::size_t{1}, std::size_t{2}, std::size_t{40}, n / 64, n / 2, n, n + 3})
        for (const float floor : {-infinity, expected[n / 2].logit, expected[0].logit}) {
          if (count == 0) continue;
          const auto found = top->top(count, floor);
          std::size_t size = 0;
          while (size < std::min(n, count) && expected[size].logit >= floor) ++size;
          REQUIRE(found.size() == size);
          for (std::size_t i = 0; i < size; ++i) {
            CHECK(found[i].logit == expected[i].logit);
            CHECK(found[i].token == expected[i].token);
          }
        }
      double mass = 0;
      for (const float x : logits) mass += std::exp((static_cast<double>(x) - static_cast<double>(top->best())) / 0.7);
      CHECK(top->mass(0.7f) == doctest::Approx(mass).epsilon(1e-5));
    }
}

TEST_CASE("minus infinity forbids a token; what is no logit is an error that names it") {
  auto top = TopLogits::create(70);
  REQUIRE(top);
  std::vector<float> logits(70, -infinity);
  const auto message = [&](const std::vector<float>& row) {
    const Status s = top->read(row);
    return s ? std::string() : s.error().message;
  };
  CHECK(message(logits) == "no token can follow: all logits are minus infinity");
  logits[66] = -3, logits[2] = -4;
  CHECK(message(logits) == "");
  CHECK(top->at_least(-infinity).size() == 2);
  CHECK(top->top(5).size() == 2);
  CHECK(top->top(5)[0].token == 66);
  CHECK(top->mass(1) == doctest::Approx(1 + std::exp(-1)));
  logits[69] = not_a_number;
  CHECK(message(logits) == "logits are numbers or minus infinity, found nan for token 69");
  logits[3] = infinity;
  CHECK(message(logits) == "logits are numbers or minus infinity, found inf for token 3");
  CHECK(message({1, 2}) == "a vocabulary of 70 has as many logits, found 2");
  CHECK_FALSE(TopLogits::create(0));
  CHECK_FALSE(TopLogits::create(std::int64_t{1} << 40));
}
