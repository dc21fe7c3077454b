// error: chimera: logit_cap must be positive, or 0 for none
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.logit_cap = -1.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
