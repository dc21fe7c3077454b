#include <chimera/core/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

using namespace chimera;

// The known answers of Random123 1.14, kat_vectors, philox4x32 10.
TEST_CASE("philox gives the published numbers") {
  using Numbers = std::array<std::uint32_t, 4>;
  CHECK(philox(0, 0, 0) == Numbers{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox(~0ull, ~0ull, ~0ull) == Numbers{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88) ==
        Numbers{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("a saved state goes on where it stood") {
  Random a{7, 3};
  for (int i = 0; i < 10; ++i) a.word();
  Random b{a.key, a.stream, a.counter};
  for (int i = 0; i < 10; ++i) CHECK(a.word() == b.word());
}

TEST_CASE("draws have the moments of their distribution") {
  Random r{42, 1};
  const int n = 200'000;
  bool in_range = true;
  double sum = 0, square = 0, normal = 0, normal2 = 0, normal4 = 0;
  for (int i = 0; i < n; ++i) {
    const double u = static_cast<double>(r.uniform());
    in_range = in_range && u >= 0 && u < 1;
    sum += u, square += u * u;
    for (float z : r.normals()) {
      const double x = static_cast<double>(z);
      in_range = in_range && std::isfinite(x);
      normal += x, normal2 += x * x, normal4 += x * x * x * x;
    }
  }
  CHECK(in_range);
  CHECK(sum / n == doctest::Approx(0.5).epsilon(0.01));
  CHECK(square / n == doctest::Approx(1.0 / 3).epsilon(0.01));
  CHECK(normal / (4 * n) == doctest::Approx(0).epsilon(0.01));
  CHECK(normal2 / (4 * n) == doctest::Approx(1).epsilon(0.01));
  CHECK(normal4 / (4 * n) == doctest::Approx(3).epsilon(0.02));
}

TEST_CASE("below(n) reaches every value about equally often") {
  Random r{1, 2};
  for (std::uint64_t n : {1u, 2u, 7u, 100u}) {
    std::vector<int> hits(n);
    for (int i = 0; i < 20'000; ++i) ++hits.at(r.below(n));
    double chi = 0;
    const double expected = 20'000.0 / static_cast<double>(n);
    for (int h : hits) chi += (h - expected) * (h - expected) / expected;
    const double freedom = static_cast<double>(n - 1);
    CHECK(chi <= freedom + 5 * std::sqrt(2 * freedom));
  }
  const std::uint64_t huge = std::uint64_t{1} << 60;
  for (int i = 0; i < 1'000; ++i) CHECK_UNARY(r.below(huge) < huge);
}

TEST_CASE("streams of one key are unrelated") {
  Random a{5, 0}, b{5, 1};
  double product = 0;
  for (int i = 0; i < 100'000; ++i)
    product += (static_cast<double>(a.uniform()) - 0.5) * (static_cast<double>(b.uniform()) - 0.5);
  CHECK(std::abs(product / 100'000) < 5.0 / 12 / std::sqrt(100'000.0));
}
