// error: chimera: rope.dims must be even and at most head_dim
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.rope.dims = 31;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
