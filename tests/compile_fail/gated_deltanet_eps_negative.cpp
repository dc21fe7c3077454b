// error: chimera: gated_deltanet.eps must not be negative
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.gated_deltanet.eps = -1e-6f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
