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
