// UTF-8, character by character.
#pragma once

#include <chimera/core/version.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace chimera {

/// Bytes of the UTF-8 character at the start of `text` (Unicode 15, table 3-7); 0 if it is none.
constexpr std::size_t utf8_size(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned a = byte(0), b = byte(1);
  if (text.empty()) return 0;
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return tail(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    const bool overlong = a == 0xE0 && b < 0xA0, surrogate = a == 0xED && b > 0x9F;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    const bool overlong = a == 0xF0 && b < 0x90, beyond = a == 0xF4 && b > 0x8F;
    return tail(1) && tail(2) && tail(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

/// Adds the code point `c`, which must be a Unicode scalar value.
inline void append_utf8(std::uint32_t c, std::string& out) {
  const auto byte = [&](std::uint32_t b) { out += static_cast<char>(b); };
  if (c < 0x80) return byte(c);
  if (c < 0x800) return byte(0xC0 | c >> 6), byte(0x80 | (c & 63));
  if (c < 0x10000) return byte(0xE0 | c >> 12), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63));
  byte(0xF0 | c >> 18), byte(0x80 | (c >> 12 & 63)), byte(0x80 | (c >> 6 & 63)), byte(0x80 | (c & 63));
}

/// Bytes to text, as they come. Text is handed out in whole UTF-8 characters, so it can go to a terminal at once; bytes
/// that can never become one turn into U+FFFD, one for each maximal part (Unicode 15, section 3.9).
class Utf8Stream {
 public:
  std::string push(std::string_view bytes) {
    std::string out;
    for (const char c : bytes) push(static_cast<unsigned char>(c), out);
    return out;
  }

  /// The end of the text: an unfinished character becomes U+FFFD.
  std::string flush() {
    const bool unfinished = missing_ > 0;
    missing_ = 0;
    pending_.clear();
    return unfinished ? replacement : "";
  }

 private:
  static constexpr const char* replacement = "\xEF\xBF\xBD";

  void push(unsigned byte, std::string& out) {
    if (missing_ > 0 && (byte < low_ || byte > high_)) out += flush();
    if (missing_ == 0) return begin(byte, out);
    pending_ += static_cast<char>(byte);
    low_ = 0x80, high_ = 0xBF;
    if (--missing_ == 0) out += pending_, pending_.clear();
  }

  /// The first byte of a character, and which bytes may come second (Unicode 15, table 3-7).
  void begin(unsigned byte, std::string& out) {
    low_ = 0x80, high_ = 0xBF;
    if (byte < 0x80) {
      out += static_cast<char>(byte);
      return;
    }
    if (byte >= 0xC2 && byte <= 0xDF) missing_ = 1;
    if (byte >= 0xE0 && byte <= 0xEF) missing_ = 2;
    if (byte >= 0xF0 && byte <= 0xF4) missing_ = 3;
    if (byte == 0xE0) low_ = 0xA0;   // no overlong forms
    if (byte == 0xED) high_ = 0x9F;  // no surrogates
    if (byte == 0xF0) low_ = 0x90;
    if (byte == 0xF4) high_ = 0x8F;  // nothing above U+10FFFF
    if (missing_ == 0)
      out += replacement;
    else
      pending_ = static_cast<char>(byte);
  }

  std::string pending_;
  int missing_ = 0;
  unsigned low_ = 0x80, high_ = 0xBF;
};

}  // namespace chimera
