#include <chimera/optim/gradient.hpp>

#include <chimera/core/random.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>
#include <limits>
#include <vector>

using namespace chimera;

namespace {

double norm_of(const Cpu& q, const std::vector<float>& gradient) {
  const auto n = static_cast<std::int64_t>(gradient.size());
  std::vector<std::byte> temp(static_cast<std::size_t>(gradient_norm_bytes(n)));
  double norm = 0;
  gradient_norm(q, n, gradient.data(), &norm, Bump{temp.data()});
  return norm;
}

std::vector<float> noise() {
  std::vector<float> values(40'100);
  Random r{1, 0};
  for (float& x : values) x = r.normal();
  return values;
}

}  // namespace

TEST_CASE("one bad element anywhere shows in the norm") {
  auto q = Cpu::create(2);
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
    for (std::size_t at : std::initializer_list<std::size_t>{0, 29, 20'050, 40'099}) {
      auto gradient = noise();
      gradient[at] = bad;
      CHECK_FALSE(std::isfinite(norm_of(*q, gradient)));
    }
  CHECK(std::isfinite(norm_of(*q, std::vector<float>(40'100, 3e38f))));
}

TEST_CASE("clipping leaves small gradients alone") {
  CHECK(clip_factor(0.5, 1.0) == 1.0);
  CHECK(clip_factor(4.0, 1.0) == doctest::Approx(0.25).epsilon(1e-6));
  CHECK(clip_factor(4.0, 0.0) == 1.0);
}
