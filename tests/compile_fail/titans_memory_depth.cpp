// error: chimera: titans.memory_depth must be 1 or 2
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.memory_depth = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
