#include <doctest/doctest.h>

#include <chimera/core/constexpr_math.hpp>

#include <cmath>
#include <initializer_list>

using namespace chimera;

TEST_CASE("the compiler's exponential and logarithm are those of the library") {
  static_assert(constexpr_exp(0) == 1 && constexpr_log(1) == 0 && constexpr_exp(-3 * constexpr_ln2) == 0.125);
  for (double x = -40; x < 40; x += 0.173) {
    CAPTURE(x);
    const double y = constexpr_exp(x);
    CHECK(std::abs(y / std::exp(x) - 1) < 1e-14);
    CHECK(std::abs(constexpr_log(y) - x) < 1e-14 * (1 + std::abs(x)));
  }
  for (int i = 0; i < 128; ++i)
    for (const double base : {10'000.0, 500'000.0, 1.5})
      CHECK(static_cast<float>(constexpr_pow(base, -i / 128.0)) == static_cast<float>(std::pow(base, -i / 128.0)));
}

TEST_CASE("the compiler's square root is the library's, to the bit") {
  static_assert(constexpr_sqrt(64.f) == 8.f && constexpr_sqrt(1.f) == 1.f && constexpr_sqrt(0.25f) == 0.5f);
  int different = 0;
  for (int n = 1; n <= 200'000; ++n)
    different += constexpr_sqrt(static_cast<float>(n)) != std::sqrt(static_cast<float>(n));
  for (float x = 1e-30f; x < 1e30f; x *= 1.00137f) different += constexpr_sqrt(x) != std::sqrt(x);
  CHECK(different == 0);
}
