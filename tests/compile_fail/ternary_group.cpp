// error: chimera: ternary.group must be a multiple of 64, or 0
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ternary = {.on = true, .group = 32};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
