// What the tokens of a text are: their bytes, how they come about, and what some of them are for.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/text/pretokenizer.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// Numbered as in GGUF files. normal: made by merges. user_defined: matches wherever its text stands. control (and
/// unknown): matches where the caller asks for it. unused: never matches.
enum class TokenType : std::uint8_t { normal = 1, unknown, control, user_defined, unused, byte };

struct Token {
  std::string bytes;
  TokenType type = TokenType::unused;
  bool normalized = false;  // of a user-defined or control one: it is looked for where all others are found already
};

/// A chat template for some other purpose than usual, as for tools.
struct NamedTemplate {
  std::string name, jinja;

  bool operator==(const NamedTemplate&) const = default;
};

/// What a tokenizer is made of; files hold this. All 256 single bytes must be normal tokens.
struct Vocabulary {
  static constexpr std::size_t max_tokens = (std::size_t{1} << 21) - 1, max_merges = (std::size_t{1} << 22) - 1;

  std::vector<Token> tokens;                                  // by id; no two normal ones of the same bytes
  std::vector<std::pair<std::int32_t, std::int32_t>> merges;  // left and right id, the first merge first
  bool merge_by_rank = false;  // instead of a list: what joins to a normal token merges, the lowest id first
  bool whole_words = false;    // a piece that is a token is that token, whether merges lead to it or not
  // to_nfc of text/normalize.hpp, or null: text is brought to form C first. GGUF files cannot say so, and programs that
  // read no others do without its tables.
  std::string_view (*nfc)(std::string_view text, std::string& buffer) = nullptr;
  PreTokenizer pretokenizer = PreTokenizer::qwen35;
  std::int32_t bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;  // -1: none
  std::vector<std::int32_t> ends;                                         // further tokens that end a text
  bool add_bos = false, add_eos = false;                                  // what the model expects around a prompt
  std::string chat_template;                                              // Jinja
  std::vector<NamedTemplate> named_templates;                             // others beside it
  std::string note;  // for the user: what its file says and cannot be; may be empty
};

/// The tokens of text/bytes.hpp, up to `size` ids, the last of which are reserved.
Vocabulary byte_vocabulary(std::size_t size = byte_vocab);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Vocabulary byte_vocabulary(std::size_t size) {
  Vocabulary v;
  v.tokens.resize(std::max<std::size_t>(size, byte_vocab));
  for (std::size_t b = 0; b < 256; ++b) v.tokens[b] = {std::string(1, static_cast<char>(b)), TokenType::normal};
  for (std::size_t i = 0; i < byte_specials.size(); ++i)
    v.tokens[256 + i] = {std::string(byte_specials[i]), TokenType::control};
  v.pretokenizer = PreTokenizer::gpt2;  // any would do: nothing merges
  v.bos = v.eos = end_of_text;
  v.eot = 258;
  v.padding = byte_vocab - 1;
  return v;
}

}  // namespace chimera
#endif
