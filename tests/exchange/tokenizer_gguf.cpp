#include "exchange/tokenizers.hpp"
#include "temporary_folder.hpp"

#include <chimera/exchange/byte_level.hpp>
#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace chimera;

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

TEST_CASE("a special id of no token is told and is none") {
  const TemporaryFolder folder;
  const Tokenizer t = good(Tokenizer::create(small_vocabulary()));
  const auto read = [&](const std::string& key, const auto& value) {
    GgufWriter writer;
    set_tokenizer(writer, t, 0);
    writer.set("tokenizer.ggml." + key + "_token_id", value);
    REQUIRE(writer.begin(folder / "t.gguf").ok());
    REQUIRE(writer.commit().ok());
    return good(load_tokenizer(folder / "t.gguf")).vocabulary();
  };
  CHECK(read("bos", 274u).bos == -1);
  CHECK(read("eos", 32'000u).eos == -1);
  CHECK(read("eot", 4'294'967'295u).eot == -1);
  CHECK(read("eom", 4'294'967'295u).ends.empty());
  CHECK(read("unknown", std::uint64_t{1} << 40).unknown == -1);
  CHECK(read("padding", std::int32_t{-1}).padding == -1);
  CHECK(read("padding", std::int32_t{-1}).note ==
        "tokenizer.ggml.padding_token_id is -1, and there are 274 tokens: it is passed over");
  for (const char* key : {"seperator", "mask", "cls", "fim_pre", "fim_suf"})
    CHECK(read(key, 4'294'967'295u).note == "");
  CHECK(read("eos", 3u).note == "");
}

TEST_CASE("all tokens that end a text go through a GGUF file, as far as it has room") {
  const TemporaryFolder folder;
  Vocabulary v = small_vocabulary();
  v.eos = 256, v.eot = -1, v.ends = {258, 273, 65};
  GgufWriter writer;
  set_tokenizer(writer, good(Tokenizer::create(v)), 0);
  REQUIRE(writer.begin(folder / "t.gguf").ok());
  REQUIRE(writer.commit().ok());
  const Tokenizer t = good(load_tokenizer(folder / "t.gguf"));
  CHECK(t.vocabulary().eot == 258);
  CHECK(t.vocabulary().ends == std::vector<std::int32_t>{273});
  for (const std::int32_t id : {256, 258, 273}) CHECK(t.ends_text(id));
  CHECK(!t.ends_text(65));
}

TEST_CASE("chat templates with names go through a GGUF file") {
  const TemporaryFolder folder;
  Vocabulary v = small_vocabulary();
  v.named_templates = {{"tool_use", "{{ tools }}"}, {"rag", "{{ documents }}"}};
  GgufWriter writer;
  set_tokenizer(writer, good(Tokenizer::create(v)), 0);
  REQUIRE(writer.begin(folder / "t.gguf").ok());
  REQUIRE(writer.commit().ok());
  const Tokenizer t = good(load_tokenizer(folder / "t.gguf"));
  CHECK(t.vocabulary().chat_template == v.chat_template);
  CHECK(t.vocabulary().named_templates == v.named_templates);
}

TEST_CASE("rules that are not named, and types that are not known, are llama.cpp's") {
  const TemporaryFolder folder;
  const auto read = [&](bool named, std::int32_t type) {
    const Vocabulary v = small_vocabulary();
    GgufWriter writer;
    std::vector<std::string> tokens;
    for (const Token& token : v.tokens)
      tokens.push_back(token.type == TokenType::normal ? byte_level_parts::to_letters(token.bytes) : token.bytes);
    tokens[272] = "gap";
    std::vector<std::int32_t> types(tokens.size(), type);
    writer.set("tokenizer.ggml.model", "gpt2");
    if (named) writer.set("tokenizer.ggml.pre", "default");
    writer.set("tokenizer.ggml.tokens", tokens);
    writer.set("tokenizer.ggml.token_type", types);
    REQUIRE(writer.begin(folder / "t.gguf").ok());
    REQUIRE(writer.commit().ok());
    return good(load_tokenizer(folder / "t.gguf"));
  };
  CHECK(read(true, 1).vocabulary().pretokenizer == PreTokenizer::llama_cpp);
  CHECK(read(true, 1).vocabulary().note == "");
  CHECK(read(false, 1).vocabulary().pretokenizer == PreTokenizer::llama_cpp);
  CHECK(read(false, 1).vocabulary().note.starts_with("the file has no tokenizer.ggml.pre"));
  CHECK(read(true, 7).encode("ab") == read(true, 1).encode("ab"));
  CHECK(read(true, -1).encode("ab") == read(true, 1).encode("ab"));
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
  CHECK(error("tokenizer.ggml.token_type", std::vector<std::int32_t>{1}) ==
        "tokenizer.ggml.token_type: expected 274 types, found 1");
  CHECK(error("tokenizer.ggml.merges", std::vector<std::string>{"a c"}) ==
        "merge 0: the tokens 97 and 99 make no token");
  CHECK(error("tokenizer.ggml.merges", std::vector<std::string>{""}).starts_with("tokenizer.ggml.merges: merge 0"));
  CHECK(error("tokenizer.ggml.tokens", std::vector<std::string>{"a"}).starts_with("tokenizer.ggml.merges: merge 0"));
}
