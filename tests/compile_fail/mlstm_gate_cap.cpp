// error: chimera: mlstm.gate_cap must be above 0, and at most 50
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("XM A", 2), c.mlstm.gate_cap = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
