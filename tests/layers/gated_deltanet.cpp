#include "packed.hpp"

#include <chimera/layers/gated_deltanet.hpp>

using namespace chimera;

namespace {

constexpr Config of(int width, GatedDeltaNetConfig gated_deltanet) {
  return {.vocab = 1,
          .width = width,
          .layers = pattern("GD"),
          .gated_deltanet = gated_deltanet,
          .ffn = {.hidden = 1},
          .norm_eps = 1e-3f};
}

constexpr Config grouped =
    of(15, {.key_heads = 2, .value_heads = 6, .key_dim = 5, .value_dim = 9, .conv = 3, .chunk = 7});
constexpr Config single = of(6, {.key_heads = 1, .key_dim = 4, .value_dim = 5, .conv = 1, .chunk = 1});
/// More taps than some pieces have tokens, and heads of whole vectors.
constexpr Config usual = of(32, {.key_heads = 2, .key_dim = 16, .value_dim = 64, .conv = 8, .chunk = 16});
constexpr Config negative = of(9, {.key_heads = 3, .key_dim = 8, .conv = 4, .chunk = 64, .negative_eigenvalues = true});

constexpr Config even =
    of(15, {.key_heads = 2, .value_heads = 4, .key_dim = 20, .value_dim = 12, .conv = 3, .chunk = 7, .eps = 0.3f});
constexpr Config negative_even = of(9, {.key_heads = 1, .key_dim = 24, .eps = 0.3f, .negative_eigenvalues = true});

}  // namespace

TEST_CASE_TEMPLATE("Gated DeltaNet", L, GatedDeltaNet<grouped>, GatedDeltaNet<single>, GatedDeltaNet<negative>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

// Of these the norms are not steep: differences of f32 see their slope.
TEST_CASE_TEMPLATE("gradients of Gated DeltaNet", L, GatedDeltaNet<even>, GatedDeltaNet<negative_even>) {
  checks::gradients<L>(75);
}

TEST_CASE("what a sequence carries of Gated DeltaNet does not depend on the context") {
  using L = GatedDeltaNet<grouped>;
  CHECK(L::state(KvFormat::f16, 1).whole == L::state(KvFormat::f32, 1 << 20).whole);
  CHECK(L::state(KvFormat::f16, 1 << 20).ring == 0);
}

TEST_CASE_TEMPLATE("decoding with Gated DeltaNet", L, GatedDeltaNet<grouped>, GatedDeltaNet<single>,
                   GatedDeltaNet<usual>, GatedDeltaNet<negative>) {
  SUBCASE("token by token") { checks::decodes<L>(60, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 2, 20}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}
