// Two languages of made-up words, to count and to learn tokens from.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/random.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/piece_counts.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace languages {

using namespace chimera;

inline Cpu cpu(int threads) {
  auto q = Cpu::create(threads);
  REQUIRE(q.ok());
  return std::move(*q);
}

/// Lines of words that are drawn from few syllables, the first ones most often.
inline std::string made_text(const std::vector<std::string>& syllables, int words, std::uint64_t seed) {
  Random random{seed, 0, 0};
  std::string text;
  for (int w = 0; w < words; ++w) {
    const std::uint64_t length = 1 + random.below(4);
    for (std::uint64_t i = 0; i < length; ++i) text += syllables[random.below(1 + random.below(syllables.size()))];
    text += w % 9 == 8 ? "\n" : w % 13 == 12 ? ", " : " ";
  }
  return text;
}
inline const std::vector<std::string> latin{"an", "the", "o", "st", "re", "ba", "Qu", "ing", "l", "aa", "é", "'s", "9"};
inline const std::vector<std::string> devanagari{"क", "का", "नि", "स्त", "र", "ती", "ं", "्", "क्ष", "है", "ो", "ज़", "म"};

struct Languages {
  std::string en = made_text(latin, 6000, 1), hi = made_text(devanagari, 6000, 2);
  std::vector<CountedText> texts{{en, 0}, {hi, 1}};
};

inline BpeSettings settings(std::int64_t vocab) {
  BpeSettings s;
  s.vocab = vocab, s.specials = {"<|endoftext|>"};
  return s;
}

}  // namespace languages
