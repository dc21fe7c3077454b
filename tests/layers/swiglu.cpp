#include "packed.hpp"

#include <chimera/layers/swiglu.hpp>

using namespace chimera;

namespace {

constexpr Config odd{.vocab = 1, .width = 10, .layers = pattern("A"), .ffn = {.hidden = 13}};
constexpr Config normed = [] {
  Config c = odd;
  c.sub_norm = true;
  return c;
}();

constexpr Config gelu = [] {
  Config c = odd;
  c.ffn.activation = Activation::geglu, c.ffn.bias = true;
  return c;
}();
constexpr Config squared = [] {
  Config c = normed;
  c.ffn.activation = Activation::relu2_gate;
  return c;
}();
constexpr Config plain = [] {
  Config c = odd;
  c.ffn.activation = Activation::relu2, c.ffn.bias = true;
  return c;
}();

}  // namespace

TEST_CASE_TEMPLATE("SwiGLU as a layer", L, SwiGlu<odd>, SwiGlu<normed>, SwiGlu<gelu>, SwiGlu<squared>, SwiGlu<plain>) {
  SUBCASE("gradients") { checks::gradients<L>(33); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE_TEMPLATE("decoding with SwiGLU", L, SwiGlu<odd>, SwiGlu<normed>, SwiGlu<gelu>, SwiGlu<squared>,
                   SwiGlu<plain>) {
  SUBCASE("in pieces and token by token") { checks::decodes<L>(50, {30, 1, 7}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}
