// error: chimera: attention.rope.kept must not be negative
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.rope.kept = -1;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
