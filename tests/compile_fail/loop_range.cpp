// error: chimera: loop.first and loop.last must be layers of the model, in this order
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.loop = {.first = 1, .last = 3};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
