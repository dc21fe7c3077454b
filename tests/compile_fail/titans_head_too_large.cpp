// error: chimera: a head of titans must have between 1 and 512 channels
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("TM A", 2), c.titans.head_dim = 513;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
