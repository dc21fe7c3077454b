#include "text/languages.hpp"

#include <chimera/text/bpe_parity.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/unicode.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <vector>

using namespace chimera;
using namespace languages;

namespace {

/// What train_bpe learns, the slow and obvious way: count all pairs anew for each merge.
std::vector<std::pair<std::int32_t, std::int32_t>> plain_training(const PieceCounts& counts,
                                                                  std::vector<std::int64_t> weights, std::size_t merges,
                                                                  std::int64_t least) {
  std::vector<std::vector<std::int32_t>> pieces;
  std::vector<std::int64_t> weight;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    pieces.emplace_back();
    for (const char c : counts.piece(i)) pieces.back().push_back(static_cast<unsigned char>(c));
    weight.push_back(0);
    for (std::size_t c = 0; c < weights.size(); ++c) weight.back() += weights[c] * counts.count(i, static_cast<int>(c));
  }
  std::vector<std::pair<std::int32_t, std::int32_t>> learned;
  while (learned.size() < merges) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> pairs;
    for (std::size_t i = 0; i < pieces.size(); ++i)
      for (std::size_t j = 0; j + 1 < pieces[i].size(); ++j) pairs[{pieces[i][j], pieces[i][j + 1]}] += weight[i];
    const auto best =
        std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == pairs.end() || best->second < least) break;
    const std::int32_t made = 256 + static_cast<std::int32_t>(learned.size());
    learned.push_back(best->first);
    for (auto& piece : pieces) {
      std::vector<std::int32_t> joined;
      for (std::size_t j = 0; j < piece.size(); ++j) {
        const bool here = j + 1 < piece.size() && std::pair(piece[j], piece[j + 1]) == best->first;
        joined.push_back(here ? made : piece[j]);
        j += here;
      }
      piece = joined;
    }
  }
  return learned;
}

std::vector<std::string> tokens_of(const BpeMerges& learned) {
  std::vector<std::string> tokens;
  for (const Token& t : bpe_vocabulary(learned, PreTokenizer::qwen35, settings(300)).tokens) tokens.push_back(t.bytes);
  tokens.pop_back();
  return tokens;
}

std::vector<std::uint32_t> code_points(std::string_view text) {
  std::vector<std::uint32_t> codes;
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    codes.push_back(c.value);
    text.remove_prefix(c.bytes);
  }
  return codes;
}
bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t n = utf8_size(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

}  // namespace

TEST_CASE("merges are those of counting all pairs anew each time") {
  const Languages languages;
  const PieceCounts counts = PieceCounts::count(cpu(1), PreTokenizer::qwen35, languages.texts, 2);
  BpeSettings s = settings(256 + 1 + 400);
  s.whole_clusters = s.favour_short = false;
  for (const std::vector<std::int64_t>& weights : {std::vector<std::int64_t>{1, 1}, {1, 7}, {3, 0}, {1024, 1500}}) {
    const auto learned = train_bpe(counts, weights, s);
    REQUIRE(learned.ok());
    std::int64_t least = 1 << 20;
    for (const std::int64_t w : weights) least = w > 0 ? std::min(least, 2 * w) : least;
    CHECK(learned->merges == plain_training(counts, weights, 400, least));
  }
}

TEST_CASE("runs of one letter merge from the left, as encoding does") {
  const std::string text = "aaaaaaa aaa aaaaa aaaaaaaaaaaaaaa baaab aaaa aaaaaaa\n";
  const std::vector<CountedText> texts{{text, 0}};
  const PieceCounts counts = PieceCounts::count(cpu(1), PreTokenizer::qwen35, texts, 1);
  BpeSettings plain = settings(280);
  plain.favour_short = false;
  const auto learned = train_bpe(counts, std::vector<std::int64_t>{1}, plain);
  REQUIRE(learned.ok());
  CHECK(learned->merges == plain_training(counts, {1}, 23, 2));
  const auto tokenizer = Tokenizer::create(bpe_vocabulary(*learned, PreTokenizer::qwen35, settings(280)));
  REQUIRE(tokenizer.ok());
  CHECK(static_cast<std::int64_t>(tokenizer->encode(text).size()) == learned->tokens[0]);
}

TEST_CASE("the tokenizer that was learned encodes as the training did, also what it was not trained on") {
  const Languages languages;
  const std::string unseen =
      made_text(latin, 500, 77) + made_text(devanagari, 500, 78) + "🦁👩‍👩‍👧 \xFF\xE0\xA4";
  std::vector<CountedText> texts = languages.texts;
  texts.push_back({unseen, 2});
  const PieceCounts counts = PieceCounts::count(cpu(2), PreTokenizer::qwen35, texts, 3);
  for (const std::int64_t vocab : {700, 9000}) {
    const auto learned = train_bpe(counts, std::vector<std::int64_t>{1, 2}, settings(vocab));
    REQUIRE(learned.ok());
    const auto tokenizer = Tokenizer::create(bpe_vocabulary(*learned, counts.rules(), settings(vocab)));
    REQUIRE_MESSAGE(tokenizer.ok(), tokenizer.error().message);
    for (const CountedText& t : texts) {
      const auto ids = tokenizer->encode(t.text);
      CHECK(static_cast<std::int64_t>(ids.size()) == learned->tokens[static_cast<std::size_t>(t.column)]);
      CHECK(tokenizer->decode(ids) == t.text);
    }
  }
}

TEST_CASE("the same merges for every number of threads and in every run") {
  const Languages languages;
  const ParityGoal goal{.language = 1, .text = 1, .reference = 0, .parity = 1.1};
  const std::vector<double> shares{0.5, 0.5};
  std::vector<std::pair<std::int32_t, std::int32_t>> first;
  for (const int threads : {1, 2, 5, 5}) {
    const Cpu q = cpu(threads);
    const PieceCounts counts = PieceCounts::count(q, PreTokenizer::qwen35, languages.texts, 2);
    const auto mix = train_bpe_to_parity(q, counts, shares, goal, settings(700));
    REQUIRE(mix.ok());
    if (first.empty()) first = mix->learned.merges;
    CHECK(mix->learned.merges == first);
  }
  CHECK(first.size() > 300);
}

TEST_CASE("no token of several characters begins inside a cluster or holds part of a character") {
  const Languages languages;
  const std::string other =
      "한국어 각 👩‍👩‍👧 🇮🇳 é è e\u0301e\u0301 日本 日本 क्‍ष क्‍ष "
      "ക്ഷ "
      "ക്ഷ "
      "กำ "
      "กำ "
      "\xE0\xA4\xE0\xA4 "
      "\xE0\xA4\xE0\xA4";
  std::vector<CountedText> texts = languages.texts;
  texts.push_back({other, 0});
  texts.push_back({other, 0});
  const PieceCounts counts = PieceCounts::count(cpu(2), PreTokenizer::qwen35, texts, 2);
  for (const std::int64_t vocab : {1500, 12000}) {  // without and with Devanagari first
    BpeSettings s = settings(vocab);
    const auto learned = train_bpe(counts, std::vector<std::int64_t>{1, 1}, s);
    REQUIRE(learned.ok());
    const auto tokens = tokens_of(*learned);
    CHECK(std::set<std::string>(tokens.begin(), tokens.end()).size() == tokens.size());
    for (std::size_t id = 256; id < tokens.size(); ++id) {
      const std::string& t = tokens[id];
      CAPTURE(t);
      if (!is_utf8(t)) {  // the beginning of one character
        CHECK(t.size() < 4);
        CHECK(static_cast<unsigned char>(t[0]) >= 0xC2);
        CHECK(std::all_of(t.begin() + 1, t.end(), [](char c) { return (c & 0xC0) == 0x80; }));
        continue;
      }
      const auto codes = code_points(t);
      if (codes.size() == 1) continue;
      CHECK(!continues_cluster(grapheme_class(codes[0])));
      CHECK(next_grapheme("क" + t, 0) == 3);  // what stands before it stays whole
    }
    s.whole_clusters = false;
    const auto free = tokens_of(*train_bpe(counts, std::vector<std::int64_t>{1, 1}, s));
    CHECK(std::any_of(free.begin() + 256, free.end(), [](const std::string& t) {
      return is_utf8(t) && code_points(t).size() > 1 && continues_cluster(grapheme_class(code_points(t)[0]));
    }));
  }
}

TEST_CASE("Devanagari comes first if the texts have it and there is room") {
  const Languages languages;
  const std::vector<CountedText> english{{languages.en, 0}};
  const PieceCounts both = PieceCounts::count(cpu(1), PreTokenizer::qwen35, languages.texts, 2);
  const PieceCounts one = PieceCounts::count(cpu(1), PreTokenizer::qwen35, english, 1);
  const auto with = tokens_of(*train_bpe(both, std::vector<std::int64_t>{1, 1}, settings(8300)));
  for (std::uint32_t code = 0x900; code < 0x980; ++code) {
    std::string character;
    append_utf8(code, character);
    CHECK(with[258 + code - 0x900] == character);
  }
  for (const char* syllable : {"कॉ", "टू", "हृ", "र्"}) CHECK(std::count(with.begin(), with.end(), syllable) == 1);
  for (const auto& without : {tokens_of(*train_bpe(both, std::vector<std::int64_t>{1, 1}, settings(800))),
                              tokens_of(*train_bpe(one, std::vector<std::int64_t>{1}, settings(8300)))})
    CHECK(std::count(without.begin(), without.end(), "कॉ") == 0);
}

TEST_CASE("weights stand for shares of the pieces") {
  const std::string many(3000, '!'), few = "a b c";
  std::string words;
  for (int i = 0; i < 300; ++i) words += " x";
  const std::vector<CountedText> texts{{words, 0}, {few, 1}};
  const PieceCounts counts = PieceCounts::count(cpu(1), PreTokenizer::qwen35, texts, 2);
  const auto weights = bpe_weights(counts, std::vector<double>{1, 1});
  CHECK(static_cast<double>(weights[0] * 300) == doctest::Approx(static_cast<double>(weights[1] * 3)).epsilon(0.01));
  CHECK(bpe_weights(counts, std::vector<double>{1, 0})[1] == 0);
  CHECK(bpe_weights(counts, std::vector<double>{0, 0}) == std::vector<std::int64_t>{0, 0});
}

TEST_CASE("a shorter pair is learned before a longer one that occurs a little more often") {
  std::string text;  // " abcd" 11 times, " xy" 10 times
  for (int i = 0; i < 11; ++i) text += " abcd";
  for (int i = 0; i < 10; ++i) text += " xy";
  const std::vector<CountedText> texts{{text, 0}};
  const PieceCounts counts = PieceCounts::count(cpu(1), PreTokenizer::qwen35, texts, 1);
  BpeSettings s = settings(257 + 5);
  const auto made_before = [&](const std::string& first, const std::string& second) {
    const auto tokens = tokens_of(*train_bpe(counts, std::vector<std::int64_t>{1}, s));
    return std::find(tokens.begin(), tokens.end(), first) < std::find(tokens.begin(), tokens.end(), second);
  };
  CHECK(made_before(" x", " abcd"));
  s.favour_short = false;
  CHECK(made_before(" abcd", " x"));
}

TEST_CASE("the host may stop it, and errors say what was expected") {
  const Languages languages;
  const PieceCounts counts = PieceCounts::count(cpu(1), PreTokenizer::qwen35, languages.texts, 2);
  const BpeWatch stop{[](void*, std::int64_t merges) { return merges < 1024; }, nullptr};
  const auto error = [&](const auto& result) {
    REQUIRE(!result.ok());
    return result.error().message;
  };
  const std::vector<std::int64_t> weights{1, 1};
  CHECK(error(train_bpe(counts, weights, settings(3000), stop)).find("stopped after 1024 merges") != std::string::npos);
  CHECK(error(train_bpe(counts, weights, settings(200))).find("found 200") != std::string::npos);
  CHECK(error(train_bpe(counts, std::vector<std::int64_t>{0, 0}, settings(3000))).find("weights") != std::string::npos);
  CHECK(error(train_bpe(counts, std::vector<std::int64_t>{1, -1}, settings(3000))).find("weights") !=
        std::string::npos);
  CHECK(error(train_bpe(counts, std::vector<std::int64_t>{1, 1, 1}, settings(3000))).find("weights") !=
        std::string::npos);
  const PieceCounts none = PieceCounts::count(cpu(1), PreTokenizer::qwen35, std::vector<CountedText>{}, 1);
  const auto bytes_alone = train_bpe(none, std::vector<std::int64_t>{1}, settings(3000));
  REQUIRE(bytes_alone.ok());
  CHECK(bytes_alone->merges.empty());
}
