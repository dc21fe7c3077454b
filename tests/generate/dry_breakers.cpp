#include <doctest/doctest.h>

#include <chimera/generate/dry_breakers.hpp>

#include <string>
#include <vector>

using namespace chimera;

namespace {

using Breakers = std::vector<std::vector<std::int32_t>>;

/// All bytes, and "a:" 256, "x\n" 257, ":\n" 258, "en" 259.
Tokenizer small() {
  Vocabulary v = byte_vocabulary(256);
  v.tokens.resize(256);
  for (const char* word : {"a:", "x\n", ":\n", "en"}) v.tokens.push_back({word, TokenType::normal});
  v.bos = v.eos = v.eot = v.padding = -1;
  auto t = Tokenizer::create(std::move(v));
  REQUIRE(t);
  return std::move(*t);
}

Breakers breakers(const std::vector<std::string_view>& strings) {
  const Tokenizer t = small();
  auto found = dry_breakers(t, strings);
  REQUIRE(found);
  return std::move(*found);
}

}  // namespace

TEST_CASE("every token that holds the string, and every one that begins it") {
  CHECK(breakers({"\n"}) == Breakers{{'\n'}, {257}, {258}});
  CHECK(breakers({":", "\n"}) == Breakers{{'\n'}, {':'}, {256}, {257}, {258}});
  CHECK(breakers({":", ":"}) == breakers({":"}));
  // ":\n" whole, or begun with the colon that a token ends with.
  CHECK(breakers({":\n"}) == Breakers{{':', '\n'}, {256, '\n'}, {258}});
  CHECK(breakers({"eke"}) == Breakers{{'e', 'k', 'e'}});
  CHECK(breakers({std::string_view("nnnnnnnnnnnnnnnnnnnnnnnnnnnnn")})[0].size() == 21);
  CHECK(breakers({}).empty());
  CHECK(dry_breakers(small())->size() == 7);
}

TEST_CASE("breakers are short") {
  const std::string long_one(41, 'a');
  const std::string_view too_long[] = {long_one}, empty[] = {""};
  CHECK(dry_breakers(small(), too_long).error().message == "a DRY breaker has 1 to 40 bytes, found 41");
  CHECK(dry_breakers(small(), empty).error().message == "a DRY breaker has 1 to 40 bytes, found 0");
}
