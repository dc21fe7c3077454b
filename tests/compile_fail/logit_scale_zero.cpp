// error: chimera: logit_scale must be positive
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.logit_scale = 0.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
