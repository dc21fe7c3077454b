// error: chimera: a model has at most 256 layers
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("M A", 257);
  return c;
}();
constexpr bool checked = Check<bad>::ok;
