#include "data.hpp"
#include "exchange/tokenizers.hpp"

#include <chimera/exchange/rank_file.hpp>
#include <chimera/io/json.hpp>
#include <chimera/text/encoder.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

using namespace chimera;

using Ids = std::vector<std::int32_t>;

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
