// error: chimera: heads that titans.rope_base turns must have an even number of channels, at most 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.head_dim = 7, c.titans.rope_base = 10.f;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
