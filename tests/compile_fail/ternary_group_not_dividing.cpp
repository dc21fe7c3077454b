// error: chimera: ternary.group must divide the rows of every matrix of a layer: width, ffn.hidden and inner widths
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ternary = {.on = true, .group = 192};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
