// error: chimera: loop.stop must be positive, or 0 for never
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 2, .stop = -1.f};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
