// error: chimera: head_dim must be between 1 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.attention.head_dim = 257;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
