// error: chimera: ternary.most_zeros must be in [0, 1]
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ternary.most_zeros = -1.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
