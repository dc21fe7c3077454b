#include "data.hpp"
#include "exchange/tokenizers.hpp"
#include "temporary_folder.hpp"

#include <chimera/core/files.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/rank_file.hpp>
#include <chimera/exchange/tokenizer_json.hpp>
#include <chimera/text/encoder.hpp>

#include <doctest/doctest.h>

#include <filesystem>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

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
  CHECK(error("\"Split\"", "\"Whitespace\"") == "pre_tokenizer: expected Split and ByteLevel, found \"Whitespace\"");
  CHECK(error("\"Split\"", "\"Digits\"") == "pre_tokenizer: expected Digits one by one, found individual_digits false");
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

TEST_CASE("of two merges of the same pair the last counts") {
  Vocabulary v = byte_vocabulary();
  for (const char* token : {"th", "he", "the"}) v.tokens.push_back({token, TokenType::normal});
  const std::int32_t th = byte_vocab, he = th + 1, the = th + 2;
  v.merges = {{'t', 'h'}, {'h', 'e'}, {th, 'e'}};
  std::string text = tokenizer_json(good(Tokenizer::create(v)));
  const std::string first = R"(["t", "h"])";
  const std::size_t at = text.find(first);
  REQUIRE(at != std::string::npos);
  text.insert(at, R"(["h", "e"], )");
  const Tokenizer t = good(read_tokenizer_json(text));
  CHECK(t.encode("the") == std::vector<std::int32_t>{the});
  CHECK(t.encode("he") == std::vector<std::int32_t>{he});
  CHECK(t.vocabulary().merges.size() == 3);
}

TEST_CASE("text is brought to form C where the tokenizer says so, and that goes out again") {
  Vocabulary v = byte_vocabulary();
  v.tokens.push_back({"\u00E9", TokenType::normal});
  v.tokens.push_back({"<caf\u00E9>", TokenType::user_defined, true});
  v.tokens.push_back({"<e\u0301>", TokenType::user_defined, false});
  v.merge_by_rank = true, v.nfc = to_nfc;
  const Tokenizer t = good(Tokenizer::create(v));
  const std::int32_t joined = byte_vocab, cafe = byte_vocab + 1, apart = byte_vocab + 2;
  const std::string text = tokenizer_json(t);
  const auto with = [&](const std::string& normalizer) {
    std::string changed = text;
    const std::string ours = "{\"type\": \"NFC\"}";
    const std::size_t at = changed.find(ours);
    REQUIRE(at != std::string::npos);
    return read_tokenizer_json(changed.replace(at, ours.size(), normalizer));
  };
  for (const Tokenizer& each :
       {t, good(read_tokenizer_json(text)), good(with(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}]})"))}) {
    CHECK(static_cast<bool>(each.vocabulary().nfc));
    Encoder encoder(each);
    for (const auto& [in, ids] : {std::pair<std::string, std::vector<std::int32_t>>{"e\u0301", {joined}},
                                  {"\u00E9x", {joined, 'x'}},
                                  {"<cafe\u0301>", {cafe}},  // of the text in form C
                                  {"<e\u0301>", {apart}},    // of the text as it stands
                                  {"<\u00E9>", {'<', joined, '>'}}}) {
      CHECK(each.encode(in) == ids);
      CHECK(encoder.encode(in) == ids);
    }
  }
  for (const char* none : {"null", R"({"type": "Sequence", "normalizers": []})"}) {
    const Tokenizer each = good(with(none));
    CHECK_FALSE(static_cast<bool>(each.vocabulary().nfc));
    CHECK(each.encode("e\u0301") == std::vector<std::int32_t>{'e', 0xCC, 0x81});
  }
  for (const char* other : {"NFKC", "NFD", "Lowercase", "Prepend", "Replace", "StripAccents", "Precompiled"})
    for (const std::string& json : {"{\"type\": \"" + std::string(other) + "\"}",
                                    "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"" +
                                        std::string(other) + "\"}]}"})
      CHECK(with(json).error().message == "normalizer: expected none or NFC, found \"" + std::string(other) + "\"");
  CHECK(!with("\"NFC\"").ok());
}

namespace {

/// A folder with a tokenizer.json without special ids, and other files.
struct Folder {
  TemporaryFolder folder;

  explicit Folder(std::initializer_list<std::pair<const char*, std::string>> files) {
    Vocabulary v = small_vocabulary();
    v.bos = v.eos = v.eot = v.padding = -1, v.add_bos = false;
    write_file(folder / "tokenizer.json", tokenizer_json(good(Tokenizer::create(v))));
    for (const auto& [name, text] : files) write(name, text);
  }
  void write(const std::string& name, const std::string& text) {
    const std::string path = folder / name;
    REQUIRE(make_folder(path.substr(0, path.rfind('/'))).ok());
    write_file(path, text);
  }
  Vocabulary read() const { return good(load_tokenizer(folder.path)).vocabulary(); }
};

}  // namespace

TEST_CASE("what ends a text may stand in config.json and generation_config.json, as numbers or lists") {
  using Ids = std::vector<std::int32_t>;
  const char* model = "config.json";
  const char* generation = "generation_config.json";
  Vocabulary v = Folder{{model, R"({"bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256})"}}.read();
  CHECK(v.bos == 257);
  CHECK(v.eos == 258);
  CHECK(v.padding == 256);
  CHECK(v.ends.empty());
  v = Folder{{generation, R"({"bos_token_id": null, "eos_token_id": [258, 256, 258]})"}}.read();
  CHECK(v.bos == -1);
  CHECK(v.eos == 258);
  CHECK(v.ends == Ids{256});
  v = Folder{{model, R"({"eos_token_id": 65})"}, {generation, R"({"eos_token_id": [258, 256]})"}}.read();
  CHECK(v.eos == 258);
  CHECK(v.ends == Ids{256, 65});
  v = Folder{{model, R"({"time_step_limit": [0.0, Infinity], "eos_token_id": 258})"},
             {"tokenizer_config.json", R"({"model_max_length": Infinity, "bos_token": "<|im_end|>"})"}}
          .read();
  CHECK(v.eos == 258);
  CHECK(v.bos == 258);
  CHECK(v.note == "");
  Folder named{{"tokenizer_config.json", R"({"eos_token": {"content": "<|endoftext|>"}, "bos_token": "a"})"},
               {generation, R"({"eos_token_id": [258, 256], "bos_token_id": 257})"}};
  v = named.read();
  CHECK(v.eos == 256);
  CHECK(v.bos == 'a');  // not among added_tokens
  CHECK(v.ends == Ids{258});
  CHECK(good(tokenizer_of(named.folder.path, 300)).ends_text(258));
  CHECK(Folder{{"special_tokens_map.json", R"({"eos_token": "<|im_end|>"})"}}.read().eos == 258);
}

TEST_CASE("all tokens that end a text go out beside a tokenizer.json") {
  Vocabulary v = small_vocabulary();
  v.eos = 256, v.eot = 258, v.ends = {273, 65};
  const TemporaryFolder out;
  REQUIRE(save_tokenizer(out.path, good(Tokenizer::create(v))).ok());
  CHECK(read_file(out / "generation_config.json").find("\"eos_token_id\": [256, 258, 273, 65]") != std::string::npos);
  const Tokenizer t = good(tokenizer_of(out.path, 300));
  for (const std::int32_t id : {256, 258, 273, 65}) CHECK(t.ends_text(id));
  v.eot = -1, v.ends.clear();
  REQUIRE(save_tokenizer(out.path, good(Tokenizer::create(v))).ok());
  CHECK(read_file(out / "generation_config.json").find("\"eos_token_id\": 256,") != std::string::npos);
}

TEST_CASE("an id of no token in a config is told and is none") {
  Vocabulary v = Folder{{"config.json", R"({"eos_token_id": [258, 274, 4294967295], "pad_token_id": -1})"}}.read();
  CHECK(v.eos == 258);
  CHECK(v.ends.empty());
  CHECK(v.padding == -1);
  CHECK(v.note ==
        "config.json, \"eos_token_id\" is 274, and there are 274 tokens: it is passed over; "
        "config.json, \"eos_token_id\" is 4294967295, and there are 274 tokens: it is passed over");
  v = Folder{{"generation_config.json", "{"}}.read();
  CHECK(v.note.starts_with("generation_config.json is passed over: "));
  std::string many = "{\"eos_token_id\": [";
  for (int i = 0; i < 100'000; ++i) many += std::to_string(i) + ",";
  v = Folder{{"generation_config.json", many + "1]}"}}.read();
  CHECK(v.ends.size() == 64);
  CHECK(v.note.size() < 2'000);
}

TEST_CASE("what ends a text is read from a config.json with numbers that are none, too") {
  const Vocabulary v = Folder{{"config.json", R"({"time_step_limit": [0.0, Infinity], "eos_token_id": 258})"}}.read();
  CHECK(v.eos == 258);
  CHECK(v.note == "");
}

TEST_CASE("chat templates stand in files of their own, before those of tokenizer_config.json") {
  const std::string list =
      R"({"chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]})";
  CHECK(Folder{{"chat_template.jinja", "J"}}.read().chat_template == "J");
  CHECK(Folder{{"chat_template.json", R"({"chat_template": "O"})"}}.read().chat_template == "O");
  CHECK(Folder{{"chat_template.json", R"({"chat_template": "O"})"},
               {"tokenizer_config.json", R"({"chat_template": "C"})"}}
            .read()
            .chat_template == "C");
  CHECK(Folder{{"chat_template.jinja", ""}, {"tokenizer_config.json", R"({"chat_template": "C"})"}}
            .read()
            .chat_template == "C");
  Vocabulary v = Folder{{"tokenizer_config.json", list}}.read();
  CHECK(v.chat_template == "A");
  CHECK(v.named_templates == std::vector<NamedTemplate>{{"tool_use", "B"}});
  Folder all{{"tokenizer_config.json", list},
             {"chat_template.jinja", "J"},
             {"additional_chat_templates/rag.jinja", "R"},
             {"additional_chat_templates/not one.jinja", "N"},
             {"additional_chat_templates/other.txt", "T"}};
  v = all.read();
  CHECK(v.chat_template == "J");
  CHECK(v.named_templates == std::vector<NamedTemplate>{{"rag", "R"}});
  CHECK(v.note.find("a chat template is passed over") != std::string::npos);
  v = Folder{{"tokenizer_config.json", R"({"chat_template": [{"name": "../x", "template": "B"}]})"}}.read();
  CHECK(v.named_templates.empty());

  // And out again.
  const TemporaryFolder out;
  REQUIRE(save_tokenizer(out.path, good(load_tokenizer(all.folder.path))).ok());
  CHECK(read_file(out / "chat_template.jinja") == "J");
  CHECK(read_file(out / "additional_chat_templates/rag.jinja") == "R");
  CHECK(good(load_tokenizer(out.path)).vocabulary().named_templates == std::vector<NamedTemplate>{{"rag", "R"}});
  CHECK(good(read_tokenizer_json(read_file(out / "tokenizer.json"), read_file(out / "tokenizer_config.json")))
            .vocabulary()
            .named_templates == std::vector<NamedTemplate>{{"rag", "R"}});
  v = small_vocabulary();
  v.chat_template.clear();
  REQUIRE(save_tokenizer(out.path, good(Tokenizer::create(v))).ok());
  CHECK(good(load_tokenizer(out.path)).vocabulary().chat_template == "");
}

TEST_CASE("what lies around a file of another name is not its own") {
  Folder folder{{"config.json", R"({"eos_token_id": 65})"}, {"chat_template.jinja", "J"}};
  std::filesystem::rename(folder.folder / "tokenizer.json", folder.folder / "t.json");
  const Vocabulary v = good(load_tokenizer(folder.folder / "t.json")).vocabulary();
  CHECK(v.eos == -1);
  CHECK(v.chat_template == "");
}

TEST_CASE("o200k goes out as tokenizer.json with the same ids") {
  const std::string ranks = read_data("tokenizer/o200k_base.tiktoken.gz"), text = read_data("corpora/hindi_help.txt");
  if (ranks.empty() || text.empty()) return;
  const Tokenizer t = good(read_rank_file(ranks, PreTokenizer::o200k, o200k_specials));
  const Tokenizer again = good(read_tokenizer_json(tokenizer_json(t)));
  CHECK(again.encode(text) == t.encode(text));
}
