// What Unicode 16.0 says about characters, as far as splitting text needs it: letters, marks, numbers, white space, and
// grapheme clusters. 16.0 is the version in the regex engines of tiktoken 0.14 and tokenizers 0.23; letters that came
// later are symbols to them and to us.
#pragma once

#include <chimera/text/unicode_tables.hpp>

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// The general categories that tokenizers tell apart; no code point is in two. line_end: CR and LF; space: the rest of
/// White_Space, which is `\s` of regular expressions; upper, lower, title, modifier, letter: Lu, Ll, Lt, Lm, Lo;
/// punctuation: P.
enum class CharClass : std::uint8_t {
  other,
  line_end,
  space,
  number,
  mark,
  upper,
  lower,
  title,
  modifier,
  letter,
  punctuation,
  end
};

/// Grapheme_Cluster_Break with Indic_Conjunct_Break and Extended_Pictographic. extend: with
/// Indic_Conjunct_Break=Extend, as all have but ZWNJ and the linkers; syllable: LV and LVT.
enum class GraphemeClass : std::uint8_t {
  other,
  control,
  extend,
  zwnj,
  linker,
  zwj,
  regional,
  prepend,
  spacing,
  l,
  v,
  t,
  syllable,
  pictograph,
  consonant
};

/// A code point and the number of bytes that it takes.
struct CodePoint {
  std::uint32_t value;
  std::uint32_t bytes;
};

/// The code point at the start of `text`, which must not be empty. A byte that belongs to no UTF-8 character counts as
/// U+FFFD, a symbol.
inline CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
  const auto tail = [&](std::size_t i) { return i < text.size() ? byte(i) ^ 0x80 : 64; };  // below 64 if it is one
  const std::uint32_t a = byte(0);
  if (a < 0x80) return {a, 1};
  if (a >= 0xC2 && a < 0xE0 && tail(1) < 64) return {(a & 31) << 6 | tail(1), 2};
  if (a >= 0xE0 && a < 0xF0 && tail(1) < 64 && tail(2) < 64) {
    const std::uint32_t c = (a & 15) << 12 | tail(1) << 6 | tail(2);
    if (c >= 0x800 && (c < 0xD800 || c > 0xDFFF)) return {c, 3};
  }
  if (a >= 0xF0 && a < 0xF5 && tail(1) < 64 && tail(2) < 64 && tail(3) < 64) {
    const std::uint32_t c = (a & 7) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
    if (c >= 0x10000 && c < 0x110000) return {c, 4};
  }
  return {0xFFFD, 1};
}

constexpr CharClass char_class(std::uint32_t c) { return static_cast<CharClass>(char_classes[c]); }
constexpr GraphemeClass grapheme_class(std::uint32_t c) { return static_cast<GraphemeClass>(grapheme_classes[c]); }

/// Whether a character of that class, at the start of a token, leaves the cluster before it cut.
constexpr bool continues_cluster(GraphemeClass g) {
  using enum GraphemeClass;
  return g == extend || g == zwnj || g == linker || g == zwj || g == spacing || g == v || g == t;
}

/// Where the extended grapheme cluster ends that begins at `at` < text.size() (UAX #29 of Unicode 16.0, rules GB3 to
/// GB999): what a reader takes for one letter, with its vowel signs and conjuncts.
inline std::size_t next_grapheme(std::string_view text, std::size_t at) {
  using enum GraphemeClass;
  CodePoint code = first_code_point(text.substr(at));
  GraphemeClass last = grapheme_class(code.value);
  bool whole_syllable = false;            // the last is LVT: no vowel follows
  bool conjunct = false, linked = false;  // a consonant and extenders; a linker among them
  bool pictured = false, joined = false;  // a pictograph and extenders; then ZWJ
  bool paired = false;                    // the last regional indicator is the second of its flag
  while (true) {
    if (last == consonant)
      conjunct = true, linked = false;
    else if (last == linker)
      linked = conjunct;
    else if (last != extend && last != zwj)
      conjunct = linked = false;
    joined = pictured && last == zwj;
    if (last != extend && last != zwnj && last != linker) pictured = last == pictograph;
    whole_syllable = last == syllable && (code.value - 0xAC00) % 28 != 0;

    at += code.bytes;
    if (at == text.size()) return at;
    const std::uint32_t before = code.value;
    code = first_code_point(text.substr(at));
    const GraphemeClass next = grapheme_class(code.value);
    const bool extends = next == extend || next == zwnj || next == linker || next == zwj;
    bool together;
    if (last == control || next == control)
      together = before == '\r' && code.value == '\n';  // GB3 to GB5
    else
      together = (last == l && (next == l || next == v || next == syllable)) ||                         // GB6
                 ((last == v || (last == syllable && !whole_syllable)) && (next == v || next == t)) ||  // GB7
                 ((last == t || whole_syllable) && next == t) ||                                        // GB8
                 extends || next == spacing || last == prepend ||    // GB9, GB9a, GB9b
                 (linked && next == consonant) ||                    // GB9c
                 (joined && next == pictograph) ||                   // GB11
                 (last == regional && next == regional && !paired);  // GB12, GB13
    if (!together) return at;
    paired = last == regional && next == regional;
    last = next;
  }
}

}  // namespace chimera
