// error: chimera: experts have no ternary matrices yet
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("A+E");
  c.ternary.on = true;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
