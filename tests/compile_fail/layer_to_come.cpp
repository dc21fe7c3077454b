// error: chimera: the pattern names a layer that this version does not have; it has A M R
#include "good.hpp"

#include <chimera/model/language_model.hpp>

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD A", 2);
  return c;
}();
constexpr auto count = LanguageModel<bad>::parameters;
