// error: chimera: titans.tbptt must not be negative
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.tbptt = -1;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
