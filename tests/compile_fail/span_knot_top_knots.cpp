// error: chimera: span_knot.top_knots must be between 0 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK A", 2), c.span_knot.top_knots = 257;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
