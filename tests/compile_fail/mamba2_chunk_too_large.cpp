// error: chimera: mamba2.chunk must be between 1 and 128
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.chunk = 129;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
