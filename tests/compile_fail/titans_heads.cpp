// error: chimera: titans.heads must divide width where titans.head_dim is 0
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.heads = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
