// error: chimera: loop.passes must be between 1 and 32
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 2, .passes = 0};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
