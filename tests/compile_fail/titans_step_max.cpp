// error: chimera: titans.step_max must be above 0, and at most 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.step_max = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
