// error: chimera: ternary.deep_zero must be in [0, 0.5]
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ternary.deep_zero = 0.6f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
