// error: chimera: width must be a multiple of attention.heads, or attention.head_dim must be given
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention = {.heads = 3};
  return c;
}();
constexpr bool checked = Check<bad>::ok;
