// e^x and ln x for the compiler: what <cmath> has is no constant expression in C++20. Relative error below 1e-15 times
// the size of the exponent.
#pragma once

#include <chimera/core/version.hpp>

namespace chimera {

inline constexpr double constexpr_ln2 = 0.69314718055994530942;

/// Beyond |x| = 700, where doubles end soon, that of 700; of NaN e^-700.
constexpr double constexpr_exp(double x) {
  x = !(x > -700) ? -700 : x > 700 ? 700 : x;
  const int n = static_cast<int>(x / constexpr_ln2);
  const double r = x - n * constexpr_ln2;
  double sum = 1, term = 1;
  for (int i = 1; i < 24; ++i) sum += term *= r / i;
  for (int i = 0; i < n; ++i) sum *= 2;
  for (int i = 0; i > n; --i) sum /= 2;
  return sum;
}

/// For x > 0. With t = (m - 1) / (m + 1): ln m = 2 (t + t^3/3 + t^5/5 ...).
constexpr double constexpr_log(double x) {
  int n = 0;
  for (; x > 1.5 && n < 1100; ++n) x /= 2;
  for (; x < 0.75 && n > -1100; --n) x *= 2;
  const double t = (x - 1) / (x + 1);
  double sum = 0, power = t;
  for (int i = 1; i < 60; i += 2, power *= t * t) sum += power / i;
  return n * constexpr_ln2 + 2 * sum;
}

/// b > 0.
constexpr double constexpr_pow(double b, double e) { return constexpr_exp(e * constexpr_log(b)); }

/// For x > 0: as std::sqrt, to the bit. Newton's steps in double, whose last digits the rounding to float drops.
constexpr float constexpr_sqrt(float x) {
  const double square = static_cast<double>(x);
  double root = square > 1 ? square : 1;
  for (double next = (root + square / root) / 2; next < root; next = (root + square / root) / 2) root = next;
  return static_cast<float>(root);
}

}  // namespace chimera
