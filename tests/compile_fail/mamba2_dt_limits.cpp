// error: chimera: mamba2.dt_min must be below mamba2.dt_max
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.dt_min = 1.f, c.mamba2.dt_max = 0.1f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
