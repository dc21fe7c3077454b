#include "packed.hpp"

#include <chimera/layers/mamba2.hpp>

using namespace chimera;

namespace {

constexpr Config of(int width, Mamba2Config mamba2) {
  return {.vocab = 1, .width = width, .layers = pattern("M"), .mamba2 = mamba2, .ffn = {.hidden = 1}};
}

constexpr Config grouped = of(15, {.head_dim = 5, .state = 9, .groups = 2, .conv = 3, .chunk = 7});
constexpr Config single = of(6, {.head_dim = 4, .state = 5, .conv = 1, .chunk = 1});
/// More taps than some pieces have tokens, and heads of whole vectors.
constexpr Config usual = of(32, {.head_dim = 16, .state = 32, .conv = 8, .chunk = 16});
constexpr Config limited = of(9, {.head_dim = 2, .state = 6, .conv = 4, .chunk = 64, .dt_min = 0.3f, .dt_max = 1.1f});

}  // namespace

TEST_CASE_TEMPLATE("Mamba-2", L, Mamba2<grouped>, Mamba2<single>, Mamba2<limited>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

// Not the limited one: its steps have corners.
TEST_CASE_TEMPLATE("gradients of Mamba-2", L, Mamba2<grouped>, Mamba2<single>) { checks::gradients<L>(75); }

TEST_CASE_TEMPLATE("decoding with Mamba-2", L, Mamba2<grouped>, Mamba2<single>, Mamba2<usual>, Mamba2<limited>) {
  SUBCASE("token by token") { checks::decodes<L>(60, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 2, 20}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}
