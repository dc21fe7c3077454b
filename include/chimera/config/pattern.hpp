// The layer pattern: a picture of the model, read at compile time.
#pragma once

#include <chimera/config/kinds.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace chimera {

/// One block: how it mixes tokens, then what it does with each.
struct BlockKind {
  Kind mixer = Kind::attention;
  Ffn ffn = Ffn::swiglu;

  constexpr bool operator==(const BlockKind&) const = default;
};

/// The word of a host's own layer: 1 to 7 letters, digits or underscores, and zeros.
struct OwnWord {
  std::array<char, 8> text{};

  constexpr std::string_view name() const { return text.data(); }
  constexpr bool operator==(const OwnWord&) const = default;
};

/// All blocks, first to last. A mistake in the pattern is kept here and reported, in words, by Check<C>.
struct Layers {
  static constexpr int max = 256;

  std::array<Kind, max> kind{};
  std::array<Ffn, max> ffn{};
  int count = 0;
  bool unknown_word = false, wrong_own_word = false;
  std::array<OwnWord, 4> own{};  // the words of Kind::own, own + 1 ...; empty: none

  constexpr Kind operator[](int i) const { return kind[static_cast<std::size_t>(i)]; }
  constexpr BlockKind block(int i) const { return {(*this)[i], ffn[static_cast<std::size_t>(i)]}; }
  constexpr int count_of(Kind k) const {
    int n = 0;
    for (int i = 0; i < count; ++i) n += (*this)[i] == k;
    return n;
  }
  constexpr int count_of(Ffn f) const {
    int n = 0;
    for (int i = 0; i < count; ++i) n += block(i).ffn == f;
    return n;
  }

  constexpr std::string_view name(Kind k) const {
    const auto i = static_cast<std::size_t>(k), of_library = mnemonics.size();
    return i < of_library ? mnemonics[i].word : i - of_library < own.size() ? own[i - of_library].name() : "";
  }
  /// The kind behind a word; none if nothing has that word.
  constexpr Kind kind_of(std::string_view word) const {
    for (std::size_t i = 0; i < mnemonics.size() + own.size(); ++i)
      if (!word.empty() && this->name(static_cast<Kind>(i)) == word) return static_cast<Kind>(i);
    return Kind::none;
  }
  /// The word of a block is name(mixer) and ffn_word.
  constexpr std::string_view ffn_word(int i) const { return ffn_words[static_cast<std::size_t>(block(i).ffn)]; }
  /// Makes a word of the host's own known. A word must be new and an OwnWord, and there is room for four.
  constexpr bool declare(std::string_view word) {
    if (word.empty() || word.size() >= own[0].text.size() || kind_of(word) != Kind::none) return false;
    for (const char c : word)
      if (!((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_')) return false;
    for (OwnWord& free : own)
      if (free.name().empty()) {
        for (std::size_t i = 0; i < word.size(); ++i) free.text[i] = word[i];
        return true;
      }
    return false;
  }

  constexpr bool operator==(const Layers&) const = default;
};

using Words = std::initializer_list<std::string_view>;

namespace pattern_parts {

/// Calls f(word) for each; words are separated by spaces.
template <class F>
constexpr void each_word(std::string_view words, F f) {
  for (std::size_t at = 0; at < words.size();) {
    const std::size_t end = words.find(' ', at) == std::string_view::npos ? words.size() : words.find(' ', at);
    if (end > at) f(words.substr(at, end - at));
    at = end + 1;
  }
}

constexpr std::string_view mixer_of(std::string_view word) { return word.substr(0, word.find('+')); }

/// `layers` with blocks after the words that it knows.
constexpr Layers read(Layers layers, std::string_view words, int count) {
  layers.count = count;
  std::array<BlockKind, Layers::max> cycle{};
  std::size_t length = 0;
  each_word(words, [&](std::string_view word) {
    if (length == Layers::max) return;
    const std::string_view mixer = mixer_of(word), rest = word.substr(mixer.size());
    cycle[length].mixer = layers.kind_of(mixer);
    if (rest == ffn_words[1]) cycle[length].ffn = Ffn::moe;
    if (cycle[length++].mixer == Kind::none || (!rest.empty() && rest != ffn_words[1])) layers.unknown_word = true;
  });
  if (length == 0) layers.unknown_word = true;
  if (!layers.unknown_word)
    for (std::size_t i = 0; i < static_cast<std::size_t>(count < Layers::max ? count : Layers::max); ++i)
      layers.kind[i] = cycle[i % length].mixer, layers.ffn[i] = cycle[i % length].ffn;
  return layers;
}

constexpr int count_words(std::string_view words) {
  int count = 0;
  each_word(words, [&](std::string_view) { ++count; });
  return count;
}

constexpr Layers declared(Words own) {
  Layers layers;
  for (const std::string_view word : own)
    if (!layers.declare(word)) layers.wrong_own_word = true;
  return layers;
}

}  // namespace pattern_parts

/// `count` blocks; block i is word i mod (number of words). Words are separated by spaces. `own` are the words of
/// layers of the host's own.
consteval Layers pattern(std::string_view words, int count, Words own = {}) {
  return pattern_parts::read(pattern_parts::declared(own), words, count);
}
/// One word for each block.
consteval Layers pattern(std::string_view words, Words own = {}) {
  return pattern(words, pattern_parts::count_words(words), own);
}

/// What `pattern` reads, for text that comes at run time. A word that the library does not have is a layer of some
/// host's own, as long as there is room.
constexpr Layers read_pattern(std::string_view words) {
  Layers layers;
  pattern_parts::each_word(words, [&](std::string_view word) {
    const std::string_view mixer = pattern_parts::mixer_of(word);
    if (layers.kind_of(mixer) == Kind::none) (void)layers.declare(mixer);
  });
  return pattern_parts::read(layers, words, pattern_parts::count_words(words));
}

/// `count` blocks of `base`, with `other` at the positions given.
template <std::size_t n>
consteval Layers placed(Kind base, Kind other, int count, const int (&positions)[n]) {
  Layers layers;
  layers.count = count;
  for (int i = 0; i < count && i < Layers::max; ++i) layers.kind[static_cast<std::size_t>(i)] = base;
  for (int p : positions) layers.kind[static_cast<std::size_t>(p)] = other;
  return layers;
}

/// Attention where it serves most, Mamba-2 elsewhere: the first two blocks, the last two (three above 24 blocks), and
/// the rest evenly between them.
consteval Layers strategic(int count, int attention) {
  Layers layers;
  layers.count = count;
  for (int i = 0; i < count && i < Layers::max; ++i) layers.kind[static_cast<std::size_t>(i)] = Kind::mamba2;
  const int early = 2, late = count <= 24 ? 2 : 3, middle = attention - early - late;
  const auto place = [&](int i) { layers.kind[static_cast<std::size_t>(i)] = Kind::attention; };
  for (int i = 0; i < early; ++i) place(i);
  for (int i = count - late; i < count; ++i) place(i);
  for (int j = 0; j < middle; ++j) place(early + (2 * j + 1) * (count - early - late) / (2 * middle));
  return layers;
}

}  // namespace chimera
