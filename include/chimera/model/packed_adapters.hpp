// Adapters in decoding: beside the matrices of a packed model, which stay as they are and may serve others meanwhile.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/packed/matrix.hpp>
#include <chimera/layers/adapter.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Adapters over a model, their arena, and how much they count.
struct AdapterUse {
  const BaseWeights* adapters = nullptr;
  const float* values = nullptr;
  float weight = 1.f;
};

/// A packed model with adapters, all of which are added. It never changes; any number of readers read it. The model must
/// outlive it; what it was made from need not.
class PackedAdapters {
 public:
  static Result<PackedAdapters> create(const PackedModel& model, std::span<const AdapterUse> uses);

  const PackedModel& model() const { return *model_; }
  const PackedTensor* tensors() const { return tensors_.data(); }
  /// The most columns that the adapters of a matrix have.
  std::int64_t ranks() const { return ranks_; }
  /// Of memory, the model's not counted.
  std::size_t bytes() const { return memory_.size() * sizeof(float); }

 private:
  PackedAdapters() = default;

  /// Hands out the memory and fills it, or counts its bytes where there is none.
  std::size_t place(std::byte* base, std::span<const AdapterUse> uses);

  const PackedModel* model_ = nullptr;
  std::vector<PackedTensor> tensors_;   // as the model's
  std::deque<PackedAdapter> adapters_;  // where they stay
  Buffer memory_;
  std::int64_t ranks_ = 0;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<PackedAdapters> PackedAdapters::create(const PackedModel& model,
                                                               std::span<const AdapterUse> uses) {
  const std::size_t count = model.model().slot_count;
  for (const AdapterUse& use : uses)
    if (use.adapters->tensors.size() != count)
      return Error{"expected adapters of the model " + std::string(model.model().name) + ", which has " +
                   std::to_string(count) + " weights, found some of one that has " +
                   std::to_string(use.adapters->tensors.size())};
  PackedAdapters p;
  p.model_ = &model;
  auto memory = Buffer::of_bytes(p.place(nullptr, uses));
  if (!memory) return memory.error();
  p.memory_ = std::move(*memory);
  p.place(p.memory_.bytes(), uses);
  return p;
}

CHIMERA_FUNCTION std::size_t PackedAdapters::place(std::byte* base, std::span<const AdapterUse> uses) {
  /// Rows of a part of the packed matrix that an adapter's part has, too.
  struct Piece {
    const AdapterUse* use;
    const Adapter* adapter;
    std::int64_t first, end;  // rows of the matrix
    std::int64_t a, b;        // the part's first rows in A and in B, of the matrix's row 0
  };
  tensors_.assign(model_->tensors(), model_->tensors() + model_->model().slot_count);
  adapters_.clear(), ranks_ = 0;
  Bump memory{base};
  for (std::size_t slot = 0; slot < tensors_.size(); ++slot) {
    PackedMatrix& m = tensors_[slot].matrix;
    for (std::size_t i = 0; i < m.count; ++i) {
      PackedPart& part = m.parts[i];
      std::vector<Piece> pieces;
      std::int64_t rank = 0;
      for (const AdapterUse& use : uses) {
        const Adapter* a = use.adapters->tensors[slot].adapter;
        std::int64_t row = 0;
        for (std::int64_t k = 0; a && k < a->count; ++k) {
          const Adapter::Part& own = a->parts[static_cast<std::size_t>(k)];
          const std::int64_t first = std::max(part.first, own.first),
                             end = std::min(part.first + part.rows.rows, own.first + own.rows);
          if (first < end) pieces.push_back({&use, a, first, end, k * a->rank, row - own.first}), rank += a->rank;
          row += own.rows;
        }
      }
      if (rank == 0) continue;
      const std::int64_t panels = part.rows.panels();
      float* a = memory.take(rank * m.cols);
      float* b = memory.take(panels * rank * panel_rows);
      part.adapter = &adapters_.emplace_back(PackedAdapter{rank, a, b});
      if (!base) continue;
      std::int64_t column = 0;
      for (const Piece& p : pieces) {
        const float* from = p.use->values + p.adapter->b + p.b * p.adapter->rank;
        std::copy_n(p.use->values + p.adapter->a + static_cast<std::size_t>(p.a * m.cols), p.adapter->rank * m.cols,
                    a + column * m.cols);
        const float scale = p.adapter->scale * p.use->weight;
        for (std::int64_t row = p.first; row < p.end; ++row) {
          const std::int64_t own = row - part.first;
          float* to = b + (own / panel_rows * rank + column) * panel_rows + own % panel_rows;
          for (std::int64_t r = 0; r < p.adapter->rank; ++r)
            to[r * panel_rows] = scale * from[row * p.adapter->rank + r];
        }
        column += p.adapter->rank;
      }
    }
    ranks_ = std::max(ranks_, m.adapter_ranks(m.count));
  }
  return memory.used;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
