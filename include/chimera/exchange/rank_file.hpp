// Rank files of tiktoken: lines of a token in base64, a space and its rank, which is its id. They do not say how text
// is split, nor what special tokens there are: the program has to know.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/byte_level.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace chimera {

/// A token that is not in a rank file, which leaves these to the program.
struct RankedSpecial {
  std::string_view text;
  std::int32_t id;
};

inline constexpr std::array<RankedSpecial, 2> o200k_specials{{{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}};

inline constexpr std::array<RankedSpecial, 5> cl100k_specials{{{"<|endoftext|>", 100257},
                                                               {"<|fim_prefix|>", 100258},
                                                               {"<|fim_middle|>", 100259},
                                                               {"<|fim_suffix|>", 100260},
                                                               {"<|endofprompt|>", 100276}}};

inline constexpr std::array<RankedSpecial, 1> gpt2_specials{{{"<|endoftext|>", 50256}}};

/// A tokenizer of the file's text. What the text says is held against its length before memory is taken.
Result<Tokenizer> read_rank_file(std::string_view text, PreTokenizer pretokenizer,
                                 std::span<const RankedSpecial> specials);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

namespace rank_file_parts {

/// "" for text that is no base64.
inline std::string from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  if (text.size() % 4 != 0) return "";
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string bytes;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t digit = digits.find(text[i]);
    if (digit == std::string_view::npos) return "";
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if (i % 4 != 0) bytes += static_cast<char>(bits >> (6 - i % 4 * 2) & 255);
  }
  return bytes;
}

}  // namespace rank_file_parts

CHIMERA_FUNCTION Result<Tokenizer> read_rank_file(std::string_view text, PreTokenizer pretokenizer,
                                                  std::span<const RankedSpecial> specials) {
  Vocabulary v;
  v.merge_by_rank = v.whole_words = true;
  v.pretokenizer = pretokenizer;
  const std::size_t line_count = static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  for (std::size_t line = 1; !text.empty(); ++line) {
    std::string_view rest = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), rest.size() + 1));
    if (rest.ends_with('\r')) rest.remove_suffix(1);
    if (rest.empty()) continue;
    const std::size_t blank = rest.find(' ');
    std::string bytes = rank_file_parts::from_base64(rest.substr(0, blank));
    const std::string_view digits = blank == std::string_view::npos ? "" : rest.substr(blank + 1);
    std::int64_t rank = -1;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), rank);
    const auto wrong = [&](const std::string& what) { return Error{"line " + std::to_string(line) + ": " + what}; };
    if (bytes.empty() || error != std::errc{} || end != digits.data() + digits.size())
      return wrong("expected a token in base64, a space and its rank, found \"" + std::string(rest.substr(0, 60)) +
                   "\"");
    if (!byte_level_parts::make_room(v, rank, line_count))
      return wrong("expected a rank not far above the number of lines, found " + std::to_string(rank));
    Token& token = v.tokens[static_cast<std::size_t>(rank)];
    if (!token.bytes.empty()) return wrong("the rank " + std::to_string(rank) + " is there twice");
    token = {std::move(bytes), TokenType::normal};
  }
  for (const RankedSpecial& special : specials) {
    if (!byte_level_parts::make_room(v, special.id, v.tokens.size()))
      return Error{"the special token " + std::string(special.text) + " does not fit: its id is " +
                   std::to_string(special.id) + ", and there are " + std::to_string(v.tokens.size()) + " ranks"};
    Token& token = v.tokens[static_cast<std::size_t>(special.id)];
    if (!token.bytes.empty())
      return Error{"the special token " + std::string(special.text) + " has the id of another, " +
                   std::to_string(special.id)};
    token = {std::string(special.text), TokenType::control};
    if (special.text == "<|endoftext|>") v.eos = special.id;
  }
  return Tokenizer::create(std::move(v));
}

}  // namespace chimera
#endif
