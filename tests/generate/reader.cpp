#include <doctest/doctest.h>

#include <chimera/generate/reader.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/language_model.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

using namespace chimera;

namespace {

constexpr Config hybrid{.vocab = 80,
                        .width = 32,
                        .context = 100,
                        .layers = pattern("M A R GD XM SK TM"),
                        .attention = {.heads = 4, .kv_heads = 2, .window = 12},
                        .mamba2 = {.head_dim = 16, .state = 8, .chunk = 8},
                        .span_knot = {.span = 4},
                        .titans = {.segment = 16},
                        .ffn = {.hidden = 48}};
constexpr AnyModel hybrid_model = inference_model<hybrid>("hybrid");
constexpr std::size_t vocab = 80;

PackedModel packed(const Cpu& q) {
  std::vector<float> weights(hybrid_model.arena_floats);
  hybrid_model.initialize(weights.data(), 7);
  return *PackedModel::create(q, hybrid_model, weights.data());
}

std::vector<std::int32_t> some_tokens(std::int64_t count, std::int32_t first) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < count; ++i) tokens.push_back((first + 7 * i * i) % static_cast<std::int32_t>(vocab));
  return tokens;
}

std::vector<float> copy(std::span<const float> logits) { return {logits.begin(), logits.end()}; }

/// A turn, and what it is answered.
struct Asked {
  std::vector<std::int32_t> tokens, targets;
  std::vector<std::int64_t> rows;
  std::vector<float> logits, log_probabilities;

  Asked(std::int64_t count, std::int32_t first, std::vector<std::int64_t> of)
      : tokens(some_tokens(count, first)),
        targets(some_tokens(count, first + 3)),
        rows(std::move(of)),
        logits(rows.size() * vocab),
        log_probabilities(tokens.size(), 1.f) {}
  Turn turn(Session& session) {
    return {.sequence = &session,
            .tokens = tokens,
            .rows = rows,
            .logits = logits.data(),
            .targets = targets,
            .log_probabilities = log_probabilities.data()};
  }
};

double natural_logarithm_of_probability(std::span<const float> logits, std::int32_t token) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) - std::log(sum);
}

}  // namespace

TEST_CASE("logits of any rows are those that are found token by token, and probabilities are theirs") {
  const Cpu q = *Cpu::create(2);
  const PackedModel model = packed(q);
  Reader reader = *Reader::create(q, model, 64);
  Session session = *Session::create(reader, {.kv = KvFormat::f32}),
          single = *Session::create(q, model, {.kv = KvFormat::f32});
  Asked asked(90, 5, {});  // more than one pass, and more probabilities than logits are held for
  for (std::int64_t t = 0; t < 90; ++t) asked.rows.push_back(t);
  asked.logits.resize(90 * vocab);
  asked.targets[4] = -1;
  const Turn turn = asked.turn(session);
  REQUIRE(reader.read({&turn, 1}));
  CHECK(session.position() == 90);
  for (std::size_t t = 0; t < 90; ++t) {
    const std::span<const float> row = std::span(asked.logits).subspan(t * vocab, vocab);
    const auto expected = single.step(asked.tokens[t]);
    REQUIRE(expected);
    for (std::size_t i = 0; i < vocab; ++i) CHECK(std::abs(row[i] - (*expected)[i]) < 1e-4f);
    const double probability = natural_logarithm_of_probability(row, t == 4 ? 0 : asked.targets[t]);
    if (t == 4)
      CHECK(asked.log_probabilities[t] == 1.f);
    else
      CHECK(std::abs(static_cast<double>(asked.log_probabilities[t]) - probability) < 1e-6 * std::abs(probability));
    if (t == 89) CHECK(copy(session.logits()) == copy(row));
  }
}

TEST_CASE("a turn is answered with the same bits in any mix, by a reader of any size") {
  const Cpu q = *Cpu::create(2);
  const PackedModel model = packed(q);
  const SessionSettings settings{.piece = 8};
  const auto turns_of = [] {
    return std::vector<Asked>{{41, 1, {0, 7, 8, 39}}, {1, 2, {}}, {9, 3, {8}}, {1, 4, {0}}, {17, 5, {3}}};
  };
  std::vector<std::vector<float>> last;
  std::vector<Asked> alone = turns_of();
  for (Asked& a : alone) {
    Reader reader = *Reader::create(q, model, 8);
    Session session = *Session::create(reader, settings);
    const Turn turn = a.turn(session);
    REQUIRE(reader.read({&turn, 1}));
    last.push_back(copy(session.logits()));
    Session plain = *Session::create(q, model, settings);
    REQUIRE(plain.prefill(a.tokens));
    CHECK(copy(plain.logits()) == last.back());
  }
  for (const std::int64_t rows : {8, 11, 30, 256}) {
    CAPTURE(rows);
    Reader reader = *Reader::create(q, model, rows);
    std::vector<Asked> together = turns_of();
    std::vector<Session> sessions;
    std::vector<Turn> turns;
    for (std::size_t i = 0; i < together.size(); ++i) sessions.push_back(*Session::create(reader, settings));
    for (std::size_t i = 0; i < together.size(); ++i) turns.push_back(together[i].turn(sessions[i]));
    REQUIRE(reader.read(turns));
    for (std::size_t i = 0; i < together.size(); ++i) {
      CHECK(copy(sessions[i].logits()) == last[i]);
      CHECK(together[i].logits == alone[i].logits);
      CHECK(together[i].log_probabilities == alone[i].log_probabilities);
    }
  }
}

TEST_CASE("more sessions than a pass has rows, each with a reader of its own, make a step") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q);
  std::vector<Session> alone, together;
  std::vector<Session*> all;
  for (std::int32_t i = 0; i < 5; ++i)
    for (auto* list : {&alone, &together}) list->push_back(*Session::create(q, model, {.piece = 2}));
  for (Session& s : together) all.push_back(&s);
  const std::vector<std::int32_t> tokens{9, 8, 7, 6, 5};
  REQUIRE(Session::step_all(all, tokens));
  for (std::size_t i = 0; i < 5; ++i) CHECK(copy(*alone[i].step(tokens[i])) == copy(together[i].logits()));
}

TEST_CASE("sessions of one reader cost what they remember, and take turns in its passes") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q);
  Reader reader = *Reader::create(q, model, 64);
  const std::vector<std::int32_t> prompt = some_tokens(60, 11), other = some_tokens(20, 12);
  const SessionSettings settings{.piece = 16};
  Session expected = *Session::create(q, model, settings);
  const std::vector<float> after_prompt = copy(*expected.prefill(prompt));
  expected.reset();
  const std::vector<float> after_other = copy(*expected.prefill(other));

  std::vector<Session> sessions;
  for (int i = 0; i < 3; ++i) sessions.push_back(*Session::create(reader, settings));
  CHECK(sessions[0].bytes() >= hybrid_model.state_bytes(KvFormat::f16, hybrid.context) + vocab * sizeof(float));
  CHECK(sessions[0].bytes() < hybrid_model.state_bytes(KvFormat::f16, hybrid.context) + vocab * sizeof(float) + 200);
  CHECK(reader.bytes() > hybrid_model.decode_bytes(64));

  // One is in the middle of a pass, and moves; another reads to its end; a third is given up in the middle.
  REQUIRE(sessions[0].push(prompt));
  CHECK(sessions[0].work(std::chrono::nanoseconds(0)).empty());
  sessions.reserve(100);
  CHECK(copy(*sessions[1].prefill(other)) == after_other);
  CHECK(sessions[0].position() == 16);
  REQUIRE(sessions[2].push(prompt));
  for (int i = 0; i < 2 * hybrid_model.stages - 1; ++i) sessions[2].work(std::chrono::nanoseconds(0));
  sessions.pop_back();
  CHECK(copy(sessions[0].work(std::chrono::hours(1))) == after_prompt);
  REQUIRE(sessions[1].push(other));
  sessions[1].work(std::chrono::nanoseconds(0));
  sessions[1].reset();
  CHECK(sessions[1].pending() == 0);
  CHECK(copy(*sessions[1].prefill(other)) == after_other);
  REQUIRE(sessions[1].push(prompt));
  sessions[1].work(std::chrono::nanoseconds(0));
  sessions[1] = *Session::create(reader, settings);
  CHECK(copy(*sessions[1].prefill(prompt)) == after_prompt);
}

TEST_CASE("turns are read in slices") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q);
  Reader reader = *Reader::create(q, model, 32);
  Session a = *Session::create(reader), b = *Session::create(reader);
  std::optional<Session> c = *Session::create(reader);
  Asked of_a(50, 1, {49}), of_b(3, 2, {0}), of_c(70, 3, {});
  const Turn turns[] = {of_a.turn(a), of_b.turn(b), of_c.turn(*c)};
  REQUIRE(reader.begin(turns));
  CHECK(a.pending() == 50);
  CHECK(a.logits().empty());
  int slices = 1;
  while (!reader.work(std::chrono::nanoseconds(0))) {
    if (++slices == 3) c.reset();  // its turn ends with it, and the others' go on
  }
  CHECK(a.position() == 50);
  CHECK(b.position() == 3);
  Session whole = *Session::create(reader);
  CHECK(copy(*whole.prefill(of_a.tokens)) == copy(a.logits()));
  CHECK(of_a.logits == copy(a.logits()));
  CHECK(reader.work(std::chrono::hours(1)));

  const std::vector<std::int32_t> more = some_tokens(40, 4);
  const Turn silent{.sequence = &b, .tokens = more, .answer = false};
  REQUIRE(reader.read({&silent, 1}));
  CHECK(b.position() == 43);
  CHECK(b.logits().empty());
  CHECK(b.step(1));
}

TEST_CASE("turns that cannot be are errors, and change nothing") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q), other = packed(q);
  CHECK(Reader::create(q, model, 0).error().message == "a reader's pass must have at least 1 row, found 0");
  Reader reader = *Reader::create(q, model), reader_of_other = *Reader::create(q, other);
  Session a = *Session::create(reader), b = *Session::create(reader), foreign = *Session::create(reader_of_other),
          quantized = *Session::create(reader, {.kv = KvFormat::q8_0});
  const std::vector<std::int32_t> tokens{1, 2, 3}, wrong{1, 80};
  const std::vector<std::int64_t> twice{1, 1}, outside{3};
  std::vector<float> logits(2 * vocab);
  const auto error = [&](Turn second) {
    const Turn turns[] = {{.sequence = &a, .tokens = tokens}, second};
    const Status status = reader.read(turns);
    CHECK(a.position() == 0);
    CHECK(a.pending() == 0);
    return status ? std::string("no error") : status.error().message;
  };
  const std::string same = "sessions of one pass must have the same weights and the same format of keys and values";
  CHECK(error({&foreign, tokens}) == same);
  CHECK(error({&quantized, tokens}) == same);
  CHECK(error({&a, tokens}) == "session 1 is given twice");
  CHECK(error({&b, {}}) == "session 1 has a turn without tokens");
  CHECK(error({&b, wrong}) == "session 1: token 80 is not in the vocabulary of 80");
  CHECK(error({&b, std::vector<std::int32_t>(101)}) ==
        "session 1: the context is full: it holds 100 tokens, 0 were read and 101 more were given");
  CHECK(error({&b, tokens, twice, logits.data()}) ==
        "session 1: rows are tokens of the turn in ascending order, found row 1");
  CHECK(error({&b, tokens, outside, logits.data()}) ==
        "session 1: rows are tokens of the turn in ascending order, found row 3");
  CHECK(error({.sequence = &b, .tokens = tokens, .targets = wrong, .log_probabilities = logits.data()}) ==
        "session 1: expected a target for each of 3 tokens, found 2");
  CHECK(error({.sequence = &b, .tokens = std::span(tokens).first(2), .targets = wrong}) ==
        "session 1: target 80 is not in the vocabulary of 80");
  REQUIRE(b.push(tokens));
  CHECK(error({&b, tokens}) == "session 1 has tokens pending");
  CHECK(b.pending() == 3);
}
