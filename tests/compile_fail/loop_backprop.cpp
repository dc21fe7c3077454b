// error: chimera: loop.backprop must be at least 1, or 0 for all passes
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 2, .backprop = -1};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
