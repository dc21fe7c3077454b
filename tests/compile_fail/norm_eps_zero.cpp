// error: chimera: norm_eps must be positive
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.norm_eps = 0.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
