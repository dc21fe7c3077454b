#include "data.hpp"
#include "exchange/tokenizers.hpp"
#include "temporary_folder.hpp"

#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/rank_file.hpp>
#include <chimera/exchange/tokenizer_json.hpp>

#include <doctest/doctest.h>

#include <string>
#include <utility>

using namespace chimera;

TEST_CASE("tokenizer.json written and read is the same tokenizer, for every set of rules") {
  for (const auto& r : pretokenizer_rules)
    for (const bool whole_words : {false, true}) {
      Vocabulary v = small_vocabulary();
      v.pretokenizer = r.id;
      v.whole_words = whole_words;
      const Tokenizer t = good(Tokenizer::create(std::move(v)));
      const TemporaryFolder folder;
      write_file(folder / "tokenizer.json", tokenizer_json(t));
      write_file(folder / "tokenizer_config.json", tokenizer_config_json(t));
      const Tokenizer again = good(load_tokenizer(folder.path));
      same(t, again);
      CHECK(again.vocabulary().whole_words == whole_words);
      CHECK(again.size() == t.size());
    }
}

TEST_CASE("a tokenizer.json of another kind is refused with a reason") {
  const std::string whole = tokenizer_json(good(Tokenizer::create(small_vocabulary())));
  const auto error = [&](const std::string& what, const std::string& by) {
    std::string text = whole;
    const std::size_t at = text.find(what);
    REQUIRE(at != std::string::npos);
    const auto wrong = read_tokenizer_json(text.replace(at, what.size(), by));
    REQUIRE(!wrong.ok());
    return wrong.error().message;
  };
  CHECK(error("\"type\": \"BPE\"", "\"type\": \"Unigram\"") == "model: expected the type \"BPE\", found \"Unigram\"");
  CHECK(error("\"byte_fallback\": false", "\"byte_fallback\": true") ==
        "model: expected byte-level BPE, found byte_fallback");
  CHECK(error("\"end_of_word_suffix\": null", "\"end_of_word_suffix\": \"</w>\"") ==
        "model: expected no end_of_word_suffix, found \"</w>\"");
  CHECK(error("\"normalizer\": null", "\"normalizer\": {\"type\": \"Lowercase\"}") ==
        "normalizer: expected none or NFC, found \"Lowercase\"");
  CHECK(error("'s|'t", "'s|'x").starts_with("pre_tokenizer: no known rules have the regular expression (?i:'s|'x"));
  CHECK(error("\"Isolated\"", "\"Removed\"") == "pre_tokenizer: expected the behavior \"Isolated\", found \"Removed\"");
  CHECK(error("\"Split\"", "\"Digits\"") == "pre_tokenizer: expected Split and ByteLevel, found \"Digits\"");
  CHECK(error("\"add_prefix_space\": false", "\"add_prefix_space\": true") ==
        "pre_tokenizer: add_prefix_space is not supported");
  CHECK(error("\"lstrip\": false", "\"lstrip\": true") == "added_tokens: lstrip of \"<|endoftext|>\" is not supported");
  CHECK(error("\"ab\": 265", "\"ab\": 4611686018427387904").starts_with("model.vocab: expected an id for \"ab\""));
  CHECK(error("\"ab\": 265", "\"ab\": 97") == "model.vocab: the id 97 is there twice");
  CHECK(error("[\"a\", \"b\"]", "[\"a\"]") == "model.merges: merge 0: expected two tokens, found \"\", which is none");
  CHECK(error("[\"a\", \"b\"]", "[\"a\", \"c\"]") == "merge 0: the tokens 97 and 99 make no token");
  CHECK(error("\"!\": 33", "\"!!\": 33") == "expected a token for each of the 256 bytes, found none for byte 33");
  CHECK(!read_tokenizer_json("{}").ok());
  CHECK(!read_tokenizer_json("[").ok());
}

TEST_CASE("o200k goes out as tokenizer.json with the same ids") {
  const std::string ranks = read_data("tokenizer/o200k_base.tiktoken.gz"), text = read_data("corpora/hindi_help.txt");
  if (ranks.empty() || text.empty()) return;
  const Tokenizer t = good(read_rank_file(ranks, PreTokenizer::o200k, o200k_specials));
  const Tokenizer again = good(read_tokenizer_json(tokenizer_json(t)));
  CHECK(again.encode(text) == t.encode(text));
}
