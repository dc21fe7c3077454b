// The byte vocabulary: token i < 256 is the byte i, so any input passes through, valid UTF-8 or not; special tokens
// follow.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/utf8.hpp>

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
std::vector<std::int32_t> encode_bytes(std::string_view text);

/// Tokens to text, as they come, in whole UTF-8 characters (Utf8Stream). Special and reserved tokens write nothing.
class ByteDecoder {
 public:
  std::string push(std::int32_t token);

  /// The end of the text: an unfinished character becomes U+FFFD.
  std::string flush() { return stream_.flush(); }

 private:
  Utf8Stream stream_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION std::vector<std::int32_t> encode_bytes(std::string_view text) {
  std::vector<std::int32_t> tokens(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) tokens[i] = static_cast<unsigned char>(text[i]);
  return tokens;
}

CHIMERA_FUNCTION std::string ByteDecoder::push(std::int32_t token) {
  if (token < 0 || token > 255) return flush();
  const char byte = static_cast<char>(token);
  return stream_.push({&byte, 1});
}

}  // namespace chimera
#endif
