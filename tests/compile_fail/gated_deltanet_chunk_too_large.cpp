// error: chimera: gated_deltanet.chunk must be between 1 and 64
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.gated_deltanet.chunk = 65;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
