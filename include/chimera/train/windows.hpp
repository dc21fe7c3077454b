// Windows of a corpus as rows to learn from: a repeatable order, and documents that do not see each other.
#pragma once

#include <chimera/core/checksum.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>
#include <chimera/train/batch_source.hpp>
#include <chimera/train/corpus.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// Tokens [begin, end) of a corpus, which must outlive it.
struct TokenRange {
  const Corpus* corpus = nullptr;
  std::int64_t begin = 0, end = 0;

  std::int64_t size() const { return end - begin; }
};

struct Split {
  TokenRange train, validation;
};

/// The last `validation_fraction` (0 to 1) of the tokens is for validation only.
Split split(const Corpus& corpus, double validation_fraction = 0.1);

enum class WindowOrder : std::uint8_t {
  random,    // each window starts at a token drawn evenly
  shuffled,  // epochs: windows side by side, each once, in a new order every time
  in_order,  // windows side by side, each once: for validation
};

/// Element i of a random order of [0, n): a Feistel network of four rounds over the next even power of two, followed
/// until it lands inside (Black and Rogaway 2002). Nothing is stored, and any element can be asked for.
std::uint64_t shuffled_index(std::uint64_t i, std::uint64_t n, std::uint64_t key, std::uint64_t stream);

/// Rows of `length` tokens out of a range, each with one token more as the last target.
class Windows : public BatchSource {
 public:
  Windows(const TokenRange& range, WindowOrder order, std::uint64_t seed = 0)
      : range_(range), order_(order), seed_(seed) {}

  CHIMERA_FUNCTION Result<void> validate(std::int64_t length, std::int64_t vocab) const override;

  CHIMERA_FUNCTION Result<void> fill(std::uint64_t first, BatchBuffer& batch) override;

  /// Windows of one epoch; in order, the last may be cut short.
  CHIMERA_FUNCTION std::uint64_t rows(std::int64_t length) const override;

  std::int64_t tokens() const override { return range_.size(); }

  /// CRC-32C of the tokens as int32.
  CHIMERA_FUNCTION std::uint32_t checksum() const override;

  /// The first token of window `number`, as an index into the corpus. Needs what `check` asks for.
  std::int64_t start(std::uint64_t number, std::int64_t length) const;

  /// The row becomes the window that starts at token `first`: each target is the next token; a document's last token
  /// learns its end, and the end itself learns nothing (-1). Past the range's last target the row is padding.
  void write(std::int64_t first, const BatchBuffer::Row& row) const;

 private:
  TokenRange range_;
  WindowOrder order_;
  std::uint64_t seed_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Split split(const Corpus& corpus, double validation_fraction) {
  const double kept = static_cast<double>(corpus.tokens()) * (1 - std::clamp(validation_fraction, 0.0, 1.0));
  const std::int64_t border = static_cast<std::int64_t>(kept);
  return {{&corpus, 0, border}, {&corpus, border, corpus.tokens()}};
}

CHIMERA_FUNCTION std::uint64_t shuffled_index(std::uint64_t i, std::uint64_t n, std::uint64_t key,
                                              std::uint64_t stream) {
  const int half = (static_cast<int>(std::bit_width(n - 1)) + 1) / 2;
  const std::uint64_t mask = (std::uint64_t{1} << half) - 1;
  do {
    std::uint64_t left = i >> half, right = i & mask;
    for (std::uint64_t round = 0; round < 4; ++round) {
      const auto w = philox(key, stream, round << 48 ^ right);
      const std::uint64_t mixed = left ^ (((std::uint64_t{w[0]} << 32) | w[1]) & mask);
      left = right, right = mixed;
    }
    i = left << half | right;
  } while (i >= n);
  return i;
}

CHIMERA_FUNCTION Result<void> Windows::validate(std::int64_t length, std::int64_t vocab) const {
  const std::int64_t needed = order_ == WindowOrder::in_order ? 2 : length + 1;
  if (range_.size() < needed)
    return Error{"a context of " + std::to_string(length) + " tokens needs at least " + std::to_string(needed) +
                 " tokens to train on, found " + std::to_string(range_.size()) + " in " + range_.corpus->path()};
  if (range_.corpus->vocab() > vocab)
    return Error{"the data was read for a vocabulary of " + std::to_string(range_.corpus->vocab()) +
                 ", the model has " + std::to_string(vocab)};
  return {};
}

CHIMERA_FUNCTION Result<void> Windows::fill(std::uint64_t first, BatchBuffer& batch) {
  for (std::int64_t r = 0; r < batch.rows(); ++r)
    write(start(first + static_cast<std::uint64_t>(r), batch.length()), batch.row(r));
  batch.set_documents(range_.corpus->end_of_document() >= 0);
  return {};
}

CHIMERA_FUNCTION std::uint64_t Windows::rows(std::int64_t length) const {
  const std::int64_t targets = std::max<std::int64_t>(range_.size() - 1, 0);
  return static_cast<std::uint64_t>((order_ == WindowOrder::in_order ? targets + length - 1 : targets) / length);
}

CHIMERA_FUNCTION std::uint32_t Windows::checksum() const {
  std::array<std::int32_t, 4096> tokens;
  std::uint32_t sum = 0;
  for (std::int64_t at = range_.begin; at < range_.end;) {
    const std::int64_t n = std::min(range_.end - at, static_cast<std::int64_t>(tokens.size()));
    range_.corpus->read(at, n, tokens.data());
    sum = crc32c(tokens.data(), static_cast<std::size_t>(n) * sizeof tokens[0], sum);
    at += n;
  }
  return sum;
}

CHIMERA_FUNCTION std::int64_t Windows::start(std::uint64_t number, std::int64_t length) const {
  constexpr std::uint64_t stream = std::uint64_t{0xDA7A} << 40;  // apart from those of weights and dropout
  if (order_ == WindowOrder::in_order) return range_.begin + static_cast<std::int64_t>(number) * length;
  if (order_ == WindowOrder::random) {
    Random random{seed_, stream, number};
    return range_.begin + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(range_.size() - length)));
  }
  const std::uint64_t windows = rows(length), epoch = number / windows;
  // The windows' common offset changes too, where the range leaves room for that.
  Random random{seed_, stream + 1, epoch};
  const std::uint64_t room = static_cast<std::uint64_t>((range_.size() - 1) % length + 1);
  const std::uint64_t at = shuffled_index(number % windows, windows, seed_, stream + 2 + epoch);
  return range_.begin + static_cast<std::int64_t>(random.below(room)) + static_cast<std::int64_t>(at) * length;
}

CHIMERA_FUNCTION void Windows::write(std::int64_t first, const BatchBuffer::Row& row) const {
  const std::int64_t length = static_cast<std::int64_t>(row.tokens.size());
  const std::int64_t n = std::clamp<std::int64_t>(range_.end - 1 - first, 0, length);
  const std::int32_t end = range_.corpus->end_of_document();
  std::int32_t *tokens = row.tokens.data(), *targets = row.targets.data(), *starts = row.starts.data();
  if (n > 0) {
    range_.corpus->read(first, n, tokens);
    std::copy(tokens + 1, tokens + n, targets);
    range_.corpus->read(first + n, 1, targets + n - 1);
  }
  std::fill(tokens + n, tokens + length, 0);
  std::fill(targets + n, targets + length, -1);
  std::int32_t start = 0;
  for (std::int64_t t = 0; t < n; ++t) {
    starts[t] = start;
    if (tokens[t] == end) targets[t] = -1, start = static_cast<std::int32_t>(t) + 1;
  }
  for (std::int64_t t = n; t < length; ++t) starts[t] = static_cast<std::int32_t>(n);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
