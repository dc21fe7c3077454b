// error: chimera: attention.kv_heads must divide attention.heads
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.kv_heads = 3;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
