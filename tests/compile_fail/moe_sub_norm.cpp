// error: chimera: experts have no sub_norm
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.sub_norm = true;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
