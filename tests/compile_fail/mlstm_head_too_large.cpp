// error: chimera: an mLSTM head must have between 1 and 512 channels of keys, and of values
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("XM A", 2), c.mlstm.v = 4 * 513;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
