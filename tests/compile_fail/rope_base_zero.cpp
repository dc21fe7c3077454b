// error: chimera: rope.base, rope.factor and LongRoPE's factors must be above 0
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.rope.base = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
