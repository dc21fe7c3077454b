// Packed rows of conversations: what is a target, what is cut, and that none sees another.
#include <chimera/align/conversations.hpp>

#include <doctest/doctest.h>
#include <cstdint>
#include <set>
#include <vector>

namespace {

using namespace chimera;

/// A question of `asked` tokens and an answer of `answered`, all tokens `id`.
MarkedTokens conversation(std::size_t asked, std::size_t answered, std::int32_t id) {
  MarkedTokens c{std::vector<std::int32_t>(asked + answered, id), std::vector<bool>(asked, false)};
  c.said.resize(asked + answered, true);
  return c;
}

}  // namespace

TEST_CASE("rows hold whole conversations side by side; tokens of answers are targets, at the place before them") {
  const std::vector<MarkedTokens> all{conversation(2, 2, 1), conversation(3, 3, 2), conversation(1, 1, 3)};
  Conversations source = Conversations::create(all, 8, WindowOrder::in_order);
  CHECK(source.rows(8) == 2);  // 5 and 3 targets fill a row
  REQUIRE(source.validate(8, 4).ok());
  auto batch = BatchBuffer::create(3, 8);
  REQUIRE(source.fill(0, *batch).ok());
  const auto row = [&](std::int64_t r) {
    const auto found = batch->row(r);
    return std::vector<std::vector<std::int32_t>>{{found.tokens.begin(), found.tokens.end()},
                                                  {found.targets.begin(), found.targets.end()},
                                                  {found.starts.begin(), found.starts.end()}};
  };
  CHECK(row(0) == std::vector<std::vector<std::int32_t>>{
                      {2, 2, 2, 2, 2, 1, 1, 1}, {-1, -1, 2, 2, 2, -1, 1, 1}, {0, 0, 0, 0, 0, 5, 5, 5}});
  CHECK(row(1) == std::vector<std::vector<std::int32_t>>{
                      {3, 0, 0, 0, 0, 0, 0, 0}, {3, -1, -1, -1, -1, -1, -1, -1}, {0, 1, 1, 1, 1, 1, 1, 1}});
  CHECK(row(2)[1] == std::vector<std::int32_t>(8, -1));  // past the end there is nothing to learn
  CHECK(source.counts().used == 3);
  CHECK(source.counts().tokens == 12);
  CHECK(source.counts().targets == 6);
}

TEST_CASE("a conversation longer than a row is cut there, and left out without an answer before the cut") {
  const std::vector<MarkedTokens> all{conversation(3, 9, 1), conversation(9, 3, 2), conversation(1, 0, 3),
                                      conversation(0, 1, 3)};
  const Conversations source = Conversations::create(all, 8, WindowOrder::shuffled);
  CHECK(source.counts().used == 1);
  CHECK(source.counts().cut == 1);
  CHECK(source.counts().left_out == 3);
  CHECK(source.counts().tokens == 9);
  CHECK(source.counts().targets == 6);
}

TEST_CASE("each epoch has every row once, in an order of its own; a row is a function of its number") {
  std::vector<MarkedTokens> all;
  for (std::int32_t i = 1; i <= 40; ++i) all.push_back(conversation(3, 3, i));
  Conversations source = Conversations::create(all, 5, WindowOrder::shuffled, 7);
  REQUIRE(source.rows(5) == 40);
  auto batch = BatchBuffer::create(80, 5), one = BatchBuffer::create(1, 5);
  REQUIRE(source.fill(0, *batch).ok());
  std::vector<std::int32_t> first, second;
  for (std::int64_t r = 0; r < 40; ++r)
    first.push_back(batch->row(r).tokens[0]), second.push_back(batch->row(40 + r).tokens[0]);
  CHECK(std::set(first.begin(), first.end()).size() == 40);
  CHECK(std::set(second.begin(), second.end()).size() == 40);
  CHECK(first != second);
  REQUIRE(source.fill(57, *one).ok());
  CHECK(one->row(0).tokens[0] == second[17]);
}

TEST_CASE("a source says what it cannot be used for") {
  const std::vector<MarkedTokens> all{conversation(2, 2, 9)};
  const Conversations source = Conversations::create(all, 8, WindowOrder::shuffled);
  CHECK(source.validate(16, 10).error().message.find("rows of 8 tokens, asked for are 16") != std::string::npos);
  CHECK(source.validate(8, 9).error().message.find("a token 9") != std::string::npos);
  CHECK_FALSE(Conversations::create({}, 8, WindowOrder::shuffled).validate(8, 9).ok());
  CHECK(source.checksum() != Conversations::create({}, 8, WindowOrder::shuffled).checksum());
}
