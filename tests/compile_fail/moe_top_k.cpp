// error: chimera: moe.top_k must be between 1 and moe.experts
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.moe.top_k = 9;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
