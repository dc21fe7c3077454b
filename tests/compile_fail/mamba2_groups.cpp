// error: chimera: mamba2.groups must divide the number of Mamba-2 heads
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.groups = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
