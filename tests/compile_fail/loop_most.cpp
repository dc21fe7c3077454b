// error: chimera: loop.most must be between loop.passes and 32, or 0 for loop.passes
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 2, .passes = 3, .most = 2};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
