// error: chimera: mlstm.chunk must be between 1 and 128
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("XM A", 2), c.mlstm.chunk = 129;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
