// error: chimera: titans.memory_hidden must be between 0 and 16384, and 0 where titans.memory_depth is 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.memory_hidden = 8;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
