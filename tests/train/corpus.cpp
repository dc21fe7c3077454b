#include <chimera/train/corpus.hpp>

#include "../temporary_folder.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

using namespace chimera;

namespace {

std::vector<std::int32_t> all_tokens(const Corpus& corpus) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(corpus.tokens()));
  corpus.read(0, corpus.tokens(), tokens.data());
  return tokens;
}

std::vector<std::int32_t> text_tokens(const std::string& text) {
  TemporaryFolder folder;
  auto corpus = Corpus::open(write_file(folder / "t.txt", text), 512);
  REQUIRE(corpus);
  return all_tokens(*corpus);
}

template <class T>
std::string shard(std::vector<T> tokens, std::int32_t vocab = 0, std::int32_t end = 0) {
  std::int32_t header[256]{};
  header[0] = sizeof(T) == 2 ? 20240520 : 20240801;
  header[1] = sizeof(T) == 2 ? 1 : 7;
  header[2] = static_cast<std::int32_t>(tokens.size());
  header[3] = vocab, header[4] = end;
  std::string bytes(reinterpret_cast<const char*>(header), sizeof header);
  return bytes.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(T));
}

std::string error_of(const std::string& content, std::int64_t vocab = 512) {
  TemporaryFolder folder;
  auto corpus = Corpus::open(write_file(folder / "data", content), vocab);
  REQUIRE_FALSE(corpus.ok());
  return corpus.error().message;
}

void check_mentions(const std::string& message, const std::string& part) {
  CAPTURE(message);
  CHECK(message.find(part) != std::string::npos);
}

}  // namespace

TEST_CASE("text is one token a byte, valid UTF-8 or not") {
  CHECK(text_tokens("ab\n") == std::vector<std::int32_t>{'a', 'b', '\n'});
  CHECK(text_tokens("\xFF\xC0z") == std::vector<std::int32_t>{0xFF, 0xC0, 'z'});
}

TEST_CASE("a separator on a line of its own is one token") {
  const std::int32_t e = end_of_text;
  CHECK(text_tokens("ab\n<|endoftext|>\ncd\n") == std::vector<std::int32_t>{'a', 'b', '\n', e, 'c', 'd', '\n'});
  CHECK(text_tokens("a\n<|endoftext|>") == std::vector<std::int32_t>{'a', '\n', e});
  CHECK(text_tokens("<|endoftext|>\na") == std::vector<std::int32_t>{e, 'a'});
  CHECK(text_tokens("a\r\n<|endoftext|>\r\nb") == std::vector<std::int32_t>{'a', '\r', '\n', e, 'b'});
  CHECK(text_tokens("<|endoftext|>\n<|endoftext|>\n") == std::vector<std::int32_t>{e, e});
}

TEST_CASE("a separator inside a line is text") {
  const std::string line = "a <|endoftext|> b\n<|endoftext|>c\n";
  const auto tokens = text_tokens(line);
  CHECK(tokens.size() == line.size());
  CHECK(std::count(tokens.begin(), tokens.end(), end_of_text) == 0);
}

TEST_CASE("any part can be read, across documents") {
  TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 50; ++i)
    text += std::string(static_cast<std::size_t>(i % 7), static_cast<char>('a' + i % 26)) + "\n<|endoftext|>\n";
  auto corpus = Corpus::open(write_file(folder / "t", text), 512);
  REQUIRE(corpus);
  CHECK(corpus->end_of_document() == end_of_text);
  const auto all = all_tokens(*corpus);
  for (std::int64_t first = 0; first < corpus->tokens(); ++first)
    for (std::int64_t n = 0; n <= corpus->tokens() - first; n += 13) {
      std::vector<std::int32_t> part(static_cast<std::size_t>(n));
      corpus->read(first, n, part.data());
      REQUIRE(std::equal(part.begin(), part.end(), all.begin() + first));
    }
}

TEST_CASE("shards of both widths are read") {
  TemporaryFolder folder;
  auto narrow = Corpus::open(write_file(folder / "n", shard<std::uint16_t>({1, 2, 65'535})), 65'536);
  REQUIRE(narrow);
  CHECK(all_tokens(*narrow) == std::vector<std::int32_t>{1, 2, 65'535});
  CHECK(narrow->end_of_document() == -1);
  auto wide = Corpus::open(write_file(folder / "w", shard<std::uint32_t>({7, 199'999, 7}, 200'000, 7)), 200'000);
  REQUIRE(wide);
  CHECK(all_tokens(*wide) == std::vector<std::int32_t>{7, 199'999, 7});
  CHECK(wide->end_of_document() == 7);
}

TEST_CASE("a folder's shards are one corpus, in the order of their names") {
  TemporaryFolder folder;
  write_file(folder / "b.bin", shard<std::uint16_t>({3, 4}));
  write_file(folder / "a.bin", shard<std::uint16_t>({1, 2}));
  write_file(folder / "notes.txt", "not read");
  auto corpus = Corpus::open(folder.path, 10);
  REQUIRE(corpus);
  CHECK(all_tokens(*corpus) == std::vector<std::int32_t>{1, 2, 3, 4});
}

TEST_CASE("bad data: one sentence that says what was expected and found") {
  TemporaryFolder folder;
  check_mentions(Corpus::open(folder / "none", 512).error().message, "No such file");
  check_mentions(Corpus::open(folder.path, 512).error().message, "found none");
  check_mentions(error_of(""), "empty");
  check_mentions(error_of(std::string("text\0more", 9)), "a zero byte at offset 4");
  check_mentions(error_of("text", 100), "at least 256, the model has 100");
  check_mentions(error_of("a\n<|endoftext|>\nb", 256), "at least 257");

  const std::string good = shard<std::uint16_t>({1, 2, 3});
  check_mentions(error_of(good.substr(0, 500)), "found 500 bytes in all");
  check_mentions(error_of(good.substr(0, good.size() - 1)), "which makes 1030 bytes, found 1029");
  check_mentions(error_of(good + "x"), "found 1031");
  check_mentions(error_of(good, 3), "token 2 is 3, the model's vocabulary has 3");
  check_mentions(error_of(shard<std::uint16_t>({1}, 1'000, 0)), "a vocabulary of 1000");
  check_mentions(error_of(shard<std::uint32_t>({4'294'967'295u})), "token 0 is 4294967295");
  for (std::int32_t count : {0, -1, 2'147'483'647}) {
    std::string bad = good;
    std::memcpy(bad.data() + 8, &count, 4);
    check_mentions(error_of(bad), count == 2'147'483'647 ? "4294968318 bytes" : "at least one token");
  }
  std::string other = good;
  other[4] = 2;
  check_mentions(error_of(other), "expected version 1, found 2");

  write_file(folder / "a.bin", shard<std::uint16_t>({1}, 512, 1));
  write_file(folder / "b.bin", shard<std::uint16_t>({1}, 512, 2));
  check_mentions(Corpus::open(folder.path, 512).error().message, "ends documents with token 2");
}

TEST_CASE("tokens and texts in memory are a corpus, where they lie") {
  std::vector<std::int32_t> tokens{5, 9, 0, 7, 9, 1};
  const auto corpus = Corpus::of(tokens, 10, 9);
  REQUIRE(corpus);
  CHECK(all_tokens(*corpus) == tokens);
  CHECK(corpus->end_of_document() == 9);
  CHECK(corpus->vocab() == 10);
  CHECK(corpus->path() == "memory");
  tokens[1] = 3;
  CHECK(all_tokens(*corpus) == tokens);
  CHECK(Corpus::of(tokens, 10)->end_of_document() == -1);

  const std::string text = "ab\n<|endoftext|>\ncd\n";
  const auto bytes = Corpus::of(text, 512);
  REQUIRE(bytes);
  CHECK(all_tokens(*bytes) == text_tokens(text));
  CHECK(bytes->end_of_document() == end_of_text);
}

TEST_CASE("bad tokens in memory: one sentence") {
  const std::vector<std::int32_t> high{1, 2, 10}, low{1, -1};
  check_mentions(Corpus::of(high, 10).error().message, "token 2 is 10, the model's vocabulary has 10");
  check_mentions(Corpus::of(low, 10).error().message, "token 1 is -1");
  check_mentions(Corpus::of("text", 100).error().message, "at least 256, the model has 100");
  check_mentions(Corpus::of(std::string("a\0b", 3), 256).error().message, "a zero byte at offset 1");
}
