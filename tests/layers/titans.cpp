#include "packed.hpp"

#include <chimera/layers/titans.hpp>

#include <algorithm>

using namespace chimera;

namespace {

constexpr Config of(int width, TitansConfig titans) {
  return {.vocab = 1, .width = width, .layers = pattern("TM"), .titans = titans, .ffn = {.hidden = 1}};
}

constexpr Config odd = of(15, {.heads = 3, .head_dim = 7, .persistent = 3, .segment = 9, .memory_heads = 3});
constexpr Config deep = of(12, {.heads = 2,
                                .persistent = 1,
                                .segment = 8,
                                .memory_heads = 2,
                                .memory_depth = 2,
                                .memory_hidden = 7,
                                .rope_base = 10.f});
/// Every token reads what the one before it left; nothing persistent.
constexpr Config single = of(6, {.heads = 1, .persistent = 0, .segment = 1});
constexpr Config usual = of(64, {.heads = 2, .segment = 16});

/// Gates that are the same for every token, and a memory of the size that it starts with.
template <class L>
Floats with_gates(float forget, float momentum, float step) {
  Floats w = checks::weights_of<L>(1);
  for (const std::size_t p : {L::memory, L::memory_out})
    for (std::int64_t i = 0; i < L::params[p].size(); ++i) w[offsets<L>[p] + static_cast<std::size_t>(i)] *= 0.25f;
  std::fill_n(w.data() + offsets<L>[L::gates], L::params[L::gates].size(), 0.f);
  w[offsets<L>[L::forget_bias]] = forget, w[offsets<L>[L::momentum_bias]] = momentum,
  w[offsets<L>[L::step_bias]] = step;
  return w;
}

Floats head(const Floats& y, std::int64_t n) { return Floats(y.begin(), y.begin() + n); }
Floats tail(const Floats& y, std::int64_t from) { return Floats(y.begin() + from, y.end()); }

}  // namespace

TEST_CASE_TEMPLATE("Titans", L, Titans<odd>, Titans<deep>, Titans<single>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE_TEMPLATE("gradients of Titans", L, Titans<odd>, Titans<deep>, Titans<single>) { checks::gradients<L>(35); }

TEST_CASE_TEMPLATE("decoding with Titans", L, Titans<odd>, Titans<deep>, Titans<single>) {
  SUBCASE("token by token") { checks::decodes<L>(60, {}); }
  SUBCASE("in pieces") { checks::decodes<L>(150, {40, 1, 1, 70, 3, 2, 20}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}

TEST_CASE("queries and keys of Titans turn by their place in the segment") {
  constexpr TitansShape s = Titans<deep>::shape;
  constexpr std::int64_t D = s.head_dim, n = 7, first = 2;
  const Cpu q = cpu(detect_isa(), 1);
  RopeTurns turns;
  turns.factor = rope_frequencies({.base = 10.f}, D, 64, 64, turns.inverse.data());
  // Tokens 5 ... 7 of one segment and 0 ... 3 of the next.
  TitansSegment segments[2]{};
  segments[0].first = first, segments[0].count = 3, segments[0].before = 5;
  segments[1].first = first + 3, segments[1].count = 4;
  const TitansStep step{segments, 2, first, n, 0};
  Floats queries = noise((first + n) * s.attended(), 1), kept = noise((first + n) * s.attention_row(), 2);
  const Floats q0 = queries, kept0 = kept;
  titans_turn(q, s, turns, step, 1.f, queries.data(), kept.data());
  const auto turned = [&](const Floats& x, std::int64_t at, std::int64_t c, std::int64_t position) {
    const std::int64_t half = D / 2, i = c % half;
    const double angle = static_cast<double>(position) * std::pow(10., -2. * static_cast<double>(i) / D);
    const double a = x[static_cast<std::size_t>(at + i)], b = x[static_cast<std::size_t>(at + half + i)];
    return c < half ? a * std::cos(angle) - b * std::sin(angle) : b * std::cos(angle) + a * std::sin(angle);
  };
  for (std::int64_t r = 0; r < first + n; ++r) {
    const std::int64_t position = r < first ? 0 : r < first + 3 ? r - first + 5 : r - first - 3;
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t c = 0; c < D; ++c) {
        const std::int64_t at = r * s.attended() + h * D, of_h = r * s.attention_row() + h * D,
                           of_x = of_h + s.key_value(), value = of_h + s.attended();
        CHECK(queries[static_cast<std::size_t>(at + c)] == doctest::Approx(turned(q0, at, c, position)).epsilon(1e-5));
        CHECK(kept[static_cast<std::size_t>(of_h + c)] ==
              doctest::Approx(turned(kept0, of_h, c, position)).epsilon(1e-5));
        CHECK(kept[static_cast<std::size_t>(of_x + c)] ==
              doctest::Approx(turned(kept0, of_x, c, position)).epsilon(1e-5));
        CHECK(kept[static_cast<std::size_t>(value + c)] == kept0[static_cast<std::size_t>(value + c)]);
      }
  }
  titans_turn(q, s, turns, step, -1.f, queries.data(), kept.data());
  CHECK(difference(queries, q0) <= 1e-6);
  CHECK(difference(kept, kept0) <= 1e-6);
}

TEST_CASE("what decoding with Titans carries is the same for any context") {
  using L = Titans<usual>;
  for (const std::int64_t context : {1'024, 32'768, 1'048'576}) {
    // M and S; of 16 tokens k and e, and keys and values of h and x; factors; keys and values of 16 vectors.
    CHECK(L::state(KvFormat::f16, context).whole == 4 * (2 * 64 * 64 + 16 * 2 * 64 + 16 * 4 * 64 + 48 + 16 * 2 * 64));
    CHECK(L::state(KvFormat::f16, context).ring == 0);
  }
}

TEST_CASE_TEMPLATE("what Titans gives follows from what was there before", L, Titans<odd>, Titans<deep>) {
  const Cpu q = cpu(detect_isa(), 2);
  const std::int64_t segment = L::shape.segment, T = 2 * segment + 3;
  const Floats w = checks::weights_of<L>(1), x = noise(T * L::width, 2),
               y = checks::forward<L>(q, w, {.sequences = 1, .length = T}, x);
  // The last token of a segment: what comes before it keeps its bits, what comes behind it does not.
  Floats moved = x;
  for (std::int64_t i = 0; i < L::width; ++i) moved[static_cast<std::size_t>((segment - 1) * L::width + i)] += 1.f;
  const Floats other = checks::forward<L>(q, w, {.sequences = 1, .length = T}, moved);
  CHECK(head(other, (segment - 1) * L::width) == head(y, (segment - 1) * L::width));
  CHECK(tail(other, segment * L::width) != tail(y, segment * L::width));
  for (const std::int64_t length : {std::int64_t{1}, segment - 1, segment, segment + 1}) {
    const std::int64_t n = length * L::width;
    CHECK(difference(checks::forward<L>(q, w, {.sequences = 1, .length = length}, head(x, n)), head(y, n)) <= 1e-6);
  }
}

TEST_CASE_TEMPLATE("a memory of Titans that forgets all and learns nothing is empty behind the first segment", L,
                   Titans<odd>, Titans<deep>) {
  const Cpu q = cpu(detect_isa(), 2);
  const std::int64_t first = L::shape.segment * L::width;
  const Batch batch{.sequences = 1, .length = 3 * L::shape.segment};
  Floats w = with_gates<L>(50.f, 0.f, -200.f), other = w;
  for (std::int64_t i = 0; i < L::params[L::memory].size(); ++i)
    other[offsets<L>[L::memory] + static_cast<std::size_t>(i)] *= 2.f;
  const Floats x = noise(batch.tokens() * L::width, 2), y = checks::forward<L>(q, w, batch, x),
               z = checks::forward<L>(q, other, batch, x);
  CHECK(head(y, first) != head(z, first));
  CHECK(tail(y, first) == tail(z, first));
}

TEST_CASE_TEMPLATE("Titans stays finite", L, Titans<odd>, Titans<deep>) {
  const Cpu q = cpu(detect_isa(), 2);
  const Batch batch{.sequences = 1, .length = 40};
  const Floats x = noise(40 * L::width, 2), dy = noise(40 * L::width, 3), same = filled(40 * L::width, 0.7f);
  const auto finite = [&](const Floats& w, const Floats& in) {
    const Floats all = checks::run<L>(q, w, batch, in, dy).all();
    return std::all_of(all.begin(), all.end(), [](float v) { return std::isfinite(v); });
  };
  for (const float forget : {-50.f, 50.f})
    for (const float momentum : {-50.f, 50.f})
      for (const float step : {-50.f, 50.f}) CHECK(finite(with_gates<L>(forget, momentum, step), x));
  CHECK(finite(checks::weights_of<L>(1), same));  // all keys are equal
}

TEST_CASE("gradients of Titans stop at every so many segments") {
  // Of tokens 9 ... 17 of 27: with one segment each, what they give to later ones does not count.
  static constexpr Config cut = [] {
    Config c = odd;
    c.titans.tbptt = 1;
    return c;
  }();
  using L = Titans<cut>;
  const Cpu q = cpu(detect_isa(), 2);
  const Batch batch{.sequences = 1, .length = 27};
  const Floats w = checks::weights_of<L>(1), x = noise(27 * L::width, 2);
  Floats dy = zeros(27 * L::width), later = dy;
  for (std::int64_t i = 0; i < 18 * L::width; ++i) dy[static_cast<std::size_t>(i)] = 1.f;
  for (float& v : later) v = 1.f;
  const Floats a = checks::run<L>(q, w, batch, x, dy).dx, b = checks::run<L>(q, w, batch, x, later).dx,
               all = checks::run<Titans<odd>>(q, w, batch, x, later).dx;
  CHECK(head(a, 18 * L::width) == head(b, 18 * L::width));
  CHECK(head(all, 18 * L::width) != head(b, 18 * L::width));
  CHECK(tail(all, 18 * L::width) == tail(b, 18 * L::width));
}
