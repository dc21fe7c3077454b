// error: chimera: mamba2.expand * width must be a multiple of mamba2.head_dim
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.head_dim = 96;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
