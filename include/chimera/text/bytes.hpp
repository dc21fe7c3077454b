// The byte vocabulary: token i < 256 is the byte i, so any input passes through, valid UTF-8 or not; special tokens
// follow.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace chimera {

/// Special tokens of the byte vocabulary have the ids 256, 257, ... in this order.
inline constexpr std::array<std::string_view, 9> byte_specials{"<|endoftext|>",  "<|im_start|>",   "<|im_end|>",
                                                               "<think>",        "</think>",       "<|fim_prefix|>",
                                                               "<|fim_suffix|>", "<|fim_middle|>", "<|pad|>"};

/// Ends a document.
inline constexpr std::int32_t end_of_text = 256;

/// Ids in use. A model's vocab may be larger: the rest is reserved.
inline constexpr int byte_vocab = 256 + static_cast<int>(byte_specials.size());

/// One token for each byte. Names of special tokens in the text stay text.
inline std::vector<std::int32_t> encode_bytes(std::string_view text) {
  std::vector<std::int32_t> tokens(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

/// Tokens to text, as they come. Text is handed out in whole UTF-8 characters, so it can go to a terminal at once;
/// bytes that can never become one turn into U+FFFD, one for each maximal part (Unicode 15, section 3.9). Special and
/// reserved tokens write nothing.
class ByteDecoder {
 public:
  std::string push(std::int32_t token) {
    if (token < 0 || token > 255) return flush();
    const unsigned byte = static_cast<unsigned>(token);
    std::string out;
    if (missing_ > 0 && (byte < low_ || byte > high_)) out = flush();
    if (missing_ == 0) {
      begin(byte, out);
    } else {
      pending_ += static_cast<char>(byte);
      low_ = 0x80, high_ = 0xBF;
      if (--missing_ == 0) out += pending_, pending_.clear();
    }
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
