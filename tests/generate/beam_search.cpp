#include <doctest/doctest.h>

#include <chimera/core/random.hpp>
#include <chimera/generate/beam_search.hpp>
#include <chimera/generate/session.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <span>
#include <vector>

using namespace chimera;

namespace {

using Tokens = std::vector<std::int32_t>;

constexpr std::int32_t end = 0;
constexpr auto ends = [](std::int32_t token) { return token == end; };

/// A model: a number made of all tokens read, and logits made of it.
std::uint64_t after(std::uint64_t past, std::int32_t token) {
  return past * 1'000'003 + static_cast<std::uint64_t>(token) + 1;
}
void answer(std::uint64_t past, std::span<float> logits) {
  Random random{17, past, 0};
  for (float& x : logits) x = 1.5f * random.normal();
  logits[end] -= 1.f;
}
std::vector<float> logits_after(std::size_t vocab, std::uint64_t seed, const Tokens& past) {
  for (const std::int32_t t : past) seed = after(seed, t);
  std::vector<float> logits(vocab);
  answer(seed, logits);
  return logits;
}

std::vector<double> log_probabilities(const std::vector<float>& logits) {
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  std::vector<double> p(logits.begin(), logits.end());
  for (double& x : p) x -= std::log(sum);
  return p;
}

/// A session of it.
class Toy {
 public:
  Toy(std::size_t vocab, std::uint64_t seed) : seed_(seed), logits_(logits_after(vocab, seed, {})) { ++alive; }
  Toy(Toy&& other) noexcept : past_(std::move(other.past_)), seed_(other.seed_), logits_(std::move(other.logits_)) {
    ++alive;
  }
  ~Toy() { --alive; }

  std::span<const float> logits() const { return logits_; }
  Result<Toy> fork() const {
    Toy copy(logits_.size(), seed_);
    if (Status s = copy.copy_from(*this); !s) return s.error();
    most = std::max(most, alive - 2);  // without the one that is moved from, and the start
    return copy;
  }
  Status copy_from(const Toy& other) {
    past_ = other.past_, logits_ = other.logits_;
    return {};
  }
  static Status step_all(std::span<Toy* const> all, std::span<const std::int32_t> tokens) {
    REQUIRE(all.size() == tokens.size());
    REQUIRE(std::set<Toy*>(all.begin(), all.end()).size() == all.size());
    ++steps;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i]->past_.size() == room) return Error{"the context is full"};
      all[i]->past_.push_back(tokens[i]);
      all[i]->logits_ = logits_after(all[i]->logits_.size(), all[i]->seed_, all[i]->past_);
    }
    return {};
  }
  void set_logits(std::vector<float> logits) { logits_ = std::move(logits); }

  static inline int alive = 0, most = 0, steps = 0;
  static inline std::size_t room = 1000;

 private:
  Tokens past_;
  std::uint64_t seed_;
  std::vector<float> logits_;
};

std::vector<Beam> search(const Toy& start, const BeamSettings& settings) {
  auto found = beam_search(start, settings, ends);
  REQUIRE(found);
  return std::move(*found);
}

double score_of(const Beam& beam, float alpha) {
  return beam.log_probability / std::pow(static_cast<double>(beam.tokens.size()), static_cast<double>(alpha));
}

void sort(std::vector<Beam>& beams) {
  std::stable_sort(beams.begin(), beams.end(), [](const Beam& a, const Beam& b) { return a.score > b.score; });
}

/// All texts of at most `most` tokens.
void all_texts(std::size_t vocab, std::uint64_t seed, std::size_t most, float alpha, const Beam& so_far,
               std::vector<Beam>& out) {
  const std::vector<double> p = log_probabilities(logits_after(vocab, seed, so_far.tokens));
  for (std::size_t t = 0; t < vocab; ++t) {
    Beam beam = so_far;
    beam.tokens.push_back(static_cast<std::int32_t>(t)), beam.log_probability += p[t];
    beam.score = score_of(beam, alpha), beam.ended = t == end;
    if (beam.ended || beam.tokens.size() == most)
      out.push_back(beam);
    else
      all_texts(vocab, seed, most, alpha, beam, out);
  }
}

/// The same search on token lists alone, which never stops early.
std::vector<Beam> plain_search(std::size_t vocab, std::uint64_t seed, const BeamSettings& s) {
  std::vector<Beam> live(1), finished;
  for (std::int64_t length = 1; length <= s.tokens; ++length) {
    std::vector<Beam> all, next;
    for (const Beam& beam : live) {
      const std::vector<double> p = log_probabilities(logits_after(vocab, seed, beam.tokens));
      for (std::size_t t = 0; t < vocab; ++t) {
        all.push_back(beam);
        all.back().tokens.push_back(static_cast<std::int32_t>(t)), all.back().log_probability += p[t];
        all.back().score = all.back().log_probability;
      }
    }
    sort(all);
    for (Beam& beam : all) {
      if (next.size() == static_cast<std::size_t>(s.width)) break;
      beam.score = score_of(beam, s.length_penalty), beam.ended = beam.tokens.back() == end;
      (beam.ended || length == s.tokens ? finished : next).push_back(beam);
      if (length == s.tokens && !beam.ended &&
          std::count_if(finished.begin(), finished.end(), [](const Beam& b) { return !b.ended; }) == s.width)
        break;
    }
    live = next;
  }
  sort(finished);
  finished.resize(std::min(finished.size(), static_cast<std::size_t>(s.width)));
  return finished;
}

void check_same(const std::vector<Beam>& found, const std::vector<Beam>& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].tokens == expected[i].tokens);
    CHECK(found[i].ended == expected[i].ended);
    CHECK(found[i].log_probability == doctest::Approx(expected[i].log_probability).epsilon(1e-5));
    CHECK(found[i].score == doctest::Approx(expected[i].score).epsilon(1e-5));
  }
}

}  // namespace

TEST_CASE("a search that is wide enough finds all texts, in the order of their scores") {
  for (const float alpha : {0.f, 0.7f, 1.f, 2.f})
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      std::vector<Beam> expected;
      all_texts(3, seed, 5, alpha, {}, expected);  // 32 that go on, and 31 that ended
      sort(expected);
      check_same(search(Toy(3, seed), {.width = 64, .length_penalty = alpha, .tokens = 5}), expected);
    }
}

TEST_CASE("a narrow search is that of the definition, stops as soon as it may, and forks no more than its width") {
  int stopped_early = 0;
  for (const std::int64_t width : {1, 2, 3, 5})
    for (const float alpha : {0.f, 0.7f, 1.f, 2.f})
      for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        const BeamSettings settings{.width = width, .length_penalty = alpha, .tokens = 12};
        Toy::most = Toy::steps = 0;
        check_same(search(Toy(9, seed), settings), plain_search(9, seed, settings));
        CHECK(Toy::most <= width);
        stopped_early += Toy::steps < 11;
      }
  CHECK(stopped_early > 0);
  CHECK(Toy::alive == 0);
}

TEST_CASE("one beam takes the likeliest token each time; more find a likelier text") {
  int better = 0;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Tokens greedy;
    while (greedy.size() < 6 && (greedy.empty() || greedy.back() != end)) {
      const std::vector<float> logits = logits_after(9, seed, greedy);
      greedy.push_back(static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    }
    // With alpha 0 an end only becomes better by coming early; the first one found may not be greedy's.
    const Beam one = search(Toy(9, seed), {.width = 1, .length_penalty = 0.f, .tokens = 6})[0];
    if (!one.ended) CHECK(one.tokens == greedy);
    const Beam many = search(Toy(9, seed), {.width = 8, .length_penalty = 0.f, .tokens = 6})[0];
    CHECK(many.score >= one.score - 1e-9);
    better += many.score > one.score + 1e-6;
  }
  CHECK(better >= 3);
}

TEST_CASE("what is no search is an error, and so is what the session cannot do") {
  const auto message = [](const BeamSettings& settings, const std::vector<float>& logits = {1, 2, 3}) {
    Toy start(3, 1);
    start.set_logits(logits);
    const auto found = beam_search(start, settings, ends);
    return found ? std::string() : found.error().message;
  };
  CHECK(message({}) == "");
  CHECK(message({.width = 0}) == "a search has 1 to 64 beams, found 0");
  CHECK(message({.width = 65}) == "a search has 1 to 64 beams, found 65");
  CHECK(message({.length_penalty = -1.f}) == "the length penalty must be 0 or more, found -1.000000");
  CHECK(message({.length_penalty = std::numeric_limits<float>::quiet_NaN()}) ==
        "the length penalty must be 0 or more, found nan");
  CHECK(message({.tokens = 0}) == "a search writes at least 1 token, found 0");
  CHECK(message({}, std::vector<float>(3, -std::numeric_limits<float>::infinity())) ==
        "no token can follow: all logits are minus infinity");
  CHECK(message({}, {}) == "a search begins after a prompt, found a session without logits");
  Toy::room = 3;
  CHECK(message({.width = 2, .length_penalty = 0.f, .tokens = 3}) == "");
  CHECK(message({.width = 2, .length_penalty = 2.f, .tokens = 30}) == "the context is full");
  Toy::room = 1000;
}

TEST_CASE("a real session is searched as the toy is") {
  static constexpr Config config{.vocab = 9, .width = 1, .context = 30};
  AnyModel model;
  model.config = &config;
  model.state_bytes = [](KvFormat, std::int64_t) { return std::size_t{64}; };
  model.clear_state = [](KvFormat, std::byte* state) { std::memset(state, 0, 64); };
  model.copy_state = [](KvFormat, std::int64_t, std::int64_t, const std::byte* from, std::byte* to) {
    std::memcpy(to, from, 64);
  };
  model.decode_bytes = [](std::int64_t) { return std::size_t{64}; };
  model.stages = 1;
  model.decode = [](const Cpu&, const PackedTensor*, const ModelPass& pass, int) {
    for (const Run& run : pass.runs) {
      std::uint64_t past = 0;
      std::memcpy(&past, run.state, sizeof past);
      for (std::int64_t t = 0; t < run.count; ++t) past = after(past, pass.tokens[run.first + t]);
      std::memcpy(run.state, &past, sizeof past);
      for (const Output& output : pass.outputs)
        if (output.row == run.first + run.count - 1) answer(past, {output.logits, 9});
    }
  };
  const Cpu q = *Cpu::create(1);
  const PackedModel weights = *PackedModel::create(q, model, nullptr);
  auto session = Session::create(q, weights);
  REQUIRE(session);
  CHECK_FALSE(beam_search(*session, {}, ends));
  const Tokens prompt{3, 1, 4, 1};
  REQUIRE(session->prefill(prompt));
  std::uint64_t seed = 0;
  for (const std::int32_t t : prompt) seed = after(seed, t);
  for (const std::int64_t width : {1, 3, 4}) {
    const BeamSettings settings{.width = width, .tokens = 26};
    const auto found = beam_search(*session, settings, ends);
    REQUIRE(found);
    check_same(*found, search(Toy(9, seed), settings));
  }
  CHECK(session->position() == 4);
  CHECK(beam_search(*session, {.length_penalty = 3.f, .tokens = 200}, ends).error().message.find("context is full") !=
        std::string::npos);
}
