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
