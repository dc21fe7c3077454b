#include "checks.hpp"

#include <chimera/layers/swiglu.hpp>

using namespace chimera;

namespace {

constexpr Config odd{.vocab = 1, .width = 10, .layers = pattern("A"), .ffn = {.hidden = 13}};
constexpr Config normed = [] {
  Config c = odd;
  c.sub_norm = true;
  return c;
}();

}  // namespace

TEST_CASE_TEMPLATE("SwiGLU as a layer", L, SwiGlu<odd>, SwiGlu<normed>) {
  SUBCASE("gradients") { checks::gradients<L>(33); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("token by token") { checks::pieces<L>(20, {}); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}
