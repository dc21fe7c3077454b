#include "data.hpp"
#include "exchange/tokenizers.hpp"

#include <chimera/exchange/load_tokenizer.hpp>
#include <chimera/text/encoder.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

using namespace chimera;

using Ids = std::vector<std::int32_t>;

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
      CHECK(Encoder(t, 16).encode(text) == ids);
      CHECK(t.decode(ids) == text);
    }
    CHECK(cases > 40);
  }
}
