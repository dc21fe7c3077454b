#include "data.hpp"
#include "text/vocabularies.hpp"

#include <chimera/text/encoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

using namespace chimera;
using namespace vocabularies;

static std::string error_of(Vocabulary v) {
  const auto t = Tokenizer::create(std::move(v));
  REQUIRE(!t.ok());
  return t.error().message;
}

TEST_CASE("merges happen in the order of the list, the leftmost first") {
  Vocabulary v = bytes_and({"ab", "bc", "aa"});
  v.merges = {{'b', 'c'}, {'a', 'b'}, {'a', 'a'}};
  const Tokenizer t = made(std::move(v));
  CHECK(t.encode("abc") == Ids{'a', 257});
  CHECK(t.encode("aaa") == Ids{258, 'a'});
  CHECK(t.encode("aab") == Ids{'a', 256});
  CHECK(t.encode("ab") == Ids{256});
}

TEST_CASE("a token that merges do not lead to is used only if whole words are looked up") {
  Vocabulary v = bytes_and({"ab", "abc"});
  v.merges = {{'a', 'b'}};
  const Tokenizer plain = made(v);
  CHECK(plain.encode("abc") == Ids{256, 'c'});
  v.whole_words = true;
  CHECK(made(v).encode("abc") == Ids{257});
}

TEST_CASE("by rank, whatever joins to a token merges, the lowest id first") {
  Vocabulary v = bytes_and({"bc", "ab", "cd", "abcd"});
  v.merge_by_rank = v.whole_words = true;
  const Tokenizer t = made(v);
  CHECK(t.encode("abc") == Ids{'a', 256});
  CHECK(t.encode("abcd") == Ids{259});
  CHECK(t.encode("xabcd") == Ids{'x', 'a', 256, 'd'});
}

/// Byte-pair encoding as one would write it down.
static Ids plain_merge(const std::map<std::string, std::int32_t>& ranks, const std::string& piece) {
  std::vector<std::string> parts;
  for (const char c : piece) parts.emplace_back(1, c);
  while (true) {
    std::size_t best = parts.size();
    std::int32_t lowest = 1 << 30;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks.find(parts[i] + parts[i + 1]);
      if (found != ranks.end() && found->second < lowest) lowest = found->second, best = i;
    }
    if (best == parts.size()) break;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  Ids ids;
  for (const std::string& part : parts) ids.push_back(ranks.at(part));
  return ids;
}

TEST_CASE("merging short and long pieces, cached or not, is plain merging") {
  std::mt19937_64 random(11);
  for (int round = 0; round < 200; ++round) {
    Vocabulary v = bytes_and({});
    std::map<std::string, std::int32_t> ranks;
    for (int b = 0; b < 256; ++b) ranks[std::string(1, static_cast<char>(b))] = b;
    for (int tries = 0; tries < 60; ++tries) {
      std::string joined;
      for (auto n = 2 + random() % 2; n > 0; --n) {
        auto it = ranks.begin();
        if (random() % 2 || ranks.size() == 256)
          joined += "abc"[random() % 3];
        else
          std::advance(it, static_cast<std::ptrdiff_t>(random() % ranks.size())), joined += it->first;
      }
      if (joined.size() > 12 || !ranks.emplace(joined, static_cast<std::int32_t>(v.tokens.size())).second) continue;
      v.tokens.push_back({joined, TokenType::normal});
    }
    v.merge_by_rank = true;
    const Tokenizer t = made(v);
    Encoder encoder(t, 4);
    for (int k = 0; k < 20; ++k) {
      std::string word;
      for (auto n = random() % (k < 15 ? 40 : 300); n > 0; --n) word += "abc"[random() % 3];
      const Ids expected = plain_merge(ranks, word);
      REQUIRE(t.encode(word) == expected);
      REQUIRE(encoder.encode(word) == expected);
      REQUIRE(encoder.encode(word) == expected);
      REQUIRE(t.decode(expected) == word);
    }
  }
}

TEST_CASE("a megabyte of one letter, and of a pattern, takes no time") {
  Vocabulary v = bytes_and({"aa", "aaaa", "aaaaaaaa", "ab", "abab"});
  v.merge_by_rank = true;
  const Tokenizer t = made(v);
  CHECK(t.encode(std::string(1 << 20, 'a')).size() == 1 << 17);
  std::string pattern;
  while (pattern.size() < 1 << 20) pattern += "ab";
  CHECK(t.encode(pattern).size() == 1 << 18);
}

TEST_CASE("specials: control tokens on request, user-defined ones always, the longest first") {
  Vocabulary v = bytes_and({});
  v.tokens.push_back({"<|end|>", TokenType::control});
  v.tokens.push_back({"<x>", TokenType::user_defined});
  v.tokens.push_back({"<x>y", TokenType::user_defined});
  v.tokens.push_back({"[PAD0]", TokenType::unused});
  v.eos = 256;
  const Tokenizer t = made(v);
  CHECK(t.encode("a<|end|>b", Special::as_token) == Ids{'a', 256, 'b'});
  CHECK(t.encode("a<|end|>b").size() == 9);
  CHECK(t.encode("<x><x>y<x") == Ids{257, 258, '<', 'x'});
  CHECK(t.encode("[PAD0]", Special::as_token).size() == 6);
  CHECK(t.decode(Ids{'a', 256, 257}) == "a<|end|><x>");
  CHECK(t.decode(Ids{'a', 256, 257, -1, 999}, Special::as_token) == "a<x>");
  CHECK(t.special("<|end|>") == 256);
  CHECK(!t.special("<|end"));
  CHECK(t.ends_text(256));
  CHECK(!t.ends_text(257));
}

TEST_CASE("any bytes come back") {
  Vocabulary v = bytes_and({"\xE0\xA4", "\xE0\xA4\x95", " a", "\xFF\xFF"});
  v.tokens.push_back({"<|end|>", TokenType::control});
  v.merge_by_rank = true;
  std::mt19937_64 random(13);
  for (const auto& r : pretokenizer_rules) {
    v.pretokenizer = r.id;
    const Tokenizer t = made(v);
    Encoder encoder(t);
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (auto n = random() % 30; n > 0; --n)
        text += random() % 3 ? "\xE0\xA4\x95 a\xFF"[random() % 6] : static_cast<char>(random());
      if (random() % 2) text += "<|end|>";
      for (const Special s : {Special::as_text, Special::as_token}) REQUIRE(t.decode(encoder.encode(text, s)) == text);
    }
  }
}

TEST_CASE("what is no vocabulary is refused with a reason") {
  Vocabulary v = bytes_and({});
  v.tokens[7].type = TokenType::unused;
  CHECK(error_of(v) == "expected a token for each of the 256 bytes, found none for byte 7");
  CHECK(error_of(bytes_and({"ab", "ab"})) == "token 257 has the same bytes as token 256");
  CHECK(error_of(bytes_and({""})) == "token 256 is empty");
  v = bytes_and({"ab"});
  v.merges = {{'a', 'b'}, {'a', 'c'}};
  CHECK(error_of(v) == "merge 1: the tokens 97 and 99 make no token");
  v.merges = {{'a', 1 << 30}};
  CHECK(error_of(v).starts_with("merge 0"));
  v = bytes_and({});
  v.eos = 256;
  CHECK(error_of(v) == "expected special ids below the number of tokens, 256, found 256");
}
