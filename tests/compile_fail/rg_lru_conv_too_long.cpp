// error: chimera: rg_lru.conv must be between 1 and 8
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.rg_lru.conv = 9;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
