// error: chimera: vocab must be at least 1
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.vocab = 0;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
