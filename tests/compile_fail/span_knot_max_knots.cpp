// error: chimera: span_knot.max_knots must not be negative
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK A", 2), c.span_knot.max_knots = -1;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
