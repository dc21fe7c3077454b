// error: chimera: width must be at least 1
#include "good.hpp"

#include <chimera/model/language_model.hpp>

inline constexpr Config bad = [] {
  Config c = good;
  c.width = 0;
  return c;
}();
constexpr auto count = LanguageModel<bad>::parameters;
