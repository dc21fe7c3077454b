// error: chimera: moe.experts must be between 1 and 1024
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.moe.experts = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
