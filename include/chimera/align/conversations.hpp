// Conversations as rows to learn from, packed side by side: none sees another, and only answers are targets.
#pragma once

#include <chimera/core/checksum.hpp>
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
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Rows are packed once, the longest conversations first, each into the row that it fills best; every epoch has the
/// rows in a new order. A conversation that is longer than a row is cut there, and left out if nothing of an answer is
/// before the cut.
class Conversations : public BatchSource {
 public:
  struct Counts {
    std::int64_t used = 0, cut = 0, left_out = 0;  // conversations; those that are cut are used
    std::int64_t tokens = 0, targets = 0;          // of those used
  };

  /// `length`: tokens of a row. `order`: shuffled, or in_order for validation.
  static Conversations create(std::span<const MarkedTokens> conversations, std::int64_t length, WindowOrder order,
                              std::uint64_t seed = 0);

  const Counts& counts() const { return counts_; }

  CHIMERA_FUNCTION Result<void> validate(std::int64_t length, std::int64_t vocab) const override;
  CHIMERA_FUNCTION Result<void> fill(std::uint64_t first, BatchBuffer& batch) override;
  std::uint64_t rows(std::int64_t) const override { return rows_.size(); }
  std::int64_t tokens() const override { return counts_.tokens; }
  CHIMERA_FUNCTION std::uint32_t checksum() const override;

 private:
  /// A conversation: tokens begin ... end - 1 of `ids_`.
  struct Piece {
    std::size_t begin, end;

    std::int64_t targets() const { return static_cast<std::int64_t>(end - begin) - 1; }
  };

  void write(std::span<const Piece> pieces, const BatchBuffer::Row& row) const;

  std::int64_t length_ = 0;
  WindowOrder order_ = WindowOrder::shuffled;
  std::uint64_t seed_ = 0;
  Counts counts_;
  std::vector<std::int32_t> ids_;
  std::vector<bool> said_;
  std::vector<std::vector<Piece>> rows_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Conversations Conversations::create(std::span<const MarkedTokens> conversations, std::int64_t length,
                                                     WindowOrder order, std::uint64_t seed) {
  Conversations all;
  all.length_ = length, all.order_ = order, all.seed_ = seed;
  std::vector<Piece> pieces;
  for (const MarkedTokens& c : conversations) {
    const std::size_t count = std::min(c.ids.size(), static_cast<std::size_t>(length) + 1);
    const auto end = c.said.begin() + static_cast<std::ptrdiff_t>(count);
    const std::int64_t targets = count < 2 ? 0 : std::count(c.said.begin() + 1, end, true);
    if (targets == 0) {
      ++all.counts_.left_out;
      continue;
    }
    ++all.counts_.used, all.counts_.cut += count < c.ids.size();
    all.counts_.tokens += static_cast<std::int64_t>(count), all.counts_.targets += targets;
    pieces.push_back({all.ids_.size(), all.ids_.size() + count});
    all.ids_.insert(all.ids_.end(), c.ids.begin(), c.ids.begin() + static_cast<std::ptrdiff_t>(count));
    all.said_.insert(all.said_.end(), c.said.begin(), end);
  }
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.targets() > b.targets(); });
  std::multimap<std::int64_t, std::size_t> room;  // what is free of each row
  for (const Piece& p : pieces) {
    auto at = room.lower_bound(p.targets());
    if (at == room.end()) at = room.emplace(length, all.rows_.size()), all.rows_.emplace_back();
    const auto [free, row] = *at;
    all.rows_[row].push_back(p);
    room.erase(at);
    room.emplace(free - p.targets(), row);
  }
  return all;
}

CHIMERA_FUNCTION Result<void> Conversations::validate(std::int64_t length, std::int64_t vocab) const {
  if (rows_.empty()) return Error{"there is no conversation with an answer to learn from"};
  if (length != length_)
    return Error{"the conversations were packed for rows of " + std::to_string(length_) + " tokens, asked for are " +
                 std::to_string(length)};
  if (const std::int32_t most = *std::max_element(ids_.begin(), ids_.end()); most >= vocab)
    return Error{"the conversations have a token " + std::to_string(most) + ", the model's vocabulary ends at " +
                 std::to_string(vocab)};
  return {};
}

CHIMERA_FUNCTION Result<void> Conversations::fill(std::uint64_t first, BatchBuffer& batch) {
  constexpr std::uint64_t stream = std::uint64_t{0xC0A7} << 40;  // apart from those of weights, windows and dropout
  for (std::int64_t r = 0; r < batch.rows(); ++r) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(r), n = rows_.size();
    std::uint64_t row = number % n;
    if (order_ != WindowOrder::in_order && n > 1) row = shuffled_index(row, n, seed_, stream + number / n);
    const bool past = order_ == WindowOrder::in_order && number >= n;
    write(past ? std::span<const Piece>() : rows_[row], batch.row(r));
  }
  batch.set_documents(true);
  return {};
}

CHIMERA_FUNCTION std::uint32_t Conversations::checksum() const {
  return crc32c(ids_.data(), ids_.size() * sizeof ids_[0]);
}

CHIMERA_FUNCTION void Conversations::write(std::span<const Piece> pieces, const BatchBuffer::Row& row) const {
  std::size_t at = 0;
  for (const Piece& p : pieces) {
    const std::size_t start = at;
    for (std::size_t i = p.begin; i + 1 < p.end; ++i, ++at) {
      row.tokens[at] = ids_[i];
      row.targets[at] = said_[i + 1] ? ids_[i + 1] : -1;
      row.starts[at] = static_cast<std::int32_t>(start);
    }
  }
  const auto padding = static_cast<std::int32_t>(at);
  for (; at < row.tokens.size(); ++at) row.tokens[at] = 0, row.targets[at] = -1, row.starts[at] = padding;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
