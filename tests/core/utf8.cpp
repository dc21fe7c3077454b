#include <chimera/core/utf8.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace chimera;

TEST_CASE("every scalar value is one character, and its prefixes are none") {
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(c, text);
    const std::size_t expected = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    REQUIRE(text.size() == expected);
    REQUIRE(utf8_size(text) == expected);
    REQUIRE(utf8_size(text + "\x80") == expected);
    for (std::size_t n = 0; n < expected; ++n) REQUIRE(utf8_size(text.substr(0, n)) == 0);
  }
}

TEST_CASE("what is no character has length 0") {
  for (const char* bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE2\x28\xA1", "\xF0\x90(\xBC"})
    CHECK(utf8_size(bad) == 0);
}
