// error: chimera: the sum of the weights overflows; width, vocab or ffn.hidden is too large
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.ffn.hidden = 2'147'483'647, c.width = 1'048'576, c.attention.head_dim = 32;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
