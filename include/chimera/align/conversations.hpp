// Conversations as rows to learn from, packed side by side: none sees another, and only answers are targets.
#pragma once

#include <chimera/align/answers.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/train/batch_source.hpp>
#include <chimera/train/windows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Rows are packed once, the longest conversations first, each into the row that it fills best; every epoch has the
/// rows in a new order. A conversation that is longer than a row is cut there, and left out if nothing of an answer is
/// before the cut.
class Conversations : public BatchSource {
 public:
  /// `length`: tokens of a row. `order`: shuffled, or in_order for validation.
  static Conversations create(std::span<const MarkedTokens> conversations, std::int64_t length, WindowOrder order,
                              std::uint64_t seed = 0);

  const AnswerCounts& counts() const { return answers_.counts; }

  CHIMERA_FUNCTION Result<void> validate(std::int64_t length, std::int64_t vocab) const override;
  CHIMERA_FUNCTION Result<void> fill(std::uint64_t first, BatchBuffer& batch) override;
  std::uint64_t rows(std::int64_t) const override { return rows_.size(); }
  std::int64_t tokens() const override { return answers_.counts.tokens; }
  std::uint32_t checksum() const override { return answers_.checksum(); }

 private:
  Conversations(std::int64_t length, WindowOrder order, std::uint64_t seed)
      : answers_{length}, order_(order), seed_(seed) {}

  Answers answers_;
  WindowOrder order_;
  std::uint64_t seed_;
  std::vector<std::vector<Answers::Piece>> rows_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Conversations Conversations::create(std::span<const MarkedTokens> conversations, std::int64_t length,
                                                     WindowOrder order, std::uint64_t seed) {
  Conversations all(length, order, seed);
  AnswerCounts& counts = all.answers_.counts;
  std::vector<Answers::Piece> pieces;
  for (const MarkedTokens& c : conversations) {
    if (all.answers_.targets(c) == 0) {
      ++counts.left_out;
      continue;
    }
    ++counts.used, counts.cut += all.answers_.kept(c) < c.ids.size();
    pieces.push_back(all.answers_.add(c));
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const auto& a, const auto& b) { return a.row_tokens() > b.row_tokens(); });
  std::multimap<std::int64_t, std::size_t> room;  // what is free of each row
  for (const Answers::Piece& p : pieces) {
    auto at = room.lower_bound(p.row_tokens());
    if (at == room.end()) at = room.emplace(length, all.rows_.size()), all.rows_.emplace_back();
    const auto [free, row] = *at;
    all.rows_[row].push_back(p);
    room.erase(at);
    room.emplace(free - p.row_tokens(), row);
  }
  return all;
}

CHIMERA_FUNCTION Result<void> Conversations::validate(std::int64_t length, std::int64_t vocab) const {
  if (rows_.empty()) return Error{"there is no conversation with an answer to learn from"};
  return answers_.validate("conversations", "packed", length, vocab);
}

CHIMERA_FUNCTION Result<void> Conversations::fill(std::uint64_t first, BatchBuffer& batch) {
  constexpr std::uint64_t stream = std::uint64_t{0xC0A7} << 40;  // apart from those of weights, windows and dropout
  for (std::int64_t r = 0; r < batch.rows(); ++r) {
    const BatchBuffer::Row row = batch.row(r);
    std::size_t at = 0;
    if (const auto item = item_at(first + static_cast<std::uint64_t>(r), rows_.size(), order_, seed_, stream))
      for (const Answers::Piece& piece : rows_[*item]) at = answers_.write(piece, row, at);
    Answers::pad(row, at);
  }
  batch.set_documents(true);
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
