// error: chimera: mlstm.norm_eps must be positive
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("XM A", 2), c.mlstm.norm_eps = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
