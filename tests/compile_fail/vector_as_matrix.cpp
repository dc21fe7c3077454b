// error: MatrixParam<
#include "good.hpp"

#include <chimera/layers/swiglu.hpp>

inline constexpr Config normed = [] {
  Config c = good;
  c.sub_norm = true;
  return c;
}();
using L = SwiGlu<normed>;
Matrix norm(Weights<L> w) { return w.matrix(L::sub_norm); }
