#include "data.hpp"
#include "text/pcre2.hpp"

#include <chimera/core/utf8.hpp>
#include <chimera/text/pretokenizer.hpp>

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

using namespace chimera;

using Pieces = std::vector<std::string_view>;

static Pieces pieces(PreTokenizer p, std::string_view text) {
  Pieces found;
  split(p, text, [&](std::string_view piece) { found.push_back(piece); });
  return found;
}

static std::string utf8(std::uint32_t c) {
  std::string text;
  append_utf8(c, text);
  return text;
}

TEST_CASE("rule sets are told by name and by regular expression") {
  for (const auto& r : pretokenizer_rules) {
    CHECK(&rules(r.id) == &r);
    CHECK(pretokenizer_named(r.name) == r.id);
    CHECK(pretokenizer_of_regex(r.regex) == r.id);
  }
  CHECK(pretokenizer_named("gpt-4o") == PreTokenizer::o200k);
  CHECK(pretokenizer_named("refact") == PreTokenizer::smollm);
  CHECK(!pretokenizer_named("falcon"));
  CHECK(!pretokenizer_of_regex(".*"));
  CHECK(pretokenizer_of_regex(
            R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|)"
            R"(\s++$|\s*[\r\n]|\s+(?!\S)|\s)") == PreTokenizer::cl100k);
}

TEST_CASE("Devanagari words stay whole with qwen35 and o200k; digits are cut") {
  const char* text = "नमस्ते दुनिया, 2024 है। don't";
  CHECK(pieces(PreTokenizer::qwen35, text) ==
        Pieces{"नमस्ते", " दुनिया", ",", " ", "2", "0", "2", "4", " है", "।", " don", "'t"});
  CHECK(pieces(PreTokenizer::o200k, text) == Pieces{"नमस्ते", " दुनिया", ",", " ", "202", "4", " है", "।", " don't"});
}

TEST_CASE("numbers one by one, and what is before one as at the end of a text") {
  CHECK(pieces(PreTokenizer::smollm, "in 2024,  12 don't\n\n3  x") ==
        Pieces{"in", " ", "2", "0", "2", "4", ",", "  ", "1", "2", " don", "'t", "\n\n", "3", " ", " x"});
}

TEST_CASE("rules that a GGUF file does not name are llama.cpp's own") {
  CHECK(pieces(PreTokenizer::llama_cpp, "the (don't) 12345 the!!  x\n\ny") ==
        Pieces{"the", " ", "(", "don", "'", "t", ")", " ", "123", "45", " the", "!!", " ", " x", "\n", "\n", "y"});
  CHECK(pieces(PreTokenizer::llama_cpp, "a  $5 \u00A7`1\u0968345678") ==
        Pieces{"a", "  ", "$", "5", " ", "\u00A7", "`", "1\u0968", "345", "678"});
}

TEST_CASE("pieces of broken UTF-8 make up the whole text") {
  std::mt19937_64 random(5);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (auto i = random() % 12; i > 0; --i)
      text += random() % 2 ? static_cast<char>(random() % 256) : " a\xE0\xA4'"[random() % 5];
    for (const auto& r : pretokenizer_rules) {
      std::string joined;
      for (const std::string_view piece : pieces(r.id, text)) {
        REQUIRE(!piece.empty());
        joined += piece;
      }
      REQUIRE(joined == text);
    }
  }
}

TEST_CASE("pieces are the matches of the regular expression in PCRE2, on random text") {
  std::vector<std::vector<std::string>> of(static_cast<std::size_t>(CharClass::end));
  const Pcre2 unassigned(R"(\p{Cn}|\x{180E})");  // U+180E: white space to Perl once, and to PCRE2 still
  for (std::uint32_t c = 0; c < 0x110000; ++c)
    if ((c < 0xD800 || c > 0xDFFF) && unassigned.find_all(utf8(c)).empty())
      of[static_cast<std::size_t>(char_class(c))].push_back(utf8(c));
  const std::vector<std::string> usual{" ",       " ",   "\n",  "\r",  "\t", "/",  "'", "'s", "'S",
                                       "'\u017F", "'ll", "'Re", "'ve", "'d", "'t", "a", "bc", "Z",
                                       "3",       "!",   "।",   "क",   "ि",  "्",   "é", "Ñ"};
  std::mt19937_64 random(7);
  for (const auto& r : pretokenizer_rules) {
    const Pcre2Rules regex(r.regex);
    REQUIRE(regex.ok());
    for (int round = 0; round < 60'000; ++round) {
      std::string text;
      for (auto i = random() % 16; i > 0; --i) {
        const auto& chars = random() % 2 ? usual : of[random() % of.size()];
        text += chars[random() % chars.size()];
      }
      INFO(r.name << ": " << text);
      REQUIRE(pieces(r.id, text) == regex.pieces(text));
    }
  }
}

TEST_CASE("pieces are the matches of the regular expression in PCRE2, on real text") {
  for (const char* file : {"corpora/hindi_help.txt", "corpora/english_help.txt", "tokenizer/o200k_golden.jsonl"}) {
    const std::string text = read_data(file);
    for (const auto& r : pretokenizer_rules) CHECK(pieces(r.id, text) == Pcre2Rules(r.regex).pieces(text));
  }
}

TEST_CASE("time grows with the length of the text, whatever it says") {
  for (const char* part : {" ", "\n", "a", "A", "1", "!", "\u0301", "Aa", "\u0301A", "'", " \n", "\xE0", "ก"}) {
    std::string text;
    while (text.size() < 1'000'000) text += part;
    for (const auto& r : pretokenizer_rules) CHECK(!pieces(r.id, text).empty());
  }
}
