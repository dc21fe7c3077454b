// error: chimera: gated_deltanet.key_dim and gated_deltanet.value_dim must be between 1 and 256
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD");
  c.gated_deltanet.value_dim = 257;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
