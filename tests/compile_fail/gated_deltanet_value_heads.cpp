// error: chimera: gated_deltanet.value_heads must be a multiple of gated_deltanet.key_heads
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.gated_deltanet.value_heads = 6;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
