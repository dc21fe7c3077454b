// What files of byte-level BPE have in common: each byte is a letter, and merges are said in letters.
#pragma once

#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>
#include <chimera/text/unicode.hpp>
#include <chimera/text/vocabulary.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace chimera {

namespace byte_level_parts {

/// In files of byte-level BPE each byte is a letter (GPT-2's bytes_to_unicode): printable ones stand for themselves,
/// the others for the code points from 256 on, in turn.
struct ByteLetters {
  std::array<std::uint16_t, 256> letters{};
  std::array<std::int16_t, 512> bytes{};

  constexpr ByteLetters() {
    bytes.fill(-1);
    std::uint16_t next = 256;
    for (std::uint16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      letters[b] = printable ? b : next++;
      bytes[letters[b]] = static_cast<std::int16_t>(b);
    }
  }
};
inline constexpr ByteLetters byte_letters;

inline std::string to_letters(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) append_utf8(byte_letters.letters[static_cast<unsigned char>(c)], text);
  return text;
}

/// The bytes of a text in letters; none if a letter stands for no byte.
inline std::optional<std::string> from_letters(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  while (!text.empty()) {
    const CodePoint c = first_code_point(text);
    if (c.value >= byte_letters.bytes.size() || byte_letters.bytes[c.value] < 0) return std::nullopt;
    bytes += static_cast<char>(byte_letters.bytes[c.value]);
    text.remove_prefix(c.bytes);
  }
  return bytes;
}

/// The token of a vocabulary whose text is that; one that is no sequence of letters can be written, but never read.
inline Token letter_token(std::string_view text) {
  if (auto bytes = from_letters(text)) return {std::move(*bytes), TokenType::normal};
  return {std::string(text), TokenType::unused};
}

/// Token ids by bytes, to read merges with. The vocabulary must stay as it is.
class TokenIndex {
 public:
  explicit TokenIndex(const Vocabulary& v) : v_(v) {
    ids_.reserve(v.tokens.size());
    for (const TokenType type : {TokenType::normal, TokenType::user_defined})
      for (std::size_t id = 0; id < v.tokens.size(); ++id)
        if (v.tokens[id].type == type) ids_.emplace(v.tokens[id].bytes, static_cast<std::int32_t>(id));
  }

  std::int32_t find(std::string_view bytes) const {
    const auto found = ids_.find(bytes);
    return found == ids_.end() ? -1 : found->second;
  }

  /// The merge of two tokens in letters.
  Result<std::pair<std::int32_t, std::int32_t>> merge(std::string_view left, std::string_view right) const {
    const auto id = [&](std::string_view text) {
      const auto bytes = from_letters(text);
      return bytes ? find(*bytes) : -1;
    };
    const std::pair<std::int32_t, std::int32_t> ids{id(left), id(right)};
    if (ids.first < 0 || ids.second < 0)
      return Error{"merge " + std::to_string(v_.merges.size()) + ": expected two tokens, found \"" +
                   std::string((ids.first < 0 ? left : right).substr(0, 60)) + "\", which is none"};
    return ids;
  }

 private:
  const Vocabulary& v_;
  std::unordered_map<std::string_view, std::int32_t> ids_;
};

/// Says in the vocabulary what its file says and cannot be. A few of these are enough.
inline void add_note(Vocabulary& v, const std::string& text) {
  if (v.note.size() < 1000) v.note.append(v.note.empty() ? "" : "; ").append(text);
}

/// The id that `where` of the file names, or -1, with a note, if it is that of no token. All tokens are there already.
inline std::int32_t known_id(Vocabulary& v, const std::string& where, std::int64_t id) {
  if (id >= 0 && id < static_cast<std::int64_t>(v.tokens.size())) return static_cast<std::int32_t>(id);
  add_note(v, where + " is " + std::to_string(id) + ", and there are " + std::to_string(v.tokens.size()) +
                  " tokens: it is passed over");
  return -1;
}

/// Adds a token that ends a text, unless there is none or it is known as one.
inline void add_end(Vocabulary& v, std::int32_t id) {
  constexpr std::size_t most = 64;
  if (id < 0 || id == v.eos || id == v.eot || std::find(v.ends.begin(), v.ends.end(), id) != v.ends.end()) return;
  if (v.ends.size() < most) return v.ends.push_back(id);
  add_note(v, "of the tokens that end a text " + std::to_string(most) + " are used");
}

/// Adds a chat template; "default" is the usual one. Names become those of files.
inline void add_template(Vocabulary& v, std::string name, std::string jinja) {
  constexpr std::size_t most = 64;
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  if (name == "default") {
    v.chat_template = std::move(jinja);
  } else if (name.empty() || name.size() > most || name.find_first_not_of(plain) != std::string::npos) {
    add_note(v, "a chat template is passed over, for its name is not of letters and digits");
  } else {
    for (NamedTemplate& t : v.named_templates)
      if (t.name == name) return void(t.jinja = std::move(jinja));
    if (v.named_templates.size() < most) v.named_templates.push_back({std::move(name), std::move(jinja)});
  }
}

/// Makes room for the id; false if it is none, or beyond what a file of `entries` tokens may hold.
inline bool make_room(Vocabulary& v, std::int64_t id, std::size_t entries) {
  constexpr std::size_t gap = 65536;
  if (id < 0 || static_cast<std::size_t>(id) >= std::min(entries + gap, Vocabulary::max_tokens)) return false;
  if (static_cast<std::size_t>(id) >= v.tokens.size()) v.tokens.resize(static_cast<std::size_t>(id) + 1);
  return true;
}

}  // namespace byte_level_parts

}  // namespace chimera
