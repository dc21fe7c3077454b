#include "exchange/tokenizers.hpp"
#include "temporary_folder.hpp"

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
