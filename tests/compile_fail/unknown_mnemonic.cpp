// error: chimera: the layer pattern has a word that names no layer; words are A M R GD XM SK TM
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("M Q A", 3);
  return c;
}();
constexpr bool checked = Check<bad>::ok;
