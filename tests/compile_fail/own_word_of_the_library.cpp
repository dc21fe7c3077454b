// error: chimera: a word of a layer of your own must be new, of 1 to 7 letters or digits, and there are at most 4
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("M A", 3, {"M"});
  return c;
}();
constexpr bool checked = Check<bad>::ok;
