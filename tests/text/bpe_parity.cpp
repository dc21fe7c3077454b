#include "text/languages.hpp"

#include <chimera/text/bpe_parity.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <vector>

using namespace chimera;
using namespace languages;

TEST_CASE("a language of more weight takes fewer tokens, and parity is found between the ends") {
  const Languages languages;
  const Cpu q = cpu(2);
  const PieceCounts counts = PieceCounts::count(q, PreTokenizer::qwen35, languages.texts, 2);
  const BpeSettings s = settings(600);
  double last = 1e9;
  for (const double share : {0.1, 0.3, 0.5, 0.7, 0.9}) {
    const auto learned = train_bpe(counts, bpe_weights(counts, std::vector<double>{1 - share, share}), s);
    REQUIRE(learned.ok());
    const double parity = static_cast<double>(learned->tokens[1]) / static_cast<double>(learned->tokens[0]);
    CHECK(parity < last);
    last = parity;
  }

  const std::vector<double> shares{0.5, 0.5};
  ParityGoal goal{.language = 1, .text = 1, .reference = 0};
  const auto at = [&](double parity) {
    goal.parity = parity;
    auto mix = train_bpe_to_parity(q, counts, shares, goal, s);
    REQUIRE(mix.ok());
    return std::move(*mix);
  };
  const double least = at(0.0).parity, most = at(1e9).parity;  // all that shares can do
  CHECK(!at(0.0).reaches(goal));
  CHECK(at(0.0).shares[1] == doctest::Approx(goal.most_share));
  CHECK(at(1e9).shares[1] == doctest::Approx(goal.least_share));
  REQUIRE(least < most);
  for (const double part : {0.25, 0.5, 0.75}) {
    const double wanted = least + part * (most - least);
    const BpeMix mix = at(wanted);
    CHECK(mix.parity <= wanted);
    CHECK(mix.parity > wanted - 0.03);
    CHECK(mix.shares[0] + mix.shares[1] == doctest::Approx(1));
  }
  const auto alone = train_bpe_to_parity(q, counts, std::vector<double>{0, 1}, goal, s);
  REQUIRE(!alone.ok());
  CHECK(alone.error().message.find("two languages") != std::string::npos);
  const PieceCounts wider = PieceCounts::count(q, PreTokenizer::qwen35, languages.texts, 3);
  const auto nothing = train_bpe_to_parity(q, wider, shares, {.language = 1, .text = 2, .reference = 0}, s);
  REQUIRE(!nothing.ok());
  CHECK(nothing.error().message.find("aligned sentences") != std::string::npos);
}
