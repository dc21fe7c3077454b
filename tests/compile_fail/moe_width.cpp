// error: chimera: width must be a multiple of 16 for blocks of experts
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.width = 40;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
