#include "packed.hpp"

#include <chimera/layers/span_knot.hpp>

using namespace chimera;

namespace {

constexpr Config of(int width, SpanKnotConfig span_knot) {
  return {.vocab = 1,
          .width = width,
          .context = 256,
          .layers = pattern("SK"),
          .attention = {.heads = 2},
          .span_knot = span_knot,
          .ffn = {.hidden = 1}};
}

constexpr Config odd = of(15, {.heads = 3, .head_dim = 10, .span = 7});
constexpr Config usual = of(64, {.span = 16, .norm_weights = false});
constexpr Config no_window = of(12, {.span = 5, .window = 0});
constexpr Config wide = of(12, {.span = 100, .window = 2});
/// The two newest knots out of the window.
constexpr Config forgetful = of(16, {.span = 4, .max_knots = 2});
/// The three that the token looks for most.
constexpr Config choosing = of(12, {.span = 4, .top_knots = 3});
constexpr Config tiny = [] {
  Config c = of(256, {.norm_weights = false});
  c.attention.heads = 4;
  return c;
}();

}  // namespace

static_assert([] {
  std::int64_t n = 0;
  for (const Tensor& t : SpanKnot<tiny>::params) n += t.size();
  return n == 5 * 256 * 256 + 256 + 16 * 4 + 4 && n == 328'004;
}());

TEST_CASE_TEMPLATE("span knots", L, SpanKnot<odd>, SpanKnot<usual>, SpanKnot<no_window>, SpanKnot<choosing>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

// Where the choice of knots changes, what is given jumps: the kernel's test compares these with closer differences.
TEST_CASE_TEMPLATE("gradients of span knots", L, SpanKnot<odd>, SpanKnot<usual>, SpanKnot<no_window>) {
  checks::gradients<L>(75);
}

TEST_CASE_TEMPLATE("decoding with span knots", L, SpanKnot<odd>, SpanKnot<usual>, SpanKnot<no_window>, SpanKnot<wide>,
                   SpanKnot<choosing>) {
  SUBCASE("token by token") { checks::decodes<L>(150, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(250, {40, 1, 1, 90, 3, 2, 100}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}

TEST_CASE("decoding sees the newest knots alone where it keeps no more") {
  using L = SpanKnot<forgetful>;
  checks::decodes<L>(16, {5, 1, 1, 9});  // two knots and two spans: none has left
  // What has left is as if it had never been.
  on_every_cpu([](const Cpu& q) {
    const Floats w = checks::weights_of<L>(1);
    Floats x = noise(40 * L::width, 2), other = x;
    for (std::int64_t i = 0; i < 20 * L::width; ++i) other[static_cast<std::size_t>(i)] += 1.f;
    const auto end = [&](const Floats& tokens) {
      return checks::tokens<L>(checks::decoded<L>(q, w, tokens, {33}), 36, 4);
    };
    // Token 36 is of span 9: it sees knots 6 and 7, and spans 8 and 9.
    CHECK(end(x) == end(other));
    for (std::int64_t i = 24 * L::width; i < 25 * L::width; ++i) other[static_cast<std::size_t>(i)] += 1.f;
    CHECK(end(x) != end(other));
  });
  CHECK(L::state(KvFormat::f32, 1 << 20).ring == L::state(KvFormat::f32, 1 << 10).ring);
}

TEST_CASE("decoding with keys, values and knots of fewer bits") {
  using L = SpanKnot<usual>;
  checks::decodes<L>(150, {40, 1, 1, 70}, KvFormat::f16, 2e-3);
  checks::decodes<L>(150, {40, 1, 1, 70}, KvFormat::q8_0, 2e-2);
  checks::decodes<L>(150, {40, 1, 1, 70}, KvFormat::q4_0, 0.3);
}

TEST_CASE("a piece is, to the bit nearly, what its tokens are one by one in any format") {
  using L = SpanKnot<odd>;
  const Cpu q = cpu(detect_isa(), 1);
  const Floats w = checks::weights_of<L>(1), x = noise(200 * L::width, 2);
  for (const KvFormat kv : {KvFormat::f16, KvFormat::q8_0})
    CHECK(difference(checks::decoded<L>(q, w, x, {120, 30}, kv), checks::decoded<L>(q, w, x, {}, kv)) <= 1e-4);
}

TEST_CASE("gates at their limits give finite numbers") {
  using L = SpanKnot<odd>;
  const Cpu q = cpu(detect_isa(), 2);
  Floats w = checks::weights_of<L>(1);
  const std::int64_t gates = 3 * L::inner * L::width;
  for (std::int64_t i = gates; i < 4 * L::inner * L::width; ++i) w[static_cast<std::size_t>(i)] = i % 2 ? 50.f : -50.f;
  const Floats x = noise(60 * L::width, 2);
  const Floats all = checks::run<L>(q, w, {.sequences = 1, .length = 60}, x, noise(60 * L::width, 3)).all();
  CHECK(std::all_of(all.begin(), all.end(), [](float v) { return std::isfinite(v); }));
}

TEST_CASE("a sequence goes on from a copy of its rings") {
  using L = SpanKnot<odd>;
  static_assert(L::state(KvFormat::f16, 64).whole == L::state(KvFormat::f16, 256).whole);
  const std::int64_t bytes = L::state(KvFormat::f16, 64).ring;
  for (const std::int64_t tokens : {1, 9, 40, 64}) {
    const Floats from = noise(bytes / 4, 1);
    Floats to = zeros(bytes / 4);
    L::copy_ring(KvFormat::f16, 64, tokens, reinterpret_cast<const std::byte*>(from.data()),
                 reinterpret_cast<std::byte*>(to.data()));
    const std::int64_t copied = std::count_if(to.begin(), to.end(), [](float v) { return v != 0; });
    // Keys and values of up to 14 tokens and of whole spans, in rows of 32 halves.
    CHECK(copied == 3 * 2 * 16 * (std::min<std::int64_t>(tokens, 14) + tokens / 7));
  }
}
