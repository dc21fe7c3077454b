// error: chimera: embedding_rank must be less than width, or 0 for an embedding of the whole width
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = good;
  c.embedding_rank = c.width;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
