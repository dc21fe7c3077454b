// error: chimera: mamba2.state and mamba2.head_dim must be between 1 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.mamba2.state = 257;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
