#include <chimera/text/normalize.hpp>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <utility>

using namespace chimera;

static std::string nfc(std::string_view text) {
  std::string buffer;
  return std::string(to_nfc(text, buffer));
}

TEST_CASE("what can be written in several ways is written in one") {
  for (const auto& [text, expected] : {
           std::pair<std::string_view, std::string_view>{"", ""},
           {"plain", "plain"},
           {"cafe\u0301", "caf\u00E9"},  // a letter and its mark
           {"A\u030Angstro\u0308m", "\u00C5ngstr\u00F6m"},
           {"\u212Bngstr\u00F6m", "\u00C5ngstr\u00F6m"},  // a sign that is a letter
           {"a\u0323\u0302", "\u1EAD"},                   // two marks
           {"a\u0302\u0323", "\u1EAD"},                   // in the other order
           {"\u00E2\u0323", "\u1EAD"},                    // one of them joined already
           {"a\u0301\u0301", "\u00E1\u0301"},             // the second of a class stays
           {"a\u0315\u0300\u05AE\u0300b",
            "\u00E0\u05AE\u0300\u0315"
            "b"},
           {"\u0915\u093C\u0932\u092E", "\u0915\u093C\u0932\u092E"},  // excluded from composing
           {"\u0958\u0932\u092E", "\u0915\u093C\u0932\u092E"},
           {"\u0928\u093C", "\u0929"},
           {"\u09C7\u09BE", "\u09CB"},                    // a starter joins a starter
           {"\u09C7\u0301\u09BE", "\u09C7\u0301\u09BE"},  // unless something stands between
           {"\u1112\u1161\u11AB\u1100\u1173\u11AF", "\uD55C\uAE00"},
           {"\uD558\u11AB", "\uD55C"},
           {"\uD55C\u11AB", "\uD55C\u11AB"},
           {"\uF900\U0002F800", "\u8C48\u4E3D"},  // ideographs for compatibility
           {"\u0344", "\u0308\u0301"},
           {"\U0001D15E", "\U0001D157\U0001D165"},
           {"\u0301\u0300\u0316e",
            "\u0316\u0301\u0300"
            "e"},  // no letter before the marks
           {"\u037E\u1FEF", ";`"},
           {"e\u0897\u0316", "e\u0897\u0316"},  // of Unicode 16: no mark to this
       })
    CHECK(nfc(text) == expected);
}

TEST_CASE("bytes that are no UTF-8 stay") {
  CHECK(nfc("\xFF"
            "e\u0301\xC3") == "\xFF\u00E9\xC3");
  CHECK(nfc("e\xFF\u0301\u0316") == "e\xFF\u0316\u0301");
  CHECK(nfc("\xCC") == "\xCC");
  CHECK(nfc("e\u0301\x81\u0301") == "\u00E9\x81\u0301");
}

TEST_CASE("a text in form C is handed back, and what was made is in form C") {
  std::string buffer = "untouched";
  const std::string_view text = "caf\u00E9 \u0915\u093F \uD55C\uAE00";
  CHECK(to_nfc(text, buffer).data() == text.data());
  CHECK(buffer == "untouched");
  std::string many = "x";
  for (int i = 0; i < 100'000; ++i) many += i % 2 ? "\u0301" : "\u0316";
  const std::string once = nfc(many);
  CHECK(once.size() == many.size());
  CHECK(once.starts_with("x\u0316\u0316"));
  CHECK(nfc(once) == once);
}
