#include "checks.hpp"

#include <chimera/layers/swiglu.hpp>

using namespace chimera;

namespace {

constexpr Config odd{.vocab = 1, .width = 10, .layers = pattern("A"), .ffn = {.hidden = 13}};
using L = SwiGlu<odd>;

}  // namespace

TEST_CASE("SwiGLU as a layer") {
  SUBCASE("gradients") { checks::gradients<L>(33); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("token by token") { checks::pieces<L>(20, {}); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}
