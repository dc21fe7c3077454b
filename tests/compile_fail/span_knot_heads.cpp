// error: chimera: span_knot.heads, or attention.heads for it, must be at least 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK", 2), c.attention.heads = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
