#include "text/languages.hpp"

#include <chimera/text/token_statistics.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace chimera;
using namespace languages;

TEST_CASE("statistics of a text") {
  const std::string en = "the cat the dog 42\n", hi = "क्या का";
  const std::vector<CountedText> texts{{en, 0}, {hi, 1}};
  const Cpu q = cpu(2);
  const PieceCounts counts = PieceCounts::count(q, PreTokenizer::qwen35, texts, 2);
  BpeMerges learned;  // th he_; ' t' + 'he'; the characters क ् य ा and no cluster
  learned.merges = {{'h', 'e'},  {'t', 256},  {' ', 257},  {0xE0, 0xA4}, {0xE0, 0xA5},
                    {259, 0x95}, {260, 0x8D}, {259, 0xAF}, {259, 0xBE}};
  const auto tokenizer = Tokenizer::create(bpe_vocabulary(learned, PreTokenizer::qwen35, settings(300)));
  REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.error().message);
  std::vector<bool> used(static_cast<std::size_t>(tokenizer->size()));
  const auto s = measure_tokens(q, *tokenizer, counts, &used);
  CHECK(s[0].bytes == 19);
  CHECK(s[0].pieces == 8);  // the| cat| the| dog| |4|2|\n
  CHECK(s[0].tokens == 1 + 4 + 1 + 4 + 4);
  CHECK(s[0].words == 4);
  CHECK(s[0].whole_words == 2);
  CHECK(s[0].tokens_per_word() == 2.5);
  CHECK(s[0].inside_clusters == 0);
  CHECK(s[1].tokens == 4 + 3);  // क ् य ा, space क ा
  CHECK(s[1].inside_clusters == 3 + 1);
  CHECK(s[1].bytes_per_token() == doctest::Approx(19.0 / 7));
  CHECK(used[257]);
  CHECK(!used[256]);
}
