#include <doctest/doctest.h>
#include <chimera/core/float_bits.hpp>

#include <limits>

using namespace chimera;

TEST_CASE("numbers, infinities and NaN are told apart") {
  using F = std::numeric_limits<float>;
  using D = std::numeric_limits<double>;
  for (const float x : {0.f, -0.f, 1.f, -1.f, F::max(), F::lowest(), F::denorm_min()})
    CHECK((is_finite(x) && !is_nan(x) && !is_minus_infinity(x)));
  for (const float x : {F::infinity(), -F::infinity()}) {
    CHECK((!is_finite(x) && !is_nan(x)));
    CHECK(is_minus_infinity(x) == (x < 0));
  }
  for (const float x : {F::quiet_NaN(), -F::quiet_NaN(), F::signaling_NaN()})
    CHECK((!is_finite(x) && is_nan(x) && !is_minus_infinity(x)));
  for (const double x : {0., -0., D::max(), D::lowest(), D::denorm_min()}) CHECK(is_finite(x));
  for (const double x : {D::infinity(), -D::infinity(), D::quiet_NaN(), -D::quiet_NaN()}) CHECK(!is_finite(x));
}
