// error: chimera: gated_deltanet.conv must be between 1 and 8
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.gated_deltanet.conv = 9;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
