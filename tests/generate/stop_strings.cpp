#include <doctest/doctest.h>

#include <chimera/core/random.hpp>
#include <chimera/generate/stop_strings.hpp>

#include <algorithm>
#include <string>
#include <vector>

using namespace chimera;

namespace {

using Strings = std::vector<std::string>;

StopStrings stop_at(const Strings& strings) {
  auto stop = StopStrings::create(strings);
  REQUIRE(stop);
  return std::move(*stop);
}

std::string shown(StopStrings& stop, const std::string& text) {
  std::string out = stop.push(text);
  return out + stop.flush();
}

/// What is left of a text: the first place where a stop string has ended, and the longest that ends there.
std::string reference(const Strings& strings, const std::string& text) {
  for (std::size_t end = 0; end <= text.size(); ++end) {
    std::size_t longest = 0;
    for (const std::string& s : strings)
      if (std::string_view(text).substr(0, end).ends_with(s)) longest = std::max(longest, s.size());
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

}  // namespace

TEST_CASE("only what could become a stop string is held back") {
  StopStrings stop = stop_at({"User:", "\n\n"});
  CHECK(stop.push("Hello") == "Hello");
  CHECK(stop.push(" U") == " ");
  CHECK(stop.push("se") == "");
  CHECK(stop.push("d.\n") == "Used.");
  CHECK(stop.push("Use") == "\n");
  CHECK_FALSE(stop.stopped());
  CHECK(stop.push("r: hi") == "");
  CHECK(stop.stopped());
  CHECK(stop.found() == "User:");
  CHECK(stop.push("more") == "");
  CHECK(stop.flush() == "");
  stop.reset();
  CHECK_FALSE(stop.stopped());
  CHECK(stop.push("x\n") == "x");
  CHECK(stop.flush() == "\n");
  CHECK(stop.push("\n") == "");  // the text before was another one
}

TEST_CASE("prefixes of themselves and of each other") {
  StopStrings a = stop_at({"aab"});
  CHECK(shown(a, "aaab") == "a");
  StopStrings b = stop_at({"abcd", "bc"});
  CHECK(shown(b, "xabcd") == "xa");
  CHECK(b.found() == "bc");
  StopStrings c = stop_at({"c", "abc", "bc"});
  CHECK(shown(c, "xabc") == "x");
  StopStrings d = stop_at({"abx", "bc"});
  CHECK(shown(d, "abab") == "abab");
  d.reset();
  CHECK(shown(d, "aababc") == "aaba");
  StopStrings none = stop_at({});
  CHECK(none.push("anything") == "anything");
}

TEST_CASE("pieces of any length give the same text, in whole characters") {
  Random random{3, 0, 0};
  const Strings alphabet{"a", "b", "\xC3\xA9", "\xC3\xA8", "\xF0\x9F\xA6\x81"};  // é and è share their first byte
  const auto word = [&](std::uint64_t most) {
    std::string w;
    for (std::uint64_t n = 1 + random.below(most); n > 0; --n) w += alphabet[random.below(alphabet.size())];
    return w;
  };
  for (int round = 0; round < 2000; ++round) {
    Strings strings;
    for (std::uint64_t n = random.below(4); n > 0; --n) strings.push_back(word(5));
    StopStrings stop = stop_at(strings);
    std::string text, out;
    for (int piece = 0; piece < 10; ++piece) {
      const std::string next = word(4), now = stop.push(next);
      text += next, out += now;
      CHECK(Utf8Stream().push(now) == now);
    }
    const std::string expected = reference(strings, text);
    CHECK(stop.stopped() == (expected != text));
    CHECK(out + stop.flush() == expected);
  }
}

TEST_CASE("stop strings are few, short and UTF-8") {
  const auto message = [](const Strings& strings) {
    const auto stop = StopStrings::create(strings);
    return stop ? std::string() : stop.error().message;
  };
  CHECK(message(Strings(64, "a")) == "");
  CHECK(message(Strings(65, "a")) == "expected at most 64 stop strings, found 65");
  CHECK(message({""}) == "a stop string has 1 to 256 bytes, found 0");
  CHECK(message({std::string(257, 'a')}) == "a stop string has 1 to 256 bytes, found 257");
  CHECK(message({"a\xC3"}) == "a stop string must be UTF-8; \"a\xC3\" is not");
  CHECK(message({"\xA9"}) != "");
}
