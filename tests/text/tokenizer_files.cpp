#include "temporary_folder.hpp"
#include "text/data.hpp"

#include <chimera/text/tokenizer_files.hpp>

#include <doctest/doctest.h>

#include <sstream>
#include <string>
#include <vector>

using namespace chimera;

using Ids = std::vector<std::int32_t>;

static Tokenizer good(Result<Tokenizer> t) {
  REQUIRE_MESSAGE(t.ok(), t.error().message);
  return std::move(*t);
}

TEST_CASE("ids are those of llama.cpp for its own vocabularies and strings") {
  for (const char* name : {"gpt-2", "llama-bpe", "qwen2", "qwen35"}) {
    CAPTURE(name);
    const std::string base = "tokenizer/ggml-vocab-" + std::string(name) + ".gguf";
    const std::string inputs = read_data(base + ".inp");
    if (inputs.empty()) continue;
    const Tokenizer t = good(load_tokenizer(data_path(base)));
    std::istringstream expected(read_data(base + ".out"));
    const std::string separator = "\n__ggml_vocab_test__\n";
    int cases = 0;
    for (std::size_t from = 0; from < inputs.size(); ++cases) {
      const std::size_t to = std::min(inputs.find(separator, from), inputs.size());
      const std::string text = inputs.substr(from, to - from);
      from = to + separator.size();
      std::string line;
      std::getline(expected, line);
      std::istringstream numbers(line);
      Ids ids;
      for (std::int32_t id; numbers >> id;) ids.push_back(id);
      CHECK(t.encode(text) == ids);
      CHECK(t.decode(ids) == text);
    }
    CHECK(cases > 40);
  }
}

TEST_CASE("ids of o200k are the golden ones") {
  const std::string ranks = read_data("tokenizer/o200k_base.tiktoken.gz");
  if (ranks.empty()) return;
  const Tokenizer t = good(read_rank_file(ranks, PreTokenizer::o200k, o200k_specials));
  Encoder encoder(t);
  std::istringstream lines(read_data("tokenizer/o200k_golden.jsonl"));
  int cases = 0;
  for (std::string line; std::getline(lines, line); ++cases) {
    const auto json = Json::parse(line);
    REQUIRE(json.ok());
    const std::string text = *json->string_at("text");
    Ids ids;
    for (const Json& id : json->find("ids")->elements()) ids.push_back(static_cast<std::int32_t>(*id.integer()));
    CHECK(encoder.encode(text) == ids);
    CHECK(t.decode(ids) == text);
  }
  CHECK(cases > 200);
  CHECK(t.encode("<|endoftext|>", Special::as_token) == Ids{199999});
}

/// All bytes, merges in two scripts, a whole word, specials of each kind, and a gap.
static Vocabulary small_vocabulary() {
  Vocabulary v = byte_vocabulary();
  for (const char* token : {"ab", "abc", " ab", "\xE0\xA4", "\xE0\xA4\x95", "\xFF\xFE"})
    v.tokens.push_back({token, TokenType::normal});
  v.tokens.push_back({"<tool \"x\">", TokenType::user_defined});
  v.tokens.push_back({});
  v.tokens.push_back({"<|last|>", TokenType::control});
  v.merge_by_rank = true;
  v.add_bos = true;
  v.chat_template = "{{ messages }}\n";
  v.pretokenizer = PreTokenizer::qwen35;
  return v;
}

static const std::vector<std::string> samples{"abc ab xabcab", "\u0915\u0916 don't 123\n\n",
                                              "<tool \"x\"><|last|><|endoftext|>ab", "\xFF\xFE\xFF\xC3", ""};

static void same(const Tokenizer& a, const Tokenizer& b) {
  CHECK(a.vocabulary().pretokenizer == b.vocabulary().pretokenizer);
  CHECK(a.vocabulary().merges == b.vocabulary().merges);
  CHECK(a.vocabulary().bos == b.vocabulary().bos);
  CHECK(a.vocabulary().eos == b.vocabulary().eos);
  CHECK(a.vocabulary().padding == b.vocabulary().padding);
  CHECK(a.vocabulary().add_bos == b.vocabulary().add_bos);
  CHECK(a.vocabulary().add_eos == b.vocabulary().add_eos);
  CHECK(a.vocabulary().chat_template == b.vocabulary().chat_template);
  for (const std::string& text : samples)
    for (const Special s : {Special::as_text, Special::as_token}) CHECK(a.encode(text, s) == b.encode(text, s));
}

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

TEST_CASE("GGUF metadata written and read is the same tokenizer, padded to the model's vocabulary") {
  const TemporaryFolder folder;
  const Tokenizer t = good(Tokenizer::create(small_vocabulary()));
  GgufWriter writer;
  set_tokenizer(writer, t, 300);
  REQUIRE(writer.begin(folder / "t.gguf").ok());
  REQUIRE(writer.commit().ok());
  const Tokenizer again = good(load_tokenizer(folder / "t.gguf"));
  same(t, again);
  CHECK(again.vocabulary().eot == t.vocabulary().eot);
  CHECK(again.size() == 300);
  CHECK(again.bytes(299) == "[PAD299]");
  CHECK(again.encode("[PAD299]", Special::as_token).size() == 8);
}

TEST_CASE("rank files") {
  std::string file;
  const auto line = [](std::string_view base64, std::int64_t rank) {
    return std::string(base64) + " " + std::to_string(rank) + "\n";
  };
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (unsigned b = 0; b < 256; ++b) file += line(std::string{digits[b >> 2], digits[(b & 3) << 4], '=', '='}, b);
  const std::array<RankedSpecial, 1> end{{{"<|endoftext|>", 300}}};
  const auto read = [&](const std::string& more) { return read_rank_file(file + more, PreTokenizer::o200k, end); };
  const Tokenizer t = good(read(line("YWI=", 256) + "\r\n" + line("YWJj", 257)));
  CHECK(t.encode("ab abc") == Ids{256, ' ', 257});
  CHECK(t.encode("<|endoftext|>", Special::as_token) == Ids{300});
  CHECK(t.vocabulary().eos == 300);
  CHECK(t.bytes(280).empty());

  const auto error = [&](const std::string& more) {
    const auto wrong = read(more);
    REQUIRE(!wrong.ok());
    return wrong.error().message;
  };
  CHECK(error("YWI=256\n") == "line 257: expected a token in base64, a space and its rank, found \"YWI=256\"");
  CHECK(error("YW%= 256\n").starts_with("line 257: expected a token in base64"));
  CHECK(error("YWI= 9223372036854775807\n").starts_with("line 257: expected a rank not far above"));
  CHECK(error("YWI= -1\n").starts_with("line 257: expected a rank"));
  CHECK(error("YWI= 3\n") == "line 257: the rank 3 is there twice");
  CHECK(error("YWI= 300\n") == "the special token <|endoftext|> has the id of another, 300");
  CHECK(error("YQ== 256\n") == "token 256 has the same bytes as token 97");
  CHECK(!read_rank_file("", PreTokenizer::o200k, {}).ok());
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

TEST_CASE("GGUF metadata of another kind is refused with a reason") {
  const TemporaryFolder folder;
  const Tokenizer t = good(Tokenizer::create(small_vocabulary()));
  const auto error = [&](const char* key, const auto& value) {
    GgufWriter writer;
    set_tokenizer(writer, t, 0);
    writer.set(key, value);
    REQUIRE(writer.begin(folder / "t.gguf").ok());
    REQUIRE(writer.commit().ok());
    const auto wrong = load_tokenizer(folder / "t.gguf");
    REQUIRE(!wrong.ok());
    return wrong.error().message.substr(folder.path.size() + std::string("/t.gguf: ").size());
  };
  CHECK(error("tokenizer.ggml.model", "llama") ==
        "tokenizer.ggml.model: expected \"gpt2\" (byte-level BPE), found \"llama\"");
  CHECK(error("tokenizer.ggml.pre", "falcon") == "tokenizer.ggml.pre: no known rules have the name \"falcon\"");
  CHECK(error("tokenizer.ggml.pre", 7u).find("tokenizer.ggml.pre") != std::string::npos);
  CHECK(error("tokenizer.ggml.bos_token_id", 274u) ==
        "tokenizer.ggml.bos_token_id: expected the id of one of 274 tokens, found 274");
  CHECK(error("tokenizer.ggml.token_type", std::vector<std::int32_t>{1}) ==
        "tokenizer.ggml.token_type: expected 274 types, found 1");
  CHECK(error("tokenizer.ggml.token_type", std::vector<std::int32_t>(274, 7)) ==
        "tokenizer.ggml.token_type: expected 1 to 6, found 7");
  CHECK(error("tokenizer.ggml.merges", std::vector<std::string>{"a c"}) ==
        "merge 0: the tokens 97 and 99 make no token");
  CHECK(error("tokenizer.ggml.merges", std::vector<std::string>{""}).starts_with("tokenizer.ggml.merges: merge 0"));
  CHECK(error("tokenizer.ggml.tokens", std::vector<std::string>{"a"}).starts_with("tokenizer.ggml.merges: merge 0"));
}

TEST_CASE("o200k goes out as tokenizer.json with the same ids") {
  const std::string ranks = read_data("tokenizer/o200k_base.tiktoken.gz"), text = read_data("corpora/hindi_help.txt");
  if (ranks.empty() || text.empty()) return;
  const Tokenizer t = good(read_rank_file(ranks, PreTokenizer::o200k, o200k_specials));
  const Tokenizer again = good(read_tokenizer_json(tokenizer_json(t)));
  CHECK(again.encode(text) == t.encode(text));
}
