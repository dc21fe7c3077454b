// The tokens that rows of conversations are made of, cut to a row's length; what a model says itself is a target.
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
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Of what a source is made from: conversations, or pairs of answers.
struct AnswerCounts {
  std::int64_t used = 0, cut = 0, left_out = 0;  // those that are cut are used
  std::int64_t tokens = 0, targets = 0;          // of those used
};

struct Answers {
  /// A conversation: tokens begin ... end - 1 of `ids`, in a row one fewer, for the last is a target alone.
  struct Piece {
    std::size_t begin = 0, end = 0;

    std::int64_t row_tokens() const { return static_cast<std::int64_t>(end - begin) - 1; }
  };

  std::int64_t length;  // of a row
  AnswerCounts counts = {};
  std::vector<std::int32_t> ids = {};
  std::vector<bool> said = {};

  /// Tokens of a conversation before it is cut, and how many of them are targets.
  std::size_t kept(const MarkedTokens& m) const { return std::min(m.ids.size(), static_cast<std::size_t>(length) + 1); }
  std::int64_t targets(const MarkedTokens& m) const;

  Piece add(const MarkedTokens& m);

  /// An error unless they were `made` for rows of that length, and are of that vocabulary. `what`: they, in words.
  Result<void> validate(std::string_view what, std::string_view made, std::int64_t row, std::int64_t vocab) const;

  std::uint32_t checksum() const { return crc32c(ids.data(), ids.size() * sizeof ids[0]); }

  /// Writes a piece into a row, from token `at` on; returns where it ends.
  std::size_t write(const Piece& piece, const BatchBuffer::Row& row, std::size_t at) const;
  /// What is left of a row: nothing to learn.
  static void pad(const BatchBuffer::Row& row, std::size_t at);
};

/// Which of n items has that number in an endless list of them: every epoch in a new order, or in order once and then
/// none.
std::optional<std::uint64_t> item_at(std::uint64_t number, std::uint64_t n, WindowOrder order, std::uint64_t seed,
                                     std::uint64_t stream);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION std::int64_t Answers::targets(const MarkedTokens& m) const {
  const std::size_t count = kept(m);
  return count < 2 ? 0 : std::count(m.said.begin() + 1, m.said.begin() + static_cast<std::ptrdiff_t>(count), true);
}

CHIMERA_FUNCTION Answers::Piece Answers::add(const MarkedTokens& m) {
  const auto count = static_cast<std::ptrdiff_t>(kept(m));
  const Piece piece{ids.size(), ids.size() + kept(m)};
  ids.insert(ids.end(), m.ids.begin(), m.ids.begin() + count);
  said.insert(said.end(), m.said.begin(), m.said.begin() + count);
  counts.tokens += count, counts.targets += targets(m);
  return piece;
}

CHIMERA_FUNCTION Result<void> Answers::validate(std::string_view what, std::string_view made, std::int64_t row,
                                                std::int64_t vocab) const {
  const std::string they = "the " + std::string(what);
  if (row != length)
    return Error{they + " were " + std::string(made) + " for rows of " + std::to_string(length) +
                 " tokens, asked for are " + std::to_string(row)};
  if (const std::int32_t most = *std::max_element(ids.begin(), ids.end()); most >= vocab)
    return Error{they + " have a token " + std::to_string(most) + ", the model's vocabulary ends at " +
                 std::to_string(vocab)};
  return {};
}

CHIMERA_FUNCTION std::size_t Answers::write(const Piece& piece, const BatchBuffer::Row& row, std::size_t at) const {
  const auto start = static_cast<std::int32_t>(at);
  for (std::size_t i = piece.begin; i + 1 < piece.end; ++i, ++at) {
    row.tokens[at] = ids[i];
    row.targets[at] = said[i + 1] ? ids[i + 1] : -1;
    row.starts[at] = start;
  }
  return at;
}

CHIMERA_FUNCTION void Answers::pad(const BatchBuffer::Row& row, std::size_t at) {
  const auto start = static_cast<std::int32_t>(at);
  for (; at < row.tokens.size(); ++at) row.tokens[at] = 0, row.targets[at] = -1, row.starts[at] = start;
}

CHIMERA_FUNCTION std::optional<std::uint64_t> item_at(std::uint64_t number, std::uint64_t n, WindowOrder order,
                                                      std::uint64_t seed, std::uint64_t stream) {
  if (order == WindowOrder::in_order) return number < n ? std::optional(number) : std::nullopt;
  return n > 1 ? shuffled_index(number % n, n, seed, stream + number / n) : 0;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
