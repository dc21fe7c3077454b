// Pairs of answers as rows to learn from: row 2i is a prompt with its chosen answer, row 2i + 1 with the rejected one.
// Only answers are targets. A reference model's log-probabilities of them are measured once, before the first step.
#pragma once

#include <chimera/align/answers.hpp>
#include <chimera/align/log_probs.hpp>
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
  /// `length`: tokens of a row. An answer that is longer is cut there; a pair of which an answer does not begin before
  /// that, or of which both are equal before it, is left out. `order`: shuffled, every epoch anew; or in_order for
  /// validation.
  static Preferences create(std::span<const MarkedPair> pairs, std::int64_t length, WindowOrder order,
                            std::uint64_t seed = 0);

  const AnswerCounts& counts() const { return answers_.counts; }

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
  std::int64_t tokens() const override { return answers_.counts.tokens; }
  std::uint32_t checksum() const override { return answers_.checksum(); }

 private:
  Preferences(std::int64_t length, WindowOrder order, std::uint64_t seed)
      : answers_{length}, order_(order), seed_(seed) {}

  void write(const Answers::Piece& piece, const BatchBuffer::Row& row) const;

  Answers answers_;
  WindowOrder order_;
  std::uint64_t seed_;
  std::vector<float> reference_;      // of each of the answers' ids: log p, if it is a target; empty: not measured
  std::vector<Answers::Piece> rows_;  // two for each pair
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Preferences Preferences::create(std::span<const MarkedPair> pairs, std::int64_t length,
                                                 WindowOrder order, std::uint64_t seed) {
  Preferences all(length, order, seed);
  Answers& answers = all.answers_;
  for (const MarkedPair& pair : pairs) {
    const MarkedTokens &a = pair.chosen, &b = pair.rejected;
    const auto end_of = [&](const MarkedTokens& m) {
      return m.ids.begin() + static_cast<std::ptrdiff_t>(answers.kept(m));
    };
    if (answers.targets(a) == 0 || answers.targets(b) == 0 ||
        std::equal(a.ids.begin(), end_of(a), b.ids.begin(), end_of(b))) {
      ++answers.counts.left_out;
      continue;
    }
    ++answers.counts.used;
    answers.counts.cut += answers.kept(a) < a.ids.size() || answers.kept(b) < b.ids.size();
    for (const MarkedTokens* m : {&a, &b}) all.rows_.push_back(answers.add(*m));
  }
  return all;
}

CHIMERA_FUNCTION Result<bool> Preferences::measure_reference(const Cpu& q, const AnyModel& model, const float* weights,
                                                             std::int64_t rows, TrainingHost* host) {
  auto buffer = BatchBuffer::create(rows, answers_.length);
  if (!buffer) return buffer.error();
  auto memory = Buffer::of_bytes(model.loss_bytes(rows, answers_.length));
  if (!memory) return memory.error();
  std::vector<float> found(answers_.ids.size());
  for (std::size_t first = 0; first < rows_.size(); first += static_cast<std::size_t>(rows)) {
    if (host && host->should_stop()) return false;
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
      const auto row = buffer->row(static_cast<std::int64_t>(r));
      write(first + r < rows_.size() ? rows_[first + r] : Answers::Piece{}, row);
    }
    LogProbs said;
    double unread = 0;
    model.loss(q, weights, buffer->batch(0, rows), said.objective(), memory->bytes(), &unread);
    for (std::size_t r = 0; r < static_cast<std::size_t>(rows) && first + r < rows_.size(); ++r) {
      const Answers::Piece piece = rows_[first + r];
      const float* const row = said.values.data() + r * static_cast<std::size_t>(answers_.length);
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
  if (!says("pairs", checksum()) || !t || t->dtype != Dtype::f32 ||
      t->data.size() != answers_.ids.size() * sizeof(float))
    return Error{path + ": the reference is of other pairs"};
  std::vector<float> found(answers_.ids.size());
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
  return answers_.validate("pairs", "cut", length, vocab);
}

CHIMERA_FUNCTION Result<void> Preferences::fill(std::uint64_t first, BatchBuffer& batch) {
  constexpr std::uint64_t stream = std::uint64_t{0xD907} << 40;  // apart from those of other draws
  if (reference_.empty()) return Error{"the reference model's log-probabilities are not measured yet"};
  for (std::int64_t r = 0; r < batch.rows(); ++r) {
    const std::uint64_t number = first + static_cast<std::uint64_t>(r);
    const auto pair = item_at(number / 2, rows_.size() / 2, order_, seed_, stream);
    write(pair ? rows_[2 * *pair + number % 2] : Answers::Piece{}, batch.row(r));
  }
  batch.set_reference(true);
  return {};
}

CHIMERA_FUNCTION void Preferences::write(const Answers::Piece& piece, const BatchBuffer::Row& row) const {
  const std::size_t end = answers_.write(piece, row, 0);
  Answers::pad(row, end);
  std::fill(row.reference.begin(), row.reference.end(), 0.f);
  if (!reference_.empty())
    std::copy_n(reference_.begin() + static_cast<std::ptrdiff_t>(piece.begin) + 1, end, row.reference.begin());
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
