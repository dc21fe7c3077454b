// error: chimera: mlstm.heads must divide mlstm.qk, which is width / 2 where it is 0
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("XM A", 2), c.mlstm.qk = 66;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
