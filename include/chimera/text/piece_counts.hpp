// The pieces that texts are cut into, counted: all that learning and judging tokens needs to know of a text.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/text/pretokenizer.hpp>
#include <chimera/text/short_text.hpp>
#include <chimera/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// A text whose pieces are counted in that column: a language, or one side of aligned sentences.
struct CountedText {
  std::string_view text;
  int column = 0;
};

/// The different pieces that pre-tokenization cuts from texts, and how often each occurs in each column. Pieces are
/// views of the texts, which must outlive this; they are in no particular order.
class PieceCounts {
 public:
  static PieceCounts count(const Cpu& q, PreTokenizer rules, std::span<const CountedText> texts, int column_count);

  PreTokenizer rules() const { return rules_; }
  int column_count() const { return columns_; }
  std::size_t size() const { return pieces_.size(); }
  std::string_view piece(std::size_t i) const { return pieces_[i]; }
  std::int64_t count(std::size_t i, int column) const {
    return counts_[i * width() + static_cast<std::size_t>(column)];
  }
  /// Pieces of a column, each as often as it occurs.
  std::int64_t total(int column) const;

 private:
  PieceCounts(PreTokenizer rules, int column_count) : rules_(rules), columns_(column_count), slots_(1024) {}

  std::size_t width() const { return static_cast<std::size_t>(columns_); }

  /// The counters of a piece, one for each column.
  std::int64_t* find(std::string_view piece, std::uint64_t hash);
  void grow();

  /// Cuts where every set of rules does: before a letter at the start of a line.
  static std::vector<CountedText> chunks(std::span<const CountedText> texts);
  static bool letter_at(std::string_view text, std::size_t at);

  struct Slot {
    std::uint32_t check = 0, index = 0;  // the upper half of the hash; 1 + the piece's index, 0: free
  };

  PreTokenizer rules_;
  int columns_;
  std::vector<Slot> slots_;
  std::vector<std::string_view> pieces_;
  std::vector<std::int64_t> counts_;  // [pieces, column_count]
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION PieceCounts PieceCounts::count(const Cpu& q, PreTokenizer rules, std::span<const CountedText> texts,
                                                int column_count) {
  const std::vector<CountedText> parts = chunks(texts);
  std::vector<PieceCounts> tables(static_cast<std::size_t>(q.threads()), PieceCounts(rules, column_count));
  parallel(q, static_cast<std::int64_t>(parts.size()), [&](std::int64_t i, int worker) {
    PieceCounts& table = tables[static_cast<std::size_t>(worker)];
    const CountedText& part = parts[static_cast<std::size_t>(i)];
    split(rules, part.text, [&](std::string_view piece) { ++table.find(piece, hash_bytes(piece))[part.column]; });
  });
  for (std::size_t t = 1; t < tables.size(); ++t)
    for (std::size_t i = 0; i < tables[t].size(); ++i) {
      std::int64_t* sums = tables[0].find(tables[t].piece(i), hash_bytes(tables[t].piece(i)));
      for (int c = 0; c < column_count; ++c) sums[c] += tables[t].count(i, c);
    }
  return std::move(tables[0]);
}

CHIMERA_FUNCTION std::int64_t PieceCounts::total(int column) const {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < size(); ++i) sum += count(i, column);
  return sum;
}

CHIMERA_FUNCTION std::int64_t* PieceCounts::find(std::string_view piece, std::uint64_t hash) {
  const std::size_t last = slots_.size() - 1;
  std::size_t at = hash & last;
  for (; slots_[at].index != 0; at = (at + 1) & last)
    if (slots_[at].check == hash >> 32 && pieces_[slots_[at].index - 1] == piece)
      return &counts_[(slots_[at].index - 1) * width()];
  pieces_.push_back(piece);
  counts_.resize(counts_.size() + width());
  slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(pieces_.size())};
  if (pieces_.size() * 2 > slots_.size()) grow();
  return &counts_[counts_.size() - width()];
}

CHIMERA_FUNCTION void PieceCounts::grow() {
  slots_.assign(slots_.size() * 4, {});
  const std::size_t last = slots_.size() - 1;
  for (std::size_t i = 0; i < size(); ++i) {
    const std::uint64_t hash = hash_bytes(pieces_[i]);
    std::size_t at = hash & last;
    while (slots_[at].index != 0) at = (at + 1) & last;
    slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::uint32_t>(i + 1)};
  }
}

CHIMERA_FUNCTION std::vector<CountedText> PieceCounts::chunks(std::span<const CountedText> texts) {
  constexpr std::size_t usual = std::size_t{1} << 18;
  std::vector<CountedText> chunks;
  for (CountedText t : texts) {
    while (t.text.size() > usual) {
      std::size_t cut = t.text.find('\n', usual);
      while (cut < t.text.size() && !letter_at(t.text, cut + 1)) cut = t.text.find('\n', cut + 1);
      cut = std::min(cut, t.text.size() - 1) + 1;
      chunks.push_back({t.text.substr(0, cut), t.column});
      t.text.remove_prefix(cut);
    }
    if (!t.text.empty()) chunks.push_back(t);
  }
  return chunks;
}

CHIMERA_FUNCTION bool PieceCounts::letter_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return false;
  const CharClass c = char_class(first_code_point(text.substr(at)).value);
  return c == CharClass::upper || c == CharClass::lower || c == CharClass::letter;
}

}  // namespace chimera
#endif
