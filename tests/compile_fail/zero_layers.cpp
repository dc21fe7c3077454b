// error: chimera: a model needs at least one layer
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("M A", 0);
  return c;
}();
constexpr bool checked = Check<bad>::ok;
