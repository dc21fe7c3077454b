// error: chimera: dropout must be in [0, 1)
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.dropout = 1.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
