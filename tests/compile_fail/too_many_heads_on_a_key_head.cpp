// error: chimera: too many query heads share a key head
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.context = 262'144, c.attention.heads = 128, c.attention.kv_heads = 1, c.attention.head_dim = 64;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
