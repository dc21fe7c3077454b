// error: chimera: titans.rope_base must be 0 or at least 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.rope_base = 0.5f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
