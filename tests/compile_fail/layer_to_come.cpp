// error: chimera: the pattern has a word with no layer; the library has A, M and R, own_mixers<C> the host's
#include "good.hpp"

#include <chimera/model/language_model.hpp>

inline constexpr Config bad = [] {
  Config c = good;
  c.layers = pattern("GD A", 2);
  return c;
}();
constexpr auto count = LanguageModel<bad>::parameters;
