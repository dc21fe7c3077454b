#include "packed.hpp"

#include <chimera/layers/rg_lru.hpp>

using namespace chimera;

namespace {

constexpr Config of(RgLruConfig rg_lru) {
  return {.vocab = 1, .width = 11, .layers = pattern("R"), .rg_lru = rg_lru, .ffn = {.hidden = 1}};
}

constexpr Config wide = of({.inner = 20, .heads = 4, .conv = 4, .bias = true});
constexpr Config narrow = of({.heads = 1, .conv = 2});

}  // namespace

TEST_CASE_TEMPLATE("RG-LRU", L, RgLru<wide>, RgLru<narrow>) {
  SUBCASE("gradients") { checks::gradients<L>(75); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE_TEMPLATE("decoding with RG-LRU", L, RgLru<wide>, RgLru<narrow>) {
  SUBCASE("token by token") { checks::decodes<L>(60, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 2, 20}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}

TEST_CASE("biases that a config leaves out take no weights") {
  CHECK(RgLru<narrow>::params[RgLru<narrow>::gate_bias].size() == 0);
  CHECK(RgLru<wide>::params[RgLru<wide>::gate_bias].size() == 20);
}
