// error: chimera: a word of the pattern has no layer; own_mixers<C> has the host's, the library has A M R GD XM SK TM
#include "good.hpp"

#include <chimera/model/language_model.hpp>

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("H M", 2, {"H"});
  return c;
}();
constexpr auto count = LanguageModel<bad>::parameters;
