// error: chimera: gated_deltanet.key_heads, or attention.heads for it, must be at least 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.attention.heads = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
