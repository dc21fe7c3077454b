// error: chimera: titans.persistent must be between 0 and 128
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.persistent = 129;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
