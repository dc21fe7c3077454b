#include "packed.hpp"

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
/// A past of several chunks in a window that is no multiple of a tile, and a context of one window.
constexpr Config chunked = [] {
  Config c = base;
  c.width = 32, c.context = 1024;
  c.attention = {.heads = 4, .kv_heads = 1, .head_dim = 32, .window = 600};
  return c;
}();
/// A norm before the output matrix.
constexpr Config normed = [] {
  Config c = grouped;
  c.sub_norm = true;
  return c;
}();
/// Biases, norms of queries and keys, channels that turn in halves.
constexpr Config biased = [] {
  Config c = grouped;
  c.attention.qkv_bias = c.attention.output_bias = true;
  return c;
}();
constexpr Config head_normed = [] {
  Config c = grouped;
  c.attention.rope.layout = RopeLayout::halves, c.attention.window = 40;
  c.attention.qkv_bias = c.attention.qk_norm = true;
  return c;
}();
/// An output gate, behind which a norm stands.
constexpr Config output_gated = [] {
  Config c = head_normed;
  c.attention.output_gate = c.sub_norm = true;
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
                   Attention<normed>, Attention<biased>, Attention<head_normed>, Attention<output_gated>) {
  SUBCASE("gradients") { checks::gradients<L>(75); }
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("decoding in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 20}); }
  SUBCASE("decoding token by token") { checks::decodes<L>(150, {}); }
  SUBCASE("decoding together") { checks::decodes_together<L>(); }
  SUBCASE("decoding in place") { checks::decodes_in_place<L>(); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE("decoding with a past of several chunks") {
  using L = Attention<chunked>;
  SUBCASE("token by token behind a piece") { checks::decodes<L>(1000, {250, 1, 1, 1, 1, 1, 1, 1, 250, 1, 480}); }
  SUBCASE("a piece longer than the window") { checks::decodes<L>(720, {1, 700}); }
  SUBCASE("the same bits for one token of a pass and for one of many") {
    on_every_cpu([](const Cpu& q) {
      const Floats w = checks::weights_of<L>(1), x = noise(601 * L::width, 2);
      checks::Decoding<L> alone(q, w, 1), many(q, w, 5);  // up to four tokens the chunks are shared out to threads
      const auto read = [&](std::int64_t first, std::int64_t count) {
        const Floats part = checks::tokens<L>(x, first, count);
        const Floats one = alone.pass({part}), all = many.pass({part, part, part, part, part});
        for (std::int64_t b = 0; b < 5; ++b) CHECK(checks::tokens<L>(all, b * count, count) == one);
      };
      read(0, 599);
      read(599, 1);
      read(600, 1);
    });
  }
}

TEST_CASE("decoding with keys and values of fewer bits") {
  using L = Attention<chunked>;
  checks::decodes<L>(70, {30, 1, 1, 20}, KvFormat::f16, 1e-3);
  checks::decodes<L>(70, {30, 1, 1, 20}, KvFormat::q8_0, 1e-2);
  checks::decodes<L>(70, {30, 1, 1, 20}, KvFormat::q4_0, 0.2);
  checks::decodes<Attention<alibi>>(70, {30, 1, 1, 20}, KvFormat::q8_0, 1e-2);
  checks::decodes_together<Attention<grouped>>(KvFormat::q4_0);
}

TEST_CASE("the ring of a window holds that window and no more") {
  CHECK(Attention<bare>::state(KvFormat::f16, bare.context).ring == 2 * (2 * 13 * 32) * 2);
  CHECK(Attention<bare>::state(KvFormat::q8_0, bare.context).ring == 2 * round_up(2 * 13 * 34, 64));
  CHECK(Attention<grouped>::state(KvFormat::f32, grouped.context).ring == 2 * (2 * 256 * 32) * 4);
}

TEST_CASE("YaRN at a factor of 1 is plain rotary attention") {
  const Cpu q = cpu(detect_isa(), 1);
  const Floats w = checks::weights_of<Attention<plain>>(1), x = noise(90 * 18, 2);
  const Batch batch{.sequences = 1, .length = 90};
  CHECK(checks::forward<Attention<yarn_of_one>>(q, w, batch, x) == checks::forward<Attention<plain>>(q, w, batch, x));
  CHECK(checks::forward<Attention<yarn>>(q, w, batch, x) != checks::forward<Attention<plain>>(q, w, batch, x));
}
