#include "checks.hpp"

#include <chimera/layers/attention.hpp>

using namespace chimera;

namespace {

constexpr Config base{.vocab = 1, .width = 18, .context = 256, .layers = pattern("A"), .ffn = {.hidden = 1}};

/// Groups of three, a head_dim of no vector of which four channels turn, as neighbours.
constexpr Config grouped = [] {
  Config c = base;
  c.attention = {.heads = 6, .kv_heads = 2, .head_dim = 5, .rope = {.dims = 4}};
  return c;
}();
/// A window smaller than a tile, ALiBi on three heads.
constexpr Config alibi = [] {
  Config c = base;
  c.attention = {.heads = 3, .kv_heads = 1, .head_dim = 8, .window = 9, .position = Position::alibi};
  return c;
}();
/// A window larger than a tile, YaRN in halves, a scale of its own.
constexpr Config yarn = [] {
  Config c = base;
  c.attention = {.heads = 2,
                 .window = 70,
                 .scale = 0.2f,
                 .rope = {.dims = 8,
                          .layout = RopeLayout::halves,
                          .scaling = RopeScaling::yarn,
                          .factor = 4.f,
                          .original_context = 64}};
  return c;
}();
/// The same, once with YaRN at a factor of 1 and once without.
constexpr Config yarn_of_one = [] {
  Config c = yarn;
  c.attention.rope.factor = 1.f;
  return c;
}();
constexpr Config plain = [] {
  Config c = yarn;
  c.attention.rope.scaling = RopeScaling::none;
  return c;
}();
/// A norm before the output matrix.
constexpr Config normed = [] {
  Config c = grouped;
  c.sub_norm = true;
  return c;
}();
/// A ring of exactly one window, and the same window in a longer context.
constexpr Config bare = [] {
  Config c = base;
  c.attention = {.heads = 2, .window = 13, .position = Position::none};
  return c;
}();

}  // namespace

TEST_CASE_TEMPLATE("attention", L, Attention<grouped>, Attention<alibi>, Attention<yarn>, Attention<bare>,
                   Attention<normed>) {
  SUBCASE("gradients") { checks::gradients<L>(75); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("a past in pieces") { checks::pieces<L>(150, {40, 1, 1, 70, 3, 20}); }
  SUBCASE("a past token by token") { checks::pieces<L>(150, {}); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE("the ring of a window holds that window and no more") {
  CHECK(Attention<bare>::slots == 13);
  CHECK(Attention<grouped>::slots == 256);
  CHECK(Attention<bare>::state_floats == floats_of({13 * 18, 13 * 18}));
}

TEST_CASE("YaRN at a factor of 1 is plain rotary attention") {
  const Cpu q = cpu(detect_isa(), 1);
  const Floats w = checks::weights_of<Attention<plain>>(1), x = noise(90 * 18, 2);
  const Batch batch{.sequences = 1, .length = 90};
  CHECK(checks::forward<Attention<yarn_of_one>>(q, w, batch, x) == checks::forward<Attention<plain>>(q, w, batch, x));
  CHECK(checks::forward<Attention<yarn>>(q, w, batch, x) != checks::forward<Attention<plain>>(q, w, batch, x));
}
