// Learning-rate schedules: warm-up, then cosine, or warm-up, plateau and decay (WSD).
#pragma once

#include <chimera/core/namespace.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace chimera::inline CHIMERA_ABI {

enum class ScheduleShape : std::uint8_t {
  cosine,      // half a cosine from 1 down to `floor` (Loshchilov and Hutter, 2017)
  wsd_linear,  // 1 until the last `decay` steps, then a straight line to `floor`
  wsd_sqrt,    // the same with 1 - sqrt(x), which falls fast and then slowly (Hägele et al., 2024)
};

/// The factor of the peak learning rate at each step. All counts are optimizer steps.
struct Schedule {
  ScheduleShape shape = ScheduleShape::cosine;
  std::int64_t steps = 0;   // of the whole run, warm-up included
  std::int64_t warmup = 0;  // linear from 0
  std::int64_t decay = 0;   // length of the decay at the end (WSD only)
  double floor = 0.1;       // what is left of the peak at the end

  double factor(std::int64_t step) const {
    if (step < warmup) return static_cast<double>(step) / static_cast<double>(warmup);
    const std::int64_t length = std::max<std::int64_t>(shape == ScheduleShape::cosine ? steps - warmup : decay, 1);
    const std::int64_t done = step - (shape == ScheduleShape::cosine ? warmup : steps - decay);
    const double x = std::clamp(static_cast<double>(done) / static_cast<double>(length), 0.0, 1.0);
    switch (shape) {
      case ScheduleShape::cosine: return floor + (1 - floor) * 0.5 * (1 + std::cos(std::numbers::pi * x));
      case ScheduleShape::wsd_linear: return floor + (1 - floor) * (1 - x);
      case ScheduleShape::wsd_sqrt: return floor + (1 - floor) * (1 - std::sqrt(x));
    }
    return 1;
  }
};

}  // namespace chimera::inline CHIMERA_ABI
