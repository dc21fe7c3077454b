#include <doctest/doctest.h>

#include <chimera/chimera.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
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

/// Shows what it was given: the state counts tokens and adds them up, and the logits repeat it.
constexpr Config echo_config{.vocab = 16, .width = 1, .context = 10};

void read_token(std::int32_t token, std::int64_t position, float* state, float* logits) {
  state[0] += 1, state[1] += static_cast<float>(token);
  logits[0] = state[0], logits[1] = state[1], logits[2] = static_cast<float>(position);
}

AnyModel echo_model() {
  AnyModel model;
  model.config = &echo_config;
  model.state_floats = 2;
  model.decode_floats = [] { return std::size_t{0}; };
  model.prefill_floats = [](std::int64_t length) { return static_cast<std::size_t>(length); };
  model.step = [](const Cpu&, const float*, std::int32_t token, std::int64_t position, float* state, float*,
                  float* logits) { read_token(token, position, state, logits); };
  model.prefill = [](const Cpu&, const float*, const std::int32_t* tokens, std::int64_t length, std::int64_t position,
                     float* state, float* memory, float* logits) {
    memory[length - 1] = 1;
    for (std::int64_t i = 0; i < length; ++i) read_token(tokens[i], position + i, state, logits);
    logits[3] = static_cast<float>(length);
  };
  return model;
}

std::vector<std::int32_t> tokens_up_to(std::int32_t n) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t i = 0; i < n; ++i) tokens.push_back(i);
  return tokens;
}

constexpr Config small{.vocab = 64,
                       .width = 32,
                       .context = 48,
                       .layers = pattern("M A R"),
                       .attention = {.heads = 4, .kv_heads = 2, .window = 12},
                       .mamba2 = {.head_dim = 16, .state = 8, .chunk = 8},
                       .ffn = {.hidden = 48}};

}  // namespace

TEST_CASE("a session counts positions and reads a long prompt in pieces") {
  const Cpu q = std::move(*Cpu::create(1));
  const AnyModel model = echo_model();
  auto session = Session::create(q, model, nullptr, 3);
  REQUIRE(session);
  CHECK(session->context() == 10);

  auto logits = session->prefill(tokens_up_to(7));  // 3 + 3 + 1
  REQUIRE(logits);
  REQUIRE(logits->size() == 16);
  CHECK((*logits)[0] == 7.f);
  CHECK((*logits)[1] == 21.f);
  CHECK((*logits)[2] == 6.f);
  CHECK((*logits)[3] == 1.f);
  CHECK(session->position() == 7);

  logits = session->step(15);
  REQUIRE(logits);
  CHECK((*logits)[0] == 8.f);
  CHECK((*logits)[1] == 36.f);
  CHECK((*logits)[2] == 7.f);

  session->reset();
  CHECK(session->position() == 0);
  logits = session->step(2);
  REQUIRE(logits);
  CHECK((*logits)[0] == 1.f);
  CHECK((*logits)[1] == 2.f);
  CHECK((*logits)[2] == 0.f);
}

TEST_CASE("what does not fit a session is an error and changes nothing") {
  const Cpu q = std::move(*Cpu::create(1));
  const AnyModel model = echo_model();
  CHECK(Session::create(q, model, nullptr, 0).error().message == "a prompt's piece must be at least 1 token, found 0");
  auto session = Session::create(q, model, nullptr);
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
  constexpr AnyModel model = any_model<small>("small");
  const Cpu q = std::move(*Cpu::create(2));
  auto weights = Buffer::create(model.arena_floats);
  REQUIRE(weights);
  model.initialize(weights->data(), 7);
  const std::vector<std::int32_t> prompt = tokens_up_to(41);

  auto reference = Session::create(q, model, weights->data());
  REQUIRE(reference);
  std::vector<float> expected;
  for (std::int32_t token : prompt) {
    auto logits = reference->step(token);
    REQUIRE(logits);
    expected.assign(logits->begin(), logits->end());
  }
  for (std::int64_t piece : {1, 5, 12, 40, 48}) {
    CAPTURE(piece);
    auto session = Session::create(q, model, weights->data(), piece);
    REQUIRE(session);
    auto logits = session->prefill(prompt);
    REQUIRE(logits);
    float difference = 0;
    for (std::size_t i = 0; i < expected.size(); ++i)
      difference = std::max(difference, std::abs((*logits)[i] - expected[i]));
    CHECK(difference < 1e-4f);
  }
}

#ifdef CHIMERA_COUNTS_ALLOCATIONS
TEST_CASE("after its creation a session allocates nothing") {
  constexpr AnyModel model = any_model<small>("small");
  const Cpu q = std::move(*Cpu::create(2));
  auto weights = Buffer::create(model.arena_floats);
  REQUIRE(weights);
  model.initialize(weights->data(), 7);
  auto session = Session::create(q, model, weights->data(), 16);
  auto sampler = TokenSampler::create(small.vocab, {});
  REQUIRE(session);
  REQUIRE(sampler);
  const std::vector<std::int32_t> prompt = tokens_up_to(20);

  const long before = allocations;
  CHECK(before > 0);
  auto logits = session->prefill(prompt);
  for (int i = 0; i < 20 && logits; ++i) logits = session->step(*sampler->draw(*logits));
  session->reset();
  const long after = allocations;
  CHECK(logits);
  CHECK(after == before);
}
#endif
