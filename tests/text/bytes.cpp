#include <chimera/text/bytes.hpp>

#include <doctest/doctest.h>

using namespace chimera;

static std::string decode(const std::vector<std::int32_t>& tokens) {
  ByteDecoder decoder;
  std::string text;
  for (std::int32_t t : tokens) text += decoder.push(t);
  return text + decoder.flush();
}

TEST_CASE("valid UTF-8 passes through") {
  for (const char* text : {"", "plain", "नमस्ते", "日本語 🦁 é", "\xF4\x8F\xBF\xBF"})
    CHECK(decode(encode_bytes(text)) == text);
}

TEST_CASE("every byte is its own token") {
  std::string all;
  for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
  const auto tokens = encode_bytes(all);
  for (int b = 0; b < 256; ++b) CHECK(tokens[static_cast<std::size_t>(b)] == b);
}

TEST_CASE("characters come whole") {
  ByteDecoder decoder;
  CHECK(decoder.push(0xF0) == "");
  CHECK(decoder.push(0x9F) == "");
  CHECK(decoder.push(0xA6) == "");
  CHECK(decoder.push(0x81) == "🦁");
  CHECK(decoder.push('a') == "a");
}

// Unicode 15, tables 3-8 to 3-11.
TEST_CASE("bytes that are no UTF-8 become replacement characters, one for each maximal part") {
  const std::string r = "\xEF\xBF\xBD";
  CHECK(decode(encode_bytes("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41")) == r + r + r + r + r + r + r + r + "A");
  CHECK(decode(encode_bytes("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41")) == r + r + r + r + r + r + r + r + "A");
  CHECK(decode(encode_bytes("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42")) == r + r + r + r + r + "A" + r + r + "B");
  CHECK(decode(encode_bytes("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41")) == r + r + r + r + "A");
}

TEST_CASE("an unfinished character at the end is replaced once") {
  CHECK(decode(encode_bytes("a\xE0\xA4")) == "a\xEF\xBF\xBD");
  ByteDecoder decoder;
  (void)decoder.push(0xE0);
  CHECK(decoder.flush() == "\xEF\xBF\xBD");
  CHECK(decoder.flush() == "");
}

TEST_CASE("special and reserved tokens write nothing, and end an unfinished character") {
  CHECK(decode({'a', end_of_text, 511, 'b'}) == "ab");
  CHECK(decode({0xE0, end_of_text, 'b'}) ==
        "\xEF\xBF\xBD"
        "b");
  CHECK(byte_specials[end_of_text - 256] == "<|endoftext|>");
}
