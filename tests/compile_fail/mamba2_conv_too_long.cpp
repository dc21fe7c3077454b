// error: chimera: mamba2.conv must be between 1 and 8
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.conv = 9;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
