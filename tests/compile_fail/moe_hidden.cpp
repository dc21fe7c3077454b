// error: chimera: moe.expert_hidden, or ffn.hidden / 4, must be a multiple of 16
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.moe.expert_hidden = 24;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
