// error: chimera: titans.segment must be between 1 and 128
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.segment = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
