// The weights of a GGUF file row by row, in the file's own formats: what is packed or stored without an arena of f32.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// What is read is copied from the file, and a file that becomes shorter meanwhile is an error.
class GgufRows {
 public:
  /// `q` and `file` must outlive it. Errors: as load_gguf.
  static Result<GgufRows> create(const Cpu& q, const Gguf& file, const AnyModel& model);

  /// Of all matrices but ternary ones, as PackedModel::create takes them; so `read` and `values`. Many threads may read.
  std::span<const RowSource> sources() const { return sources_; }
  Result<void> read(std::size_t source, std::int64_t row, std::int64_t count, std::byte* to) const;
  Result<void> values(std::size_t tensor, float* to) const;

 private:
  GgufRows(const Cpu& q, const Gguf& file, const AnyModel& model, std::vector<FileWeight> table)
      : q_(&q), file_(&file), model_(model), table_(std::move(table)) {}

  const Cpu* q_;
  const Gguf* file_;
  AnyModel model_;
  std::vector<FileWeight> table_;
  std::vector<RowSource> sources_;
  std::vector<std::size_t> weights_;                  // in the table, of each source
  std::vector<std::vector<std::int64_t>> file_rows_;  // of each source; none: the file's order is ours
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<GgufRows> GgufRows::create(const Cpu& q, const Gguf& file, const AnyModel& model) {
  auto table = find_weights(file, model);
  if (!table) return table.error();
  GgufRows rows(q, file, model, std::move(*table));
  for (std::size_t i = 0; i < rows.table_.size(); ++i) {
    const FileWeight& w = rows.table_[i];
    const NamedTensor& t = model.tensors[w.tensor];
    if (!t.packed() || (model.config->ternary.on && t.block() >= 0)) continue;
    if (Result<void> s = check_shape(w, w.stored); !s) return s.error();
    if (!holds_weights(w.stored.format))
      return Error{"tensor " + w.name + ": expected a format of weights, found " +
                   std::string(format_info(w.stored.format)->name)};
    for (std::int64_t first = w.first; first < w.first + w.rows;) {
      const std::int64_t end = std::min(part_end(t.parts, t.rows, first), w.first + w.rows);
      rows.sources_.push_back({w.tensor, first, end - first, w.stored.format, w.divisor});
      rows.weights_.push_back(i);
      rows.file_rows_.push_back(w.file_rows());
      first = end;
    }
  }
  return rows;
}

CHIMERA_FUNCTION Result<void> GgufRows::read(std::size_t source, std::int64_t row, std::int64_t count,
                                             std::byte* to) const {
  const FileWeight& w = table_[weights_[source]];
  const GgufTensor& t = file_->tensors()[w.stored.index];
  const std::size_t row_bytes = static_cast<std::size_t>(format_bytes(t.format, w.cols));
  row += sources_[source].first - w.first;
  const auto& theirs = file_rows_[source];
  const std::int64_t together = theirs.empty() ? count : 1;  // rows that follow one another in the file, too
  for (std::int64_t r = 0; r < count; r += together) {
    const std::span bytes(to + static_cast<std::size_t>(r) * row_bytes, static_cast<std::size_t>(together) * row_bytes);
    const auto from = static_cast<std::size_t>(theirs.empty() ? row + r : theirs[static_cast<std::size_t>(row + r)]);
    if (Result<void> s = file_->read(t, from * row_bytes, bytes); !s) return s;
    if (Result<void> s = check_numbers(w.stored, bytes); !s) return s;
  }
  return {};
}

CHIMERA_FUNCTION Result<void> GgufRows::values(std::size_t tensor, float* to) const {
  const auto before = [](const FileWeight& w, std::size_t t) { return w.tensor < t; };
  auto w = std::lower_bound(table_.begin(), table_.end(), tensor, before);
  for (; w != table_.end() && w->tensor == tensor; ++w) {
    float* const x = to + w->first * w->cols;
    std::vector<std::byte> copy(w->stored.data.size());
    if (Result<void> s = file_->read(file_->tensors()[w->stored.index], 0, copy); !s) return s;
    FileWeight copied = *w;
    copied.stored.data = copy;
    const bool codes = w->stored.format == Format::i8 && gguf_model_parts::has_codes(*w, model_);
    if (Result<void> s = codes ? gguf_model_parts::load_codes(*file_, copied, model_, x)
                               : load_weight(*q_, copied, copied.stored, x);
        !s)
      return s;
  }
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
