// error: chimera: loop.mean must be between 0 and loop.most
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 2, .most = 4, .mean = 5.f};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
