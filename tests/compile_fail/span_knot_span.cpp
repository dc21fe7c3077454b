// error: chimera: span_knot.span must be between 1 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK A", 2), c.span_knot.span = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
