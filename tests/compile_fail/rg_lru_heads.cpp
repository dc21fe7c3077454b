// error: chimera: rg_lru.heads must divide the width of the recurrence
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.rg_lru.heads = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
