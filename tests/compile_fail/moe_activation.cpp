// error: chimera: experts are SwiGLU without biases
#include "good.hpp"

inline constexpr Config bad = [] {
  Config c = with_experts;
  c.ffn.activation = Activation::geglu;
  return c;
}();
constexpr bool checked = Check<bad>::ok;
