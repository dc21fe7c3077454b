// Where the batches of a run come from, and the memory that they are laid out in.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// `rows` rows of `length` tokens: tokens, targets, document starts, and what is known of targets, [rows, length] each.
class BatchBuffer {
 public:
  struct Row {
    std::span<std::int32_t> tokens, targets, starts;  // [length]; see TokenBatch and Batch
    std::span<float> reference, old, advantages;
  };

  BatchBuffer() = default;

  static Result<BatchBuffer> create(std::int64_t rows, std::int64_t length);

  std::int64_t rows() const { return rows_; }
  std::int64_t length() const { return length_; }

  /// To be written whole: every token below the vocabulary, every target too or -1, which is not counted; all else if
  /// it is looked at.
  Row row(std::int64_t r);
  /// Whether the document starts are looked at.
  void set_documents(bool any) { documents_ = any; }
  /// Whether the reference is.
  void set_reference(bool any) { with_reference_ = any; }
  /// Whether old log-probabilities and advantages are.
  void set_drawn(bool any) { drawn_ = any; }

  TokenBatch batch(std::int64_t first_row, std::int64_t rows) const;

 private:
  std::unique_ptr<std::int32_t[]> data_;
  std::unique_ptr<float[]> known_;
  std::int64_t rows_ = 0, length_ = 0;
  bool documents_ = false, with_reference_ = false, drawn_ = false;
};

/// An endless list of rows. One is a function of its number alone: that is why a run can be resumed.
struct BatchSource {
  virtual ~BatchSource() = default;
  /// An error unless it has rows of that length whose tokens are below the vocabulary.
  virtual Result<void> validate(std::int64_t length, std::int64_t vocab) const = 0;
  /// Fills all rows of the buffer: number `first` and those that follow.
  virtual Result<void> fill(std::uint64_t first, BatchBuffer& batch) = 0;
  /// Rows that show everything once.
  virtual std::uint64_t rows(std::int64_t length) const = 0;
  /// All tokens that it has: to notice other data.
  virtual std::int64_t tokens() const = 0;
  /// Of all tokens, to notice other data of the same size; 0: not known.
  virtual std::uint32_t checksum() const { return 0; }
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<BatchBuffer> BatchBuffer::create(std::int64_t rows, std::int64_t length) {
  BatchBuffer b;
  b.rows_ = rows, b.length_ = length;
  b.data_.reset(new (std::nothrow) std::int32_t[static_cast<std::size_t>(3 * rows * length)]);
  b.known_.reset(new (std::nothrow) float[static_cast<std::size_t>(3 * rows * length)]);
  if (!b.data_ || !b.known_) return Error{"out of memory for a batch of " + std::to_string(rows * length) + " tokens"};
  return b;
}

CHIMERA_FUNCTION BatchBuffer::Row BatchBuffer::row(std::int64_t r) {
  const auto of = [&](auto* tables, std::int64_t table) {
    return std::span(tables + (table * rows_ + r) * length_, static_cast<std::size_t>(length_));
  };
  std::int32_t* const ids = data_.get();
  float* const known = known_.get();
  return {of(ids, 0), of(ids, 1), of(ids, 2), of(known, 0), of(known, 1), of(known, 2)};
}

CHIMERA_FUNCTION TokenBatch BatchBuffer::batch(std::int64_t first_row, std::int64_t rows) const {
  TokenBatch b;
  b.sequences = rows, b.length = length_;
  b.inputs = data_.get() + first_row * length_;
  b.targets = b.inputs + rows_ * length_;
  b.document_start = documents_ ? b.targets + rows_ * length_ : nullptr;
  const float* const known = known_.get() + first_row * length_;
  b.reference = with_reference_ ? known : nullptr;
  if (drawn_) b.old = known + rows_ * length_, b.advantages = b.old + rows_ * length_;
  return b;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
