#include "packed.hpp"

#include <chimera/layers/mlstm.hpp>

using namespace chimera;

namespace {

constexpr Config of(int width, MlstmConfig mlstm) {
  return {.vocab = 1, .width = width, .layers = pattern("XM"), .mlstm = mlstm, .ffn = {.hidden = 1}};
}

constexpr Config odd = of(15, {.heads = 3, .qk = 15, .v = 21, .chunk = 7, .norm_eps = 1e-3f});
constexpr Config single = of(6, {.heads = 1, .chunk = 1, .gate_cap = 3.f, .norm_eps = 1e-3f});
/// Heads of whole vectors.
constexpr Config usual = of(64, {.heads = 2, .chunk = 16, .norm_eps = 1e-3f});
constexpr Config one_chunk = of(12, {.heads = 2, .qk = 4, .v = 6, .chunk = 128});

/// Input gates that are nearly closed: |n . q| stays below e^-m, and no difference goes over the corner between them.
template <class L>
Floats below_the_corner() {
  Floats w = checks::weights_of<L>(1);
  for (std::int64_t h = 0; h < L::heads; ++h) w[offsets<L>[L::input_gate_bias] + static_cast<std::size_t>(h)] -= 4.f;
  return w;
}

}  // namespace

TEST_CASE_TEMPLATE("mLSTM", L, Mlstm<odd>, Mlstm<single>, Mlstm<usual>, Mlstm<one_chunk>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE("what decoding carries of a sequence is the same for any context") {
  using L = Mlstm<usual>;
  for (const std::int64_t context : {1'024, 32'768, 1'048'576}) {
    CHECK(L::state(KvFormat::f16, context).whole == 2 * 4 * (16 * 32 + 32));  // C, n and m in whole cache lines
    CHECK(L::state(KvFormat::f16, context).ring == 0);
  }
}

TEST_CASE_TEMPLATE("gradients of mLSTM", L, Mlstm<odd>, Mlstm<single>) {
  checks::gradients<L>(75, below_the_corner<L>());
}

TEST_CASE_TEMPLATE("decoding with mLSTM", L, Mlstm<odd>, Mlstm<single>, Mlstm<usual>, Mlstm<one_chunk>) {
  SUBCASE("token by token") { checks::decodes<L>(60, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 2, 20}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}
