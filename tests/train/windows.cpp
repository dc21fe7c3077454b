#include <chimera/train/windows.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

using namespace chimera;

namespace {

std::vector<std::int32_t> all_tokens(const Corpus& corpus) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(corpus.tokens()));
  corpus.read(0, corpus.tokens(), tokens.data());
  return tokens;
}

}  // namespace

TEST_CASE("the last tenth is for validation") {
  TemporaryFolder folder;
  auto corpus = Corpus::open(write_file(folder / "t", std::string(1'005, 'a')), 512);
  REQUIRE(corpus);
  const Split s = split(*corpus);
  CHECK(s.train.size() == 904);
  CHECK(s.validation.begin == s.train.end);
  CHECK(s.validation.end == 1'005);
  CHECK(split(*corpus, 0).validation.size() == 0);
}

TEST_CASE("shuffled_index is a permutation, another one for each stream") {
  for (std::uint64_t n : {1u, 2u, 3u, 5u, 16u, 17u, 100u, 1'000u}) {
    std::set<std::uint64_t> seen;
    for (std::uint64_t i = 0; i < n; ++i) seen.insert(shuffled_index(i, n, 1, 2));
    CHECK(seen.size() == n);
    CHECK(*seen.rbegin() == n - 1);
  }
  int fixed = 0, equal = 0;
  for (std::uint64_t i = 0; i < 1'000; ++i) {
    fixed += shuffled_index(i, 1'000, 1, 2) == i;
    equal += shuffled_index(i, 1'000, 1, 2) == shuffled_index(i, 1'000, 1, 3);
  }
  CHECK(fixed < 10);
  CHECK(equal < 10);
}

TEST_CASE("random windows stay inside the range and reach its ends") {
  const TokenRange range{nullptr, 100, 200};
  const Windows windows(range, WindowOrder::random, 1);
  std::set<std::int64_t> starts;
  for (std::uint64_t i = 0; i < 1'000; ++i) starts.insert(windows.start(i, 90));
  CHECK(*starts.begin() == 100);
  CHECK(*starts.rbegin() == 109);  // the target of its last token is token 199
  CHECK(starts.size() == 10);
}

TEST_CASE("an epoch of shuffled windows shows each once") {
  const TokenRange range{nullptr, 50, 50 + 1'000};
  const Windows windows(range, WindowOrder::shuffled, 3);
  CHECK(windows.rows(64) == 15);
  std::uint64_t number = 0;
  std::vector<std::vector<std::int64_t>> epochs(3);
  for (auto& epoch : epochs) {
    for (int i = 0; i < 15; ++i) {
      epoch.push_back(windows.start(number++, 64));
      CHECK(epoch.back() >= 50);
      CHECK(epoch.back() + 64 < 1'050);
    }
    std::vector<std::int64_t> sorted = epoch;
    std::sort(sorted.begin(), sorted.end());
    for (std::size_t i = 1; i < 15; ++i) CHECK(sorted[i] - sorted[i - 1] == 64);
  }
  CHECK(epochs[0] != epochs[1]);
  CHECK(epochs[1] != epochs[2]);
}

TEST_CASE("a window is a function of its number: nothing else is remembered") {
  for (WindowOrder order : {WindowOrder::random, WindowOrder::shuffled}) {
    const Windows a({nullptr, 0, 10'000}, order, 9), b({nullptr, 0, 10'000}, order, 9),
        c({nullptr, 0, 10'000}, order, 8);
    std::vector<std::int64_t> starts;
    for (std::uint64_t i = 0; i < 1'554; ++i) starts.push_back(a.start(i, 32));
    std::size_t other = 0;
    for (std::uint64_t i = 1'554; i-- > 777;) {
      REQUIRE(b.start(i, 32) == starts[i]);
      other += c.start(i, 32) != starts[i];
    }
    CHECK(other > 700);
  }
}

TEST_CASE("windows in order show every target once, and end") {
  std::vector<std::int32_t> tokens(75);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto corpus = Corpus::of(tokens, 100);
  Windows windows({&*corpus, 10, 73}, WindowOrder::in_order);
  CHECK(windows.rows(20) == 4);
  CHECK(windows.rows(31) == 2);
  CHECK(windows.tokens() == 63);
  auto batch = BatchBuffer::create(3, 20);
  REQUIRE(batch);
  std::vector<std::int32_t> seen;
  for (std::uint64_t row = 0; row < windows.rows(20); row += 3) {
    REQUIRE(windows.fill(row, *batch).ok());
    const TokenBatch b = batch->batch(0, 3);
    for (std::int64_t t = 0; t < b.tokens(); ++t)
      if (b.targets[t] >= 0) {
        seen.push_back(b.targets[t]);
        REQUIRE(b.inputs[t] == b.targets[t] - 1);
      }
  }
  CHECK(seen == std::vector<std::int32_t>(tokens.begin() + 11, tokens.begin() + 73));
  REQUIRE(windows.fill(6, *batch).ok());
  CHECK(batch->batch(0, 3).counted() == 0);
  CHECK(Windows({&*corpus, 10, 11}, WindowOrder::in_order).rows(20) == 0);
  CHECK(Windows({&*corpus, 10, 10}, WindowOrder::in_order).rows(20) == 0);
}

TEST_CASE("a window's targets are the next tokens, and documents do not leak") {
  TemporaryFolder folder;
  auto corpus =
      Corpus::open(write_file(folder / "t", "abc<|endoftext|>\nabc\n<|endoftext|>\nde\n<|endoftext|>\nfghi"), 512);
  REQUIRE(corpus);
  const std::int32_t e = end_of_text;
  const auto all = all_tokens(*corpus);
  auto buffer = BatchBuffer::create(2, 8);
  REQUIRE(buffer);
  const Windows windows({&*corpus, 0, corpus->tokens()}, WindowOrder::in_order);
  windows.write(17, buffer->row(0));
  buffer->set_documents(true);
  const std::vector<std::int32_t> inputs{'a', 'b', 'c', '\n', e, 'd', 'e', '\n'};
  const std::vector<std::int32_t> targets{'b', 'c', '\n', e, -1, 'e', '\n', e};
  const std::vector<std::int32_t> starts{0, 0, 0, 0, 0, 5, 5, 5};
  TokenBatch row = buffer->batch(0, 1);
  CHECK(std::vector(row.inputs, row.inputs + 8) == inputs);
  CHECK(std::vector(row.targets, row.targets + 8) == targets);
  REQUIRE(row.document_start);
  CHECK(std::vector(row.document_start, row.document_start + 8) == starts);

  SUBCASE("past the end is padding that counts for nothing") {
    windows.write(corpus->tokens() - 4, buffer->row(1));
    row = buffer->batch(1, 1);
    CHECK(std::vector(row.targets, row.targets + 8) == std::vector<std::int32_t>{'g', 'h', 'i', -1, -1, -1, -1, -1});
    CHECK(row.counted() == 3);
    CHECK(buffer->batch(0, 2).counted() == 10);
    windows.write(corpus->tokens() + 100, buffer->row(1));
    CHECK(buffer->batch(1, 1).counted() == 0);
  }
  SUBCASE("without documents there are no starts to look at") {
    auto plain = Corpus::open(write_file(folder / "p", "just one text"), 512);
    Windows one({&*plain, 0, plain->tokens()}, WindowOrder::in_order);
    REQUIRE(one.fill(0, *buffer).ok());
    CHECK(buffer->batch(1, 1).document_start == nullptr);
    Windows many({&*corpus, 0, corpus->tokens()}, WindowOrder::in_order);
    REQUIRE(many.fill(0, *buffer).ok());
    CHECK(buffer->batch(1, 1).document_start != nullptr);
  }
}
