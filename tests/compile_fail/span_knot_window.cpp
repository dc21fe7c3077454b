// error: chimera: span_knot.window must be between 0 and 64
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK A", 2), c.span_knot.window = -1;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
