// Text to ids and back: the first byte picks the rules and whether special tokens count, the rest is the text.
#include <chimera/text/encoder.hpp>
#include <chimera/text/token_decoder.hpp>
#include <chimera/text/tokenizer.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace chimera;

/// Merges in several scripts, a token that only a whole word gives, and special tokens of which one begins another.
static Tokenizer made(PreTokenizer rules) {
  Vocabulary v = byte_vocabulary();
  for (const char* token : {"aa", "aaaa", "ab", "ba", "aba", "\n\n", "  ", "    ", " a", "\xE0\xA4", "\xE0\xA4\x95",
                            "\xE0\xA5", "\xE0\xA5\x8D", "\xFF\xFF", "whole"})
    v.tokens.push_back({token, TokenType::normal});
  for (const char* token : {"<x>", "<x>y", "\xE0\xA4\x95\xE0"}) v.tokens.push_back({token, TokenType::user_defined});
  v.merge_by_rank = v.whole_words = true;
  v.pretokenizer = rules;
  auto t = Tokenizer::create(std::move(v));
  if (!t) __builtin_trap();
  return std::move(*t);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<Tokenizer> tokenizers = [] {
    std::vector<Tokenizer> all;
    for (const auto& r : pretokenizer_rules) all.push_back(made(r.id));
    return all;
  }();
  if (size == 0) return 0;
  const Tokenizer& t = tokenizers[data[0] / 2 % tokenizers.size()];
  const Special control = data[0] % 2 ? Special::as_token : Special::as_text;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  Encoder encoder(t, 64);
  const auto ids = encoder.encode(text, control);
  if (t.decode(ids) != text || encoder.encode(text, control) != ids || t.encode(text, control) != ids) __builtin_trap();
  TokenDecoder decoder(t, Special::as_text);
  std::string streamed;
  for (const std::int32_t id : ids) {
    const std::string part = decoder.push(id);
    for (std::string_view rest = part; !rest.empty(); rest.remove_prefix(utf8_size(rest)))
      if (utf8_size(rest) == 0) __builtin_trap();
    streamed += part;
  }
  streamed += decoder.flush();
  Utf8Stream whole;
  std::string expected = whole.push(text);
  if (streamed != expected + whole.flush()) __builtin_trap();
  return 0;
}
