// error: chimera: span_knot.head_dim, or width / span_knot.heads for it, must be even, and between 2 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("SK A", 2), c.span_knot.head_dim = 33;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
