#include <chimera/optim/schedule.hpp>

#include <doctest/doctest.h>

#include <cmath>

using namespace chimera;

// Written from the definitions, as other trainers state them.
static double cosine(double t, double total, double warm, double floor) {
  if (t < warm) return t / warm;
  return floor + (1 - floor) * 0.5 * (1 + std::cos(M_PI * std::fmin(1.0, (t - warm) / (total - warm))));
}
static double wsd(double t, double total, double warm, double floor, double decay, bool root) {
  if (t < warm) return t / warm;
  const double x = std::fmin(1.0, std::fmax(0.0, t - (total - decay)) / decay);
  return floor + (1 - floor) * (1 - (root ? std::sqrt(x) : x));
}

TEST_CASE("schedules follow their definitions at every step") {
  struct Case {
    std::int64_t total, warm, decay;
    double floor;
  };
  for (const Case c : {Case{100, 10, 20, 0.1}, {137, 7, 33, 0.0}, {64, 16, 12, 0.05}, {50, 0, 50, 0.1}})
    for (std::int64_t t = 0; t <= c.total + 5; ++t) {
      const Schedule s{ScheduleShape::cosine, c.total, c.warm, c.decay, c.floor};
      Schedule linear = s, root = s;
      linear.shape = ScheduleShape::wsd_linear, root.shape = ScheduleShape::wsd_sqrt;
      const double x = static_cast<double>(t), total = static_cast<double>(c.total), warm = static_cast<double>(c.warm);
      const double decay = static_cast<double>(c.decay);
      CHECK(s.factor(t) == doctest::Approx(cosine(x, total, warm, c.floor)).epsilon(1e-12));
      CHECK(linear.factor(t) == doctest::Approx(wsd(x, total, warm, c.floor, decay, false)).epsilon(1e-12));
      CHECK(root.factor(t) == doctest::Approx(wsd(x, total, warm, c.floor, decay, true)).epsilon(1e-12));
    }
}

TEST_CASE("a schedule of nothing but warm-up, or without decay, stays finite") {
  for (ScheduleShape shape : {ScheduleShape::cosine, ScheduleShape::wsd_linear, ScheduleShape::wsd_sqrt}) {
    const Schedule warm{shape, 10, 10, 0, 0.1}, none{shape, 1, 0, 0, 0.1};
    for (std::int64_t t = 0; t <= 12; ++t) {
      CHECK(std::isfinite(warm.factor(t)));
      CHECK(std::isfinite(none.factor(t)));
    }
    CHECK(warm.factor(5) == 0.5);
  }
}
