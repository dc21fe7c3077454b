// A model of which adapters alone are learned (LoRA: Hu et al., 2106.09685): its table is that of A and B, and its arena
// holds nothing else, so optimizers, checkpoints and trainers take it as any other model.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/layers/adapter.hpp>
#include <chimera/layers/linear.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

struct LoraSettings {
  std::int64_t rank = 16;
  double alpha = 32;
  bool rank_stabilised = false;  // scale alpha / sqrt(rank) (Kalajdzievski, 2312.03732) instead of alpha / rank
  double dropout = 0;            // of what A multiplies

  double scale() const {
    return alpha / (rank_stabilised ? std::sqrt(static_cast<double>(rank)) : static_cast<double>(rank));
  }
  Result<void> validate() const;

  template <class Self, class F>
  static void each_field(Self& s, F&& f) {
    f("lora.rank", s.rank), f("lora.alpha", s.alpha), f("lora.rank_stabilised", s.rank_stabilised);
    f("lora.dropout", s.dropout);
  }
};

/// A matrix that gets an adapter, and which parts of its rows do: bit i for part i.
struct AdapterTarget {
  std::size_t tensor = 0;  // in the model's table
  std::uint32_t parts = 1;
};

/// Of all parts of a matrix; of one that has none, bit 0.
std::uint32_t all_parts(const NamedTensor& t);

/// All matrices of blocks but those of experts, with all their parts.
std::vector<AdapterTarget> all_targets(std::span<const NamedTensor> tensors);

/// A model's weights as a base, by slot: where they lie in its arena.
std::vector<BaseTensor> base_in_arena(std::span<const NamedTensor> tensors, std::size_t slot_count,
                                      const float* weights);

/// Adds every adapter to its matrix: `weights`, the model's arena, is then what the two are together.
void merge_adapters(const Cpu& q, std::span<const NamedTensor> tensors, const BaseWeights& base, const float* adapters,
                    float* weights);

/// Of adapters over a base: their table, and where they lie.
struct AdapterTable {
  std::vector<NamedTensor> tensors;  // of each adapter A and B, named as their matrix with .lora_a and .lora_b behind
  std::vector<Adapter> adapters;
  std::vector<BaseTensor> base;  // by slot, with their adapters
  BaseWeights weights;
  std::int64_t parameters = 0;
  std::size_t arena_floats = 0;

  static Result<std::unique_ptr<AdapterTable>> create(std::span<const NamedTensor> tensors,
                                                      std::span<const BaseTensor> base,
                                                      std::span<const AdapterTarget> targets,
                                                      const LoraSettings& settings);
};

template <Device D>
class AdaptedModelOn {
 public:
  /// `model`'s tables, and what `base` points to, must outlive it.
  static Result<AdaptedModelOn> create(const ModelTable<D>& model, std::span<const BaseTensor> base,
                                       std::span<const AdapterTarget> targets, const LoraSettings& settings) {
    auto table = AdapterTable::create(model.tensors, base, targets, settings);
    if (!table) return table.error();
    AdaptedModelOn a;
    a.table_ = std::move(*table), a.model_ = model;
    a.model_.tensors = a.table_->tensors, a.model_.parameters = a.table_->parameters;
    a.model_.arena_floats = a.table_->arena_floats, a.model_.base = &a.table_->weights;
    return a;
  }

  /// The table that a trainer takes: its weights are the adapters, B all zero at first.
  const ModelTable<D>& model() const { return model_; }
  const BaseWeights& base() const { return table_->weights; }

 private:
  AdaptedModelOn() = default;

  std::unique_ptr<AdapterTable> table_;
  ModelTable<D> model_;
};
using AdaptedModel = AdaptedModelOn<Cpu>;

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<void> LoraSettings::validate() const {
  constexpr std::int64_t most = 1024;
  if (rank < 1 || rank > most)
    return Error{"a rank must be 1 to " + std::to_string(most) + ", found " + std::to_string(rank)};
  if (!(alpha > 0) || !std::isfinite(alpha)) return Error{"alpha must be above 0, found " + std::to_string(alpha)};
  if (!(dropout >= 0 && dropout < 1))
    return Error{"dropout of adapters must be at least 0 and below 1, found " + std::to_string(dropout)};
  return {};
}

CHIMERA_FUNCTION std::uint32_t all_parts(const NamedTensor& t) {
  std::uint32_t bits = 0;
  for (std::size_t p = 0; p < t.parts.size(); ++p) bits |= t.parts[p] > 0 ? 1U << p : 0U;
  return std::max(bits, 1U);
}

CHIMERA_FUNCTION std::vector<AdapterTarget> all_targets(std::span<const NamedTensor> tensors) {
  std::vector<AdapterTarget> all;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (const NamedTensor& t = tensors[i]; t.role == Role::matrix && t.each == 0 && t.block() >= 0)
      all.push_back({i, all_parts(t)});
  return all;
}

CHIMERA_FUNCTION std::vector<BaseTensor> base_in_arena(std::span<const NamedTensor> tensors, std::size_t slot_count,
                                                       const float* weights) {
  std::vector<BaseTensor> base(slot_count);
  for (const NamedTensor& t : tensors) base[t.slot].values = weights + t.offset;
  return base;
}

CHIMERA_FUNCTION void merge_adapters(const Cpu& q, std::span<const NamedTensor> tensors, const BaseWeights& base,
                                     const float* adapters, float* weights) {
  for (const NamedTensor& t : tensors)
    if (const Adapter* a = base.tensors[t.slot].adapter) merge_adapter(q, t.cols, *a, adapters, weights + t.offset);
}

CHIMERA_FUNCTION Result<std::unique_ptr<AdapterTable>> AdapterTable::create(std::span<const NamedTensor> tensors,
                                                                            std::span<const BaseTensor> base,
                                                                            std::span<const AdapterTarget> targets,
                                                                            const LoraSettings& settings) {
  if (Result<void> s = settings.validate(); !s) return s.error();
  if (targets.empty()) return Error{"no matrix gets an adapter"};
  auto table = std::make_unique<AdapterTable>();
  table->base.assign(base.begin(), base.end());
  table->adapters.resize(targets.size());
  table->weights.first_block = INT32_MAX;
  const auto add = [&](const NamedTensor& t, std::string_view suffix, std::int64_t rows, std::int64_t cols, Init init,
                       const std::array<std::int64_t, Tensor::most_parts>& parts) {
    NamedTensor row;
    const std::string name = std::string(t.name()).append(suffix);
    std::copy_n(name.begin(), std::min(name.size(), row.text.size() - 1), row.text.begin());
    row.rows = rows, row.cols = cols, row.offset = table->arena_floats, row.role = Role::matrix, row.init = init;
    row.parts = parts;
    table->arena_floats += aligned_floats(static_cast<std::size_t>(row.size()));
    table->parameters += row.size();
    table->tensors.push_back(row);
    return row.offset;
  };
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const NamedTensor& t = tensors[targets[i].tensor];
    const std::string name(t.name());
    if (t.role != Role::matrix || t.block() < 0) return Error{name + " is no matrix of a block"};
    if (t.each > 0) return Error{name + " is a stack of experts, which get no adapters"};
    // Their matrices multiply parts of a batch in an order of their own.
    if (settings.dropout > 0 && name.find(".titans_") != std::string::npos)
      return Error{name + " is one of Titans, whose adapters have no dropout"};
    Adapter& a = table->adapters[i];
    a.rank = settings.rank, a.scale = static_cast<float>(settings.scale()), a.number = i;
    std::array<std::int64_t, Tensor::most_parts> of_a{}, of_b{};
    std::int64_t first = 0, rows = 0;
    const bool whole = std::count(t.parts.begin(), t.parts.end(), 0) == std::ssize(t.parts);
    for (std::size_t p = 0; p < (whole ? 1 : t.parts.size()); ++p) {
      const std::int64_t part = whole ? t.rows : t.parts[p];
      if (part > 0 && (targets[i].parts >> p & 1)) {
        const auto at = static_cast<std::size_t>(a.count++);
        a.parts[at] = {first, part}, of_a[at] = a.rank, of_b[at] = part, rows += part;
      }
      first += part;
    }
    if (a.count == 0) return Error{name + ": none of its parts gets an adapter"};
    const float bound = 1.f / std::sqrt(static_cast<float>(t.cols));
    a.a = add(t, ".lora_a", a.ranks(), t.cols, Init::uniform(-bound, bound), of_a);
    a.b = add(t, ".lora_b", rows, a.rank, Init::constant(0.f), of_b);
    table->base[t.slot].adapter = &a;
    BaseWeights& w = table->weights;
    w.ranks = std::max(w.ranks, a.ranks()), w.first_block = std::min(w.first_block, t.block());
    if (settings.dropout > 0) w.inputs = std::max(w.inputs, t.cols);
  }
  table->weights.tensors = table->base, table->weights.adapters = targets.size();
  table->weights.dropout = static_cast<float>(settings.dropout);
  return table;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
