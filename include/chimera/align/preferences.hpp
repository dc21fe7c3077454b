// Pairs of answers as rows to learn from: row 2i is a prompt with its chosen answer, row 2i + 1 with the rejected one.
// Only answers are targets. A reference model's log-probabilities of them are measured once, before the first step.
#pragma once

#include <chimera/align/log_probs.hpp>
#include <chimera/core/checksum.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/safetensors.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/text/chat_template.hpp>
#include <chimera/train/batch_source.hpp>
#include <chimera/train/training_host.hpp>
#include <chimera/train/windows.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// A prompt with each of its answers.
struct MarkedPair {
  MarkedTokens chosen, rejected;
};

class Preferences : public BatchSource {
 public:
  struct Counts {
    std::int64_t used = 0, cut = 0, left_out = 0;  // pairs; those that are cut are used
    std::int64_t tokens = 0, targets = 0;          // of those used
  };

  /// `length`: tokens of a row. An answer that is longer is cut there; a pair of which an answer does not begin before
  /// that, or of which both are equal before it, is left out. `order`: shuffled, every epoch anew; or in_order for
  /// validation.
  static Preferences create(std::span<const MarkedPair> pairs, std::int64_t length, WindowOrder order,
                            std::uint64_t seed = 0);

  const Counts& counts() const { return counts_; }

  /// Measures the reference: what the model says of each answer, `rows` of them at once. The host may stop it: false.
  Result<bool> measure_reference(const Cpu& q, const AnyModel& model, const float* weights, std::int64_t rows,
                                 TrainingHost* host = nullptr);
  /// The same from a file, and into one, which is whole or absent. Errors: a file of other pairs or another model.
  /// `model`: what tells models apart.
  Result<void> load_reference(const std::string& path, std::uint32_t model);
  Result<void> save_reference(const std::string& path, std::uint32_t model) const;

  CHIMERA_FUNCTION Result<void> validate(std::int64_t length, std::int64_t vocab) const override;
  /// An error before the reference is there.
  CHIMERA_FUNCTION Result<void> fill(std::uint64_t first, BatchBuffer& batch) override;
  std::uint64_t rows(std::int64_t) const override { return rows_.size(); }
  std::int64_t tokens() const override { return counts_.tokens; }
  CHIMERA_FUNCTION std::uint32_t checksum() const override;

 private:
  /// A row: tokens begin ... end - 1 of `ids_`.
  struct Piece {
    std::size_t begin, end;
  };

  void write(const Piece& piece, const BatchBuffer::Row& row) const;

  std::int64_t length_ = 0;
  WindowOrder order_ = WindowOrder::shuffled;
  std::uint64_t seed_ = 0;
  Counts counts_;
  std::vector<std::int32_t> ids_;
  std::vector<bool> said_;
  std::vector<float> reference_;  // [ids_]: log p of the token, if it is a target; empty: not measured
  std::vector<Piece> rows_;       // two for each pair
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Preferences Preferences::create(std::span<const MarkedPair> pairs, std::int64_t length,
                                                 WindowOrder order, std::uint64_t seed) {
  Preferences all;
  all.length_ = length, all.order_ = order, all.seed_ = seed;
  const auto kept = [&](const MarkedTokens& m) { return std::min(m.ids.size(), static_cast<std::size_t>(length) + 1); };
  const auto targets = [&](const MarkedTokens& m) {
    return kept(m) < 2 ? 0
                       : std::count(m.said.begin() + 1, m.said.begin() + static_cast<std::ptrdiff_t>(kept(m)), true);
  };
  for (const MarkedPair& pair : pairs) {
    const std::array both{&pair.chosen, &pair.rejected};
    const bool equal =
        kept(*both[0]) == kept(*both[1]) &&
        std::equal(both[0]->ids.begin(), both[0]->ids.begin() + static_cast<std::ptrdiff_t>(kept(*both[0])),
                   both[1]->ids.begin());
    if (targets(*both[0]) == 0 || targets(*both[1]) == 0 || equal) {
      ++all.counts_.left_out;
      continue;
    }
    ++all.counts_.used;
    all.counts_.cut += kept(*both[0]) < both[0]->ids.size() || kept(*both[1]) < both[1]->ids.size();
    for (const MarkedTokens* m : both) {
      const auto count = static_cast<std::ptrdiff_t>(kept(*m));
      all.rows_.push_back({all.ids_.size(), all.ids_.size() + static_cast<std::size_t>(count)});
      all.ids_.insert(all.ids_.end(), m->ids.begin(), m->ids.begin() + count);
      all.said_.insert(all.said_.end(), m->said.begin(), m->said.begin() + count);
      all.counts_.tokens += count, all.counts_.targets += targets(*m);
    }
  }
  return all;
}

CHIMERA_FUNCTION Result<bool> Preferences::measure_reference(const Cpu& q, const AnyModel& model, const float* weights,
                                                             std::int64_t rows, TrainingHost* host) {
  auto buffer = BatchBuffer::create(rows, length_);
  if (!buffer) return buffer.error();
  auto memory = Buffer::of_bytes(model.loss_bytes(rows, length_));
  if (!memory) return memory.error();
  std::vector<float> found(ids_.size());
  for (std::size_t first = 0; first < rows_.size(); first += static_cast<std::size_t>(rows)) {
    if (host && host->should_stop()) return false;
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
      const auto row = buffer->row(static_cast<std::int64_t>(r));
      write(first + r < rows_.size() ? rows_[first + r] : Piece{}, row);
    }
    LogProbs said;
    double unread = 0;
    model.loss(q, weights, buffer->batch(0, rows), said.objective(), memory->bytes(), &unread);
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows) && first + r < rows_.size(); ++r) {
      const Piece piece = rows_[first + r];
      const float* const row = said.values.data() + r * static_cast<std::size_t>(length_);
      for (std::size_t i = piece.begin + 1; i < piece.end; ++i) found[i] = row[i - 1 - piece.begin];
    }
  }
  reference_ = std::move(found);
  return true;
}

CHIMERA_FUNCTION Result<void> Preferences::load_reference(const std::string& path, std::uint32_t model) {
  const auto file = Safetensors::open(path);
  if (!file) return file.error();
  const auto says = [&](const char* name, std::uint32_t value) {
    return file->metadata(name) == std::to_string(value);
  };
  if (!says("model", model)) return Error{path + ": the reference is of another model"};
  const SafetensorsTensor* t = file->tensor("reference");
  if (!says("pairs", checksum()) || !t || t->dtype != Dtype::f32 || t->data.size() != ids_.size() * sizeof(float))
    return Error{path + ": the reference is of other pairs"};
  std::vector<float> found(ids_.size());
  std::memcpy(found.data(), t->data.data(), t->data.size());
  for (const float p : found)
    if (!(p <= 0)) return Error{path + ": expected log-probabilities, found " + std::to_string(p)};
  reference_ = std::move(found);
  return {};
}

CHIMERA_FUNCTION Result<void> Preferences::save_reference(const std::string& path, std::uint32_t model) const {
  SafetensorsWriter file;
  file.set_metadata("model", std::to_string(model));
  file.set_metadata("pairs", std::to_string(checksum()));
  if (Result<void> s = file.add("reference", {static_cast<std::int64_t>(reference_.size())}, Dtype::f32); !s) return s;
  if (Result<void> s = file.begin(path); !s) return s;
  if (Result<void> s = file.append(std::as_bytes(std::span(reference_))); !s) return s;
  return file.commit();
}

CHIMERA_FUNCTION Result<void> Preferences::validate(std::int64_t length, std::int64_t vocab) const {
  if (rows_.empty()) return Error{"there is no pair of answers to learn from"};
  if (length != length_)
    return Error{"the pairs were cut for rows of " + std::to_string(length_) + " tokens, asked for are " +
                 std::to_string(length)};
  if (const std::int32_t most = *std::max_element(ids_.begin(), ids_.end()); most >= vocab)
    return Error{"the pairs have a token " + std::to_string(most) + ", the model's vocabulary ends at " +
                 std::to_string(vocab)};
  return {};
}

CHIMERA_FUNCTION Result<void> Preferences::fill(std::uint64_t first, BatchBuffer& batch) {
  constexpr std::uint64_t stream = std::uint64_t{0xD907} << 40;  // apart from those of other draws
  if (reference_.empty()) return Error{"the reference model's log-probabilities are not measured yet"};
  for (std::int64_t r = 0; r < batch.rows(); ++r) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(r), pair = number / 2, n = rows_.size() / 2;
    std::uint64_t place = pair % n;
    if (order_ != WindowOrder::in_order && n > 1) place = shuffled_index(place, n, seed_, stream + pair / n);
    const bool past = order_ == WindowOrder::in_order && pair >= n;
    write(past ? Piece{} : rows_[2 * place + number % 2], batch.row(r));
  }
  batch.set_reference(true);
  return {};
}

CHIMERA_FUNCTION std::uint32_t Preferences::checksum() const {
  return crc32c(ids_.data(), ids_.size() * sizeof ids_[0]);
}

CHIMERA_FUNCTION void Preferences::write(const Piece& piece, const BatchBuffer::Row& row) const {
  std::size_t at = 0;
  for (std::size_t i = piece.begin; i + 1 < piece.end; ++i, ++at) {
    row.tokens[at] = ids_[i];
    row.targets[at] = said_[i + 1] ? ids_[i + 1] : -1;
    row.reference[at] = reference_.empty() ? 0.f : reference_[i + 1];
  }
  for (; at < row.tokens.size(); ++at) row.tokens[at] = 0, row.targets[at] = -1, row.reference[at] = 0.f;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
