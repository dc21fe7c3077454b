// error: chimera: titans.memory_heads must divide width
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.memory_heads = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
