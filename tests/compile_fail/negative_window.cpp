// error: chimera: attention.window must not be negative
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.window = -1;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
