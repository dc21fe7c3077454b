// What a tokenizer makes of texts: tokens for a word, words that are one token, clusters that are cut.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/text/encoder.hpp>
#include <chimera/text/piece_counts.hpp>
#include <chimera/text/tokenizer.hpp>
#include <chimera/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace chimera {

/// What tokens make of a text.
struct TokenStatistics {
  std::int64_t bytes = 0, pieces = 0, tokens = 0;
  std::int64_t words = 0, word_tokens = 0, whole_words = 0;  // pieces with a letter; those that are one token
  std::int64_t inside_clusters = 0;                          // tokens that end inside a grapheme cluster

  double bytes_per_token() const { return static_cast<double>(bytes) / static_cast<double>(tokens); }
  /// What is called fertility.
  double tokens_per_word() const { return static_cast<double>(word_tokens) / static_cast<double>(words); }
};

/// Statistics of each column. `used`, if given: has an entry for each id, which becomes true if the token occurs.
std::vector<TokenStatistics> measure_tokens(const Cpu& q, const Tokenizer& tokenizer, const PieceCounts& counts,
                                            std::vector<bool>* used = nullptr);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION std::vector<TokenStatistics> measure_tokens(const Cpu& q, const Tokenizer& tokenizer,
                                                             const PieceCounts& counts, std::vector<bool>* used) {
  constexpr std::size_t block = 4096;
  struct Part {
    std::vector<TokenStatistics> statistics;
    std::vector<bool> used;
    std::vector<std::int32_t> ids;
    Encoder encoder;
  };
  std::vector<Part> parts;
  parts.reserve(static_cast<std::size_t>(q.threads()));
  for (int worker = 0; worker < q.threads(); ++worker)
    parts.push_back({std::vector<TokenStatistics>(static_cast<std::size_t>(counts.column_count())),
                     std::vector<bool>(static_cast<std::size_t>(tokenizer.size())),
                     {},
                     Encoder(tokenizer, 2)});
  parallel(q, static_cast<std::int64_t>((counts.size() + block - 1) / block), [&](std::int64_t index, int worker) {
    Part& part = parts[static_cast<std::size_t>(worker)];
    const std::size_t first = static_cast<std::size_t>(index) * block;
    for (std::size_t i = first; i < std::min(first + block, counts.size()); ++i) {
      const std::string_view piece = counts.piece(i);
      part.ids.clear();
      part.encoder.encode(piece, Special::as_text, part.ids);
      bool word = false;
      for (std::size_t at = 0; at < piece.size();) {
        const CodePoint c = first_code_point(piece.substr(at));
        const CharClass kind = char_class(c.value);
        word = word || (kind >= CharClass::upper && kind <= CharClass::letter);
        at += c.bytes;
      }
      std::int64_t inside = 0;
      std::size_t end = 0, cluster = 0;  // of the token, of the cluster that it ends in
      for (const std::int32_t id : part.ids) {
        part.used[static_cast<std::size_t>(id)] = true;
        end += tokenizer.bytes(id).size();
        while (cluster < end) cluster = next_grapheme(piece, cluster);
        inside += cluster > end;
      }
      const bool continued = continues_cluster(grapheme_class(first_code_point(piece).value));  // of the piece before
      const std::int64_t tokens = static_cast<std::int64_t>(part.ids.size());
      for (int column = 0; column < counts.column_count(); ++column) {
        const std::int64_t n = counts.count(i, column);
        TokenStatistics& s = part.statistics[static_cast<std::size_t>(column)];
        s.bytes += n * static_cast<std::int64_t>(piece.size());
        s.pieces += n;
        s.tokens += n * tokens;
        s.words += word ? n : 0;
        s.word_tokens += word ? n * tokens : 0;
        s.whole_words += word && tokens == 1 ? n : 0;
        s.inside_clusters += n * (inside + continued);
      }
    }
  });
  for (std::size_t p = 1; p < parts.size(); ++p)
    for (std::size_t c = 0; c < parts[0].statistics.size(); ++c) {
      TokenStatistics &sum = parts[0].statistics[c], &s = parts[p].statistics[c];
      sum.bytes += s.bytes, sum.pieces += s.pieces, sum.tokens += s.tokens, sum.words += s.words;
      sum.word_tokens += s.word_tokens, sum.whole_words += s.whole_words, sum.inside_clusters += s.inside_clusters;
    }
  if (used)
    for (const Part& p : parts)
      for (std::size_t id = 0; id < p.used.size(); ++id) (*used)[id] = (*used)[id] || p.used[id];
  return parts[0].statistics;
}

}  // namespace chimera
#endif
