// The layer pattern: a picture of the model, read at compile time.
#pragma once

#include <chimera/config/kinds.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

/// The kinds of all blocks, first to last. A mistake in the pattern is kept here and reported, in words, by Check<C>.
struct Layers {
  static constexpr int max = 256;

  std::array<Kind, max> kind{};
  int count = 0;
  bool unknown_word = false;

  constexpr Kind operator[](int i) const { return kind[static_cast<std::size_t>(i)]; }
  constexpr int count_of(Kind k) const {
    int n = 0;
    for (int i = 0; i < count; ++i) n += (*this)[i] == k;
    return n;
  }
  constexpr bool operator==(const Layers&) const = default;
};

/// What `pattern` reads, for text that comes at run time.
constexpr Layers read_pattern(std::string_view words, int count) {
  Layers layers;
  layers.count = count;
  std::array<Kind, Layers::max> cycle{};
  std::size_t length = 0;
  for (std::size_t at = 0; at < words.size() && length < Layers::max;) {
    const std::size_t end = words.find(' ', at) == std::string_view::npos ? words.size() : words.find(' ', at);
    const std::string_view word = words.substr(at, end - at);
    at = end + 1;
    if (word.empty()) continue;
    bool known = false;
    for (const Mnemonic& m : mnemonics)
      if (m.word == word) cycle[length++] = m.kind, known = true;
    if (!known) layers.unknown_word = true;
  }
  if (length == 0) layers.unknown_word = true;
  if (!layers.unknown_word)
    for (int i = 0; i < count && i < Layers::max; ++i)
      layers.kind[static_cast<std::size_t>(i)] = cycle[static_cast<std::size_t>(i) % length];
  return layers;
}

/// `count` blocks; block i is word i mod (number of words). Words are separated by spaces.
consteval Layers pattern(std::string_view words, int count) { return read_pattern(words, count); }

/// One word for each block.
constexpr Layers read_pattern(std::string_view words) {
  int count = 0;
  for (std::size_t i = 0; i < words.size(); ++i) count += words[i] != ' ' && (i == 0 || words[i - 1] == ' ');
  return read_pattern(words, count);
}
consteval Layers pattern(std::string_view words) { return read_pattern(words); }

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
