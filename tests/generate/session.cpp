#include <doctest/doctest.h>

#include <chimera/chimera.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

// Every allocation of this program is counted, where no sanitizer counts them already.
#if defined(__GLIBC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define CHIMERA_COUNTS_ALLOCATIONS
static std::atomic<long> allocations{0};
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t n) { return ++allocations, __libc_malloc(n); }
void* calloc(std::size_t n, std::size_t size) { return ++allocations, __libc_calloc(n, size); }
void* aligned_alloc(std::size_t alignment, std::size_t n) { return ++allocations, __libc_memalign(alignment, n); }
}
#endif

using namespace chimera;

namespace {

/// Shows what it was given: the state counts tokens and adds them up, and the logits repeat it. Two stages: the first
/// reads, the second answers.
constexpr Config echo_config{.vocab = 16, .width = 1, .context = 10};

AnyModel echo_model() {
  AnyModel model;
  model.config = &echo_config;
  model.state_bytes = [](KvFormat, std::int64_t) { return std::size_t{64}; };
  model.clear_state = [](KvFormat, std::byte* state) { std::memset(state, 0, 64); };
  model.copy_state = [](KvFormat, std::int64_t, std::int64_t, const std::byte* from, std::byte* to) {
    std::memcpy(to, from, 64);
  };
  model.decode_bytes = [](std::int64_t rows) { return static_cast<std::size_t>(4 * rows); };
  model.stages = 2, model.head = 1;
  model.decode = [](const Cpu&, const PackedTensor*, const ModelPass& pass, int stage) {
    for (const Run& run : pass.runs) {
      float* state = reinterpret_cast<float*>(run.state);
      for (std::int64_t t = 0; stage == 0 && t < run.count; ++t)
        state[0] += 1, state[1] += static_cast<float>(pass.tokens[run.first + t]);
      for (const Output& output : pass.outputs) {
        if (stage == 0 || output.row != run.first + run.count - 1) continue;
        output.logits[0] = state[0], output.logits[1] = state[1];
        output.logits[2] = static_cast<float>(run.position + run.count - 1);
        output.logits[3] = static_cast<float>(pass.rows);
      }
    }
  };
  return model;
}

PackedModel packed(const Cpu& q, const AnyModel& model) {
  std::vector<float> weights(model.arena_floats);
  if (model.of_batches.initialize) model.initialize(weights.data(), 7);
  return *PackedModel::create(q, model, weights.data());
}

std::vector<std::int32_t> tokens_up_to(std::int32_t n) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < n; ++i) tokens.push_back(i);
  return tokens;
}

std::vector<float> copy(const Result<Session::Logits>& logits) {
  REQUIRE(logits);
  return {logits->begin(), logits->end()};
}

constexpr Config small_of(int context) {
  return {.vocab = 64,
          .width = 32,
          .context = context,
          .layers = pattern("M A R GD XM SK TM"),
          .attention = {.heads = 4, .kv_heads = 2, .window = 12},
          .mamba2 = {.head_dim = 16, .state = 8, .chunk = 8},
          .span_knot = {.span = 4, .max_knots = 8},
          .titans = {.persistent = 3, .segment = 8},
          .ffn = {.hidden = 48}};
}
constexpr Config small = small_of(48), long_context = small_of(200), ten = small_of(10);
constexpr Config all_seen_of(int context) {
  Config c = small_of(context);
  c.attention.window = 0;
  return c;
}
constexpr Config all_seen = all_seen_of(9'000), ten_seen = all_seen_of(10);
constexpr AnyModel small_model = inference_model<small>("small");

}  // namespace

TEST_CASE("a session counts positions and reads a long prompt in pieces") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, echo_model());
  auto session = Session::create(q, model, {.piece = 3});
  REQUIRE(session);
  CHECK(session->context() == 10);
  CHECK(session->logits().empty());

  auto logits = session->prefill(tokens_up_to(7));  // 3 + 3 + 1
  REQUIRE(logits);
  REQUIRE(logits->size() == 16);
  CHECK(std::vector<float>(logits->begin(), logits->begin() + 4) == std::vector<float>{7, 21, 6, 1});
  CHECK(session->position() == 7);

  logits = session->step(15);
  REQUIRE(logits);
  CHECK(std::vector<float>(logits->begin(), logits->begin() + 4) == std::vector<float>{8, 36, 7, 1});

  session->reset();
  CHECK(session->position() == 0);
  CHECK(session->logits().empty());
  logits = session->step(2);
  REQUIRE(logits);
  CHECK(std::vector<float>(logits->begin(), logits->begin() + 4) == std::vector<float>{1, 2, 0, 1});
}

TEST_CASE("a loop over the logits of a step needs no name for its result") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, echo_model());
  auto session = Session::create(q, model);
  REQUIRE(session);
  std::vector<float> seen;
  for (const float logit : *session->step(15)) seen.push_back(logit);
  REQUIRE(seen.size() == 16);
  CHECK(std::vector<float>(seen.begin(), seen.begin() + 4) == std::vector<float>{1, 15, 0, 1});
}

TEST_CASE("a session of a smaller context has the same bits in less memory") {
  const Cpu q = *Cpu::create(2);
  for (const KvFormat kv : {KvFormat::f16, KvFormat::q8_0}) {
    const AnyModel model = inference_model<all_seen>("all seen");
    const PackedModel weights = packed(q, model);
    auto whole = Session::create(q, weights, {.piece = 7, .kv = kv});
    auto part = Session::create(q, weights, {.context = 40, .piece = 7, .kv = kv});
    REQUIRE(whole);
    REQUIRE(part);
    CHECK(part->context() == 40);
    CHECK(whole->context() == 9'000);
    CHECK(25 * part->bytes() < whole->bytes());
    const auto tokens = tokens_up_to(30);
    CHECK(copy(part->prefill(tokens)) == copy(whole->prefill(tokens)));
    for (std::int32_t t = 0; t < 10; ++t) CHECK(copy(part->step(t)) == copy(whole->step(t)));
    CHECK(part->step(1).error().message ==
          "the context is full: it holds 40 tokens, 40 were read and 1 more were given");
  }
}

TEST_CASE("sessions of several contexts are read in one pass") {
  const Cpu q = *Cpu::create(2);
  const AnyModel model = inference_model<all_seen>("all seen");
  const PackedModel weights = packed(q, model);
  auto reader = Reader::create(q, weights, 64);
  REQUIRE(reader);
  std::vector<Session> sessions, alone;
  for (const std::int64_t context : {20, 300, 0, 17}) {
    sessions.push_back(*Session::create(*reader, {.context = context}));
    alone.push_back(*Session::create(q, weights));
  }
  const auto tokens = tokens_up_to(17);
  std::vector<Turn> turns;
  for (Session& s : sessions) turns.push_back({.sequence = &s, .tokens = tokens});
  REQUIRE(reader->read(turns));
  for (std::size_t i = 0; i < sessions.size(); ++i)
    CHECK(copy(Result<Session::Logits>(sessions[i].logits())) == copy(alone[i].prefill(tokens)));
}

TEST_CASE("a session that slides in a smaller context is one of a model with that context") {
  const Cpu q = *Cpu::create(2);
  for (const bool windowed : {true, false}) {
    const AnyModel long_model = windowed ? inference_model<long_context>("long") : inference_model<all_seen>("long"),
                   short_model = windowed ? inference_model<ten>("short") : inference_model<ten_seen>("short");
    const PackedModel long_weights = packed(q, long_model), short_weights = packed(q, short_model);
    auto a = Session::create(q, long_weights, {.context = 10, .piece = 4, .slide = true});
    auto b = Session::create(q, short_weights, {.piece = 4, .slide = true});
    REQUIRE(a);
    REQUIRE(b);
    for (std::int32_t t = 0; t < 60; t += 5) {
      const std::vector<std::int32_t> some{t, t + 1, 63 - t};
      CHECK(copy(a->prefill(some)) == copy(b->prefill(some)));
      CHECK(copy(a->step(t)) == copy(b->step(t)));
    }
    auto fork = a->fork();
    REQUIRE(fork);
    CHECK(copy(fork->step(3)) == copy(b->step(3)));
  }
}

TEST_CASE("a context is from 1 to the model's, and sessions of others are not mixed up") {
  const Cpu q = *Cpu::create(1);
  const AnyModel model = inference_model<all_seen>("all seen");
  const PackedModel weights = packed(q, model);
  CHECK(Session::create(q, weights, {.context = 9'001}).error().message ==
        "a session's context must be from 1 to the model's 9000 tokens, found 9001");
  CHECK(!Session::create(q, weights, {.context = -1}));
  auto one = Session::create(q, weights, {.context = 1});
  REQUIRE(one);
  CHECK(one->step(1));
  CHECK(!one->step(1));
  auto some = Session::create(q, weights, {.context = 20}), all = Session::create(q, weights);
  REQUIRE(some);
  REQUIRE(some->step(1));
  CHECK(!all->copy_from(*some));
  const auto saved = some->save();
  REQUIRE(saved);
  CHECK(all->restore(*saved).error().message == "the session was saved with another context than 9000 tokens");
  auto again = Session::create(q, weights, {.context = 20});
  REQUIRE(again->restore(*saved));
  CHECK(copy(again->step(2)) == copy(some->step(2)));
}

TEST_CASE("a session that is too large says what takes less") {
  const Cpu q = *Cpu::create(1);
  AnyModel model = echo_model();
  model.state_bytes = [](KvFormat, std::int64_t context) { return static_cast<std::size_t>(context) << 58; };
  const PackedModel weights = packed(q, model);
  const auto session = Session::create(q, weights);
  REQUIRE(!session);
  CHECK(session.error().message.find("by a session of 10 tokens; a smaller context, or keys and values in q8_0 or "
                                     "q4_0, take less") != std::string::npos);
}

TEST_CASE("what a session cannot do is an error, and changes nothing") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, echo_model());
  CHECK(Session::create(q, model, {.piece = 0}).error().message ==
        "a prompt's piece must be at least 1 token, found 0");
  auto session = Session::create(q, model);
  REQUIRE(session);

  CHECK(session->prefill({}).error().message == "a prompt must have at least 1 token, found none");
  CHECK(session->prefill(tokens_up_to(11)).error().message ==
        "the context is full: it holds 10 tokens, 0 were read and 11 more were given");
  CHECK(session->prefill(std::vector<std::int32_t>{1, 16}).error().message ==
        "token 16 is not in the vocabulary of 16");
  CHECK(session->step(-1).error().message == "token -1 is not in the vocabulary of 16");
  CHECK(session->position() == 0);

  auto logits = session->prefill(tokens_up_to(10));
  REQUIRE(logits);
  CHECK((*logits)[0] == 10.f);
  CHECK(session->step(0).error().message ==
        "the context is full: it holds 10 tokens, 10 were read and 1 more were given");
  CHECK(session->position() == 10);
}

TEST_CASE("a prompt gives the same logits in any pieces and token by token") {
  const Cpu q = *Cpu::create(2);
  const PackedModel model = packed(q, small_model);
  const std::vector<std::int32_t> prompt = tokens_up_to(41);
  auto reference = Session::create(q, model, {.kv = KvFormat::f32});
  REQUIRE(reference);
  std::vector<float> expected;
  for (std::int32_t token : prompt) expected = copy(reference->step(token));
  for (std::int64_t piece : {1, 5, 12, 40, 48}) {
    CAPTURE(piece);
    auto session = Session::create(q, model, {.piece = piece, .kv = KvFormat::f32});
    REQUIRE(session);
    const std::vector<float> logits = copy(session->prefill(prompt));
    float difference = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      difference = std::max(difference, std::abs(logits[i] - expected[i]));
    CHECK(difference < 1e-4f);
  }
}

TEST_CASE("logits are the same bits for any number of threads, alone and in a batch of sessions") {
  std::vector<std::vector<float>> expected;
  std::vector<Cpu> processors;
  for (const int threads : {1, 2, 4, 20}) processors.push_back(*Cpu::create(threads));
  // A host that runs the tasks of five workers by itself, the last one first.
  const auto backwards = [](void*, std::int64_t count, TaskFunction task, void* context) {
    while (count-- > 0) task(context, count, static_cast<int>(count % 5));
  };
  processors.push_back(*Cpu::create(Executor{.threads = 5, .run = backwards}));
  for (const Cpu& q : processors) {
    const PackedModel model = packed(q, small_model);
    std::vector<Session> alone, together;
    std::vector<Session*> all;
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < 8; ++i) {
      alone.push_back(*Session::create(q, model)), together.push_back(*Session::create(q, model));
      if (i > 0) {  // all are elsewhere
        REQUIRE(alone.back().prefill(tokens_up_to(i)));
        REQUIRE(together.back().prefill(tokens_up_to(i)));
      }
      tokens.push_back(i * 7 + 1);
    }
    for (Session& s : together) all.push_back(&s);
    for (int step = 0; step < 20; ++step) {
      REQUIRE(Session::step_all(all, tokens));
      for (std::size_t i = 0; i < all.size(); ++i) {
        const std::vector<float> want = copy(alone[i].step(tokens[i]));
        const Session::Logits got = together[i].logits();
        REQUIRE(std::vector<float>(got.begin(), got.end()) == want);
        tokens[i] = static_cast<std::int32_t>(std::max_element(got.begin(), got.end()) - got.begin());
        if (q.threads() == 1)
          expected.push_back(want);
        else
          REQUIRE(expected[static_cast<std::size_t>(step) * all.size() + i] == want);
      }
    }
  }
}

TEST_CASE("a batch that cannot be is an error, and changes nothing") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, small_model), other = packed(q, small_model);
  Session a = *Session::create(q, model, {.piece = 2}), b = *Session::create(q, other);
  Session c = *Session::create(q, model), d = *Session::create(q, model);
  const std::vector<std::int32_t> tokens{1, 2, 3};
  const auto error = [&](const std::vector<Session*>& sessions, std::size_t count) {
    const Status status = Session::step_all(sessions, std::span(tokens).first(count));
    return status ? std::string("no error") : status.error().message;
  };
  CHECK(error({&a, &b}, 1) == "expected one token for each of at least 1 session, found 1 tokens for 2 sessions");
  CHECK(error({&a, &b}, 2) == "sessions of one pass must have the same weights and the same format of keys and values");
  CHECK(error({&c, &c}, 2) == "session 1 is given twice");
  REQUIRE(d.prefill(std::vector<std::int32_t>(48, 1)));
  CHECK(error({&c, &d}, 2) == "session 1: the context is full: it holds 48 tokens, 48 were read and 1 more were given");
  CHECK(c.position() == 0);
  CHECK(c.pending() == 0);
  REQUIRE(d.cancel() == 0);
  REQUIRE(c.push(tokens));
  CHECK(error({&a, &c}, 2) == "session 1 has tokens pending");
}

TEST_CASE("a budget of time is kept, and what is read in slices is what is read at once") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, small_model);
  const std::vector<std::int32_t> prompt = tokens_up_to(41);
  Session whole = *Session::create(q, model, {.piece = 5});
  const std::vector<float> expected = copy(whole.prefill(prompt));

  Session sliced = *Session::create(q, model, {.piece = 5});
  CHECK(sliced.work(std::chrono::milliseconds(1)).empty());  // nothing was pushed
  REQUIRE(sliced.push(prompt));
  CHECK(sliced.pending() == 41);
  int slices = 1;  // no time at all: one stage a call
  Session::Logits logits;
  while ((logits = sliced.work(std::chrono::nanoseconds(0))).empty()) ++slices;
  CHECK(slices == 9 * small_model.stages);
  CHECK(std::vector<float>(logits.begin(), logits.end()) == expected);
  CHECK(sliced.position() == 41);

  Session appended = *Session::create(q, model, {.piece = 5});  // more is pushed while it reads
  for (std::size_t at = 0; at < prompt.size(); at += 10) {
    REQUIRE(appended.push(std::span(prompt).subspan(at, std::min<std::size_t>(10, prompt.size() - at))));
    CHECK(appended.work(std::chrono::nanoseconds(0)).empty());
  }
  while ((logits = appended.work(std::chrono::hours(1))).empty()) {
  }
  CHECK(std::vector<float>(logits.begin(), logits.end()) == expected);
}

TEST_CASE("a prompt can be given up, and the session goes on from where it is") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, small_model);
  const std::vector<std::int32_t> prompt = tokens_up_to(41);
  Session given_up = *Session::create(q, model, {.piece = 5});
  REQUIRE(given_up.push(prompt));
  for (int i = 0; i < small_model.stages + 1; ++i) given_up.work(std::chrono::nanoseconds(0));
  CHECK(given_up.cancel() == 31);
  CHECK(given_up.position() == 10);
  CHECK(given_up.logits().empty());
  Session other = *Session::create(q, model, {.piece = 5});
  REQUIRE(other.prefill(std::span(prompt).first(10)));
  CHECK(copy(given_up.step(3)) == copy(other.step(3)));

  const std::atomic<bool> stop{true};
  CHECK(other.prefill(prompt, &stop).error().message ==
        "the context is full: it holds 48 tokens, 11 were read and 41 "
        "more were given");
  CHECK(other.prefill(std::span(prompt).first(7), &stop).error().message ==
        "stopped: the last 7 tokens of the prompt were not read");
  CHECK(other.position() == 11);
}

TEST_CASE("beyond its context a session that slides sees the newest keys") {
  const Cpu q = *Cpu::create(1);
  constexpr AnyModel longer = inference_model<long_context>("long");
  const PackedModel model = packed(q, small_model), large = packed(q, longer);
  Session sliding = *Session::create(q, model, {.piece = 9, .slide = true});
  Session all = *Session::create(q, large, {.piece = 9});
  for (int i = 0; i < 5; ++i) CHECK(copy(sliding.prefill(tokens_up_to(31))) == copy(all.prefill(tokens_up_to(31))));
  CHECK(sliding.position() == 155);
  CHECK_FALSE(sliding.prefill(tokens_up_to(49)));
}

TEST_CASE("a session is forked, copied, saved and restored") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, small_model);
  for (const KvFormat kv : {KvFormat::f32, KvFormat::f16, KvFormat::q8_0, KvFormat::q4_0}) {
    Session first = *Session::create(q, model, {.kv = kv});
    REQUIRE(first.prefill(tokens_up_to(30)));
    auto fork = first.fork();
    REQUIRE(fork);
    Session copied = *Session::create(q, model, {.kv = kv}),
            restored = *Session::create(q, model, {.piece = 3, .kv = kv});
    REQUIRE(copied.copy_from(first));
    const auto saved = first.save();
    REQUIRE(saved);
    REQUIRE(restored.restore(*saved));
    CHECK(restored.position() == 30);
    CHECK(std::equal(restored.logits().begin(), restored.logits().end(), first.logits().begin()));
    for (std::int32_t token = 0; token < 10; ++token) {
      const std::vector<float> expected = copy(first.step(token));
      CHECK(copy(fork->step(token)) == expected);
      CHECK(copy(copied.step(token)) == expected);
      CHECK(copy(restored.step(token)) == expected);
    }
    CHECK(copy(fork->step(1)) != copy(first.step(2)));  // they are apart
  }
}

TEST_CASE("a session that is reset is as a fresh one, and one that is copied over as its source") {
  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, small_model);
  const std::vector<std::int32_t> other(40, 63);
  for (const KvFormat kv : {KvFormat::f32, KvFormat::f16, KvFormat::q8_0, KvFormat::q4_0})
    for (const std::int32_t n : {5, 30}) {  // the ring of 12 keys is not full, and has wrapped round
      CAPTURE(n);
      Session fresh = *Session::create(q, model, {.kv = kv}), reset = *Session::create(q, model, {.kv = kv}),
              copied = *Session::create(q, model, {.kv = kv});
      REQUIRE(fresh.prefill(tokens_up_to(n)));
      REQUIRE(reset.prefill(other));
      reset.reset();
      CHECK(copy(reset.prefill(tokens_up_to(n))) == copy(fresh.logits()));
      REQUIRE(copied.prefill(other));
      REQUIRE(copied.copy_from(fresh));
      CHECK(*reset.save() == *fresh.save());
      CHECK(*copied.save() == *fresh.save());
      for (std::int32_t token = 0; token < 15; ++token) {
        const std::vector<float> expected = copy(fresh.step(token));
        CHECK(copy(reset.step(token)) == expected);
        CHECK(copy(copied.step(token)) == expected);
      }
    }
}

TEST_CASE("a session that was saved in version 2 goes on") {
  // Magic, version, model, keys and values, checksum, bytes of the state, position, whether there are logits; then
  // those and the state. Of the model above after tokens 1 to 7.
  static constexpr unsigned char head[] = {
      0x63, 0x68, 0x69, 0x6d, 0x65, 0x72, 0x61, 0x20, 0x73, 0x65, 0x73, 0x73, 0x69, 0x6f, 0x6e, 0x00, 0x02, 0x00, 0x00,
      0x00, 0xed, 0x8a, 0x6c, 0x93, 0x01, 0x00, 0x00, 0x00, 0xd1, 0x4d, 0xd0, 0x3c, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00};
  std::vector<float> rest(32);
  rest[0] = 7, rest[1] = 28, rest[2] = 6, rest[3] = 7;  // logits
  rest[16] = 7, rest[17] = 28;
  std::vector<std::byte> saved(sizeof head + 32 * sizeof(float));
  std::memcpy(saved.data(), head, sizeof head);
  std::memcpy(saved.data() + sizeof head, rest.data(), 32 * sizeof(float));

  const Cpu q = *Cpu::create(1);
  const PackedModel model = packed(q, echo_model());
  Session session = *Session::create(q, model);
  REQUIRE(session.restore(saved));
  CHECK(session.position() == 7);
  CHECK(session.logits()[1] == 28.f);
  CHECK(*session.save() == saved);
  const std::vector<float> logits = copy(session.step(15));
  CHECK(std::vector<float>(logits.begin(), logits.begin() + 4) == std::vector<float>{8, 43, 7, 1});
}

TEST_CASE("what was saved by another, or is damaged, is refused and changes nothing") {
  const Cpu q = *Cpu::create(1);
  constexpr AnyModel longer = inference_model<long_context>("long");
  const PackedModel model = packed(q, small_model), large = packed(q, longer);
  Session session = *Session::create(q, model);
  REQUIRE(session.prefill(tokens_up_to(5)));
  const auto saved = session.save();
  REQUIRE(saved);
  const auto refused = [&](Session& s, std::span<const std::byte> bytes, const std::string& why) {
    const Status status = s.restore(bytes);
    REQUIRE_FALSE(status);
    CHECK(status.error().message.find(why) != std::string::npos);
  };
  Session other = *Session::create(q, large), quantized = *Session::create(q, model, {.kv = KvFormat::q8_0});
  refused(other, *saved, "the session was saved with another model than long");
  refused(quantized, *saved, "the session was saved with another format of keys and values");
  CHECK_FALSE(quantized.copy_from(session));
  for (std::size_t n = 0; n < saved->size(); n += n < 100 ? 1 : 997) {
    CAPTURE(n);
    CHECK_FALSE(session.restore(std::span(*saved).first(n)));
    std::vector<std::byte> changed = *saved;
    changed[n] ^= std::byte{0x10};
    Session again = *Session::create(q, model);
    if (again.restore(changed)) CHECK(again.position() <= again.context());  // a position is no secret
  }
  CHECK(session.position() == 5);
  REQUIRE(session.push(tokens_up_to(2)));
  CHECK_FALSE(session.save());
  CHECK_FALSE(session.fork());
}

#ifdef CHIMERA_COUNTS_ALLOCATIONS
TEST_CASE("after its creation a session allocates nothing") {
  const Cpu q = *Cpu::create(2);
  const PackedModel model = packed(q, small_model);
  auto session = Session::create(q, model, {.piece = 16});
  auto second = Session::create(q, model, {.piece = 16});
  TokenSamplerSettings all;
  all.logit_bias = {{1, 1.f}}, all.repeat_penalty = 1.1f, all.dry_multiplier = 1.f, all.top_n_sigma = 3.f;
  all.typical_p = 0.9f, all.xtc_probability = 0.5f, all.temperature_range = 0.2f;
  auto sampler = TokenSampler::create(small.vocab, all);
  REQUIRE(session);
  REQUIRE(second);
  REQUIRE(sampler);
  const std::vector<std::int32_t> prompt = tokens_up_to(20);
  Session* const both[] = {&*session, &*second};
  auto reader = Reader::create(q, model, 16);
  auto third = Session::create(*reader), fourth = Session::create(*reader);
  REQUIRE(fourth);
  std::vector<float> log_probabilities(20), logits_of_rows(2 * 64);
  const std::vector<std::int64_t> rows{3, 17};
  const Turn turns[] = {
      {.sequence = &*third, .tokens = prompt, .rows = rows, .logits = logits_of_rows.data()},
      {.sequence = &*fourth, .tokens = prompt, .targets = prompt, .log_probabilities = log_probabilities.data()}};

  const long before = allocations;
  CHECK(before > 0);
  auto logits = session->prefill(prompt);
  sampler->accept(prompt);
  for (int i = 0; i < 5 && logits; ++i) logits = session->step(*sampler->draw(*logits));
  const Status copied = second->copy_from(*session);
  const std::int32_t tokens[] = {1, 2};
  const Status batch = Session::step_all(both, tokens);
  const Status pushed = session->push(prompt);
  session->work(std::chrono::nanoseconds(0));
  session->work(std::chrono::hours(1));
  session->reset();
  const Status read = reader->read(turns);
  const long after = allocations;
  CHECK(logits);
  CHECK(copied);
  CHECK(batch);
  CHECK(pushed);
  CHECK(read);
  CHECK(after == before);
}
#endif

TEST_CASE("adapters beside a packed model are what they are merged into it, for every session and number of threads") {
  const AnyModel& model = small_model;
  const auto table = AdapterTable::create(model.tensors, std::vector<BaseTensor>(model.slot_count),
                                          all_targets(model.tensors), {.rank = 5, .alpha = 20});
  REQUIRE(table);
  std::vector<float> weights(model.arena_floats), first((*table)->arena_floats), second = first;
  model.initialize(weights.data(), 7);
  Random random{3, 0, 0};
  for (std::vector<float>* values : {&first, &second})
    for (float& v : *values) v = 0.1f * random.normal();
  std::vector<float> half = second;
  for (const NamedTensor& t : (*table)->tensors)
    for (std::int64_t i = 0; t.name().ends_with(".lora_b") && i < t.size(); ++i)
      half[t.offset + static_cast<std::size_t>(i)] *= 0.5f;
  const Cpu one = *Cpu::create(1), three = *Cpu::create(3);
  std::vector<float> merged = weights;
  for (const std::vector<float>* values : {&first, &half})
    merge_adapters(one, model.tensors, (*table)->weights, values->data(), merged.data());
  const PackedModel base = *PackedModel::create(one, model, weights.data()),
                    whole = *PackedModel::create(one, model, merged.data());
  const AdapterUse uses[] = {{&(*table)->weights, first.data()}, {&(*table)->weights, second.data(), 0.5f}};
  const auto adapters = PackedAdapters::create(base, uses), other = PackedAdapters::create(whole, uses);
  REQUIRE(adapters);
  CHECK(adapters->ranks() > 10);

  auto expected = Session::create(one, whole), plain = Session::create(one, base), alone = Session::create(one, base),
       threads = Session::create(three, base);
  const auto tokens = tokens_up_to(20);
  const std::vector<float> without = copy(plain->prefill(tokens)), want = copy(expected->prefill(tokens));
  REQUIRE(alone->set_adapters(&*adapters));
  REQUIRE(threads->set_adapters(&*adapters));
  const std::vector<float> got = copy(alone->prefill(tokens));
  double error = 0, change = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error = std::max(error, std::abs(double{got[i]} - double{want[i]}));
    change = std::max(change, std::abs(double{want[i]} - double{without[i]}));
  }
  CHECK(error < 1e-4 * (1 + change));
  CHECK(change > 0.01);
  CHECK(copy(threads->prefill(tokens)) == got);
  auto fork = alone->fork();
  Session* both[] = {&*alone, &*fork};
  const std::int32_t next[] = {3, 9};
  REQUIRE(Session::step_all(both, next));
  CHECK(copy(Result<Session::Logits>(alone->logits())) == copy(threads->step(3)));

  alone->reset();
  REQUIRE(alone->set_adapters(nullptr));
  CHECK(copy(alone->prefill(tokens)) == without);
  CHECK(alone->set_adapters(&*other).error().message == "the adapters are of other weights than the reader's");
}
