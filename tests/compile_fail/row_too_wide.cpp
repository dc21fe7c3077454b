// error: chimera: width, ffn.hidden and inner widths must be at most 131072
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ffn.hidden = 131'073;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
