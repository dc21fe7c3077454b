// A model's weights as decoding wants them: matrices repacked in the format that they come in, all else as f32, in one
// block of memory that any number of sessions read, and that changes by `repack` alone.
#pragma once

#include <chimera/config/config_text.hpp>
#include <chimera/core/checksum.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/matrix.hpp>
#include <chimera/kernels/ternary/codes.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Rows first .. first + rows - 1 of a matrix of the model, as some source holds them: in `format`, to be multiplied by
/// `scale`.
struct RowSource {
  std::size_t tensor;  // index in AnyModel::tensors
  std::int64_t first, rows;
  Format format;
  float scale = 1.f;
};

/// Of a ternary matrix; of a stack of them, of each.
constexpr TernaryShape ternary_shape(const NamedTensor& t, int group) {
  return {t.each ? t.each : t.rows, t.cols, group, t.parts};
}

class PackedModel {
 public:
  /// `sources` cover every matrix of the model (NamedTensor::packed), in any order. read(source, row, count, to) copies
  /// that many rows of a source, in its format; it is called by many threads. values(tensor, to) writes another weight
  /// as f32. Both return a Result<void>.
  template <class Read, class Values>
  static Result<PackedModel> create(const Cpu& q, const AnyModel& model, std::span<const RowSource> sources,
                                    const Read& read, const Values& values) {
    PackedModel packed;
    packed.model_ = model;
    if (Result<void> s = packed.pack(q, sources, read, values); !s) return s.error();
    return packed;
  }

  /// Of weights in an arena [model.arena_floats]: in `format`, f32 or q8_0 (where columns are no multiple of 32, f32);
  /// or what ternary matrices round to, in two bits where their rows and groups are multiples of 256.
  static Result<PackedModel> create(const Cpu& q, const AnyModel& model, const float* weights,
                                    Format format = Format::f32);

  /// The same of other weights of that model, in the memory that is there: nothing may be reading it. After an error
  /// the weights are of no use.
  Result<void> repack(const Cpu& q, const float* weights, Format format = Format::f32);

  const AnyModel& model() const { return model_; }
  const Config& config() const { return *model_.config; }
  const PackedTensor* tensors() const { return tensors_.data(); }
  /// Of memory.
  std::size_t bytes() const { return memory_.size() * sizeof(float); }
  /// Tells models apart: of the config, and of samples of all weights.
  std::uint32_t fingerprint() const { return fingerprint_; }

 private:
  /// A source's part of its matrix.
  struct Place {
    std::size_t slot = 0, part = 0;
    std::byte* data = nullptr;
  };

  PackedModel() = default;

  template <class Read, class Values>
  Result<void> pack(const Cpu& q, std::span<const RowSource> sources, const Read& read, const Values& values) {
    tensors_.assign(model_.slot_count, {});
    std::vector<Place> places;
    if (Result<void> s = plan(sources, places); !s) return s;
    for (const NamedTensor& t : model_.tensors)
      if (const PackedMatrix& m = tensors_[t.slot].matrix; t.packed() && m.rows != t.rows)
        return Error{"weight " + std::string(t.name()) + " has " + std::to_string(t.rows) + " rows, " +
                     std::to_string(m.rows) + " were given"};
    if (const std::size_t wanted = place(nullptr, sources, places); wanted > bytes()) {
      auto memory = Buffer::of_bytes(wanted);
      if (!memory) return memory.error();
      memory_ = std::move(*memory);
    }
    place(memory_.bytes(), sources, places);
    for (const NamedTensor& t : model_.tensors)
      if (!t.packed())
        if (Result<void> s = fill(t, values); !s) return s;
    for (std::size_t i = 0; i < sources.size(); ++i)
      if (Result<void> s = fill(q, sources[i], places[i], i, read); !s) return s;
    fingerprint_ = sampled_checksum();
    return {};
  }

  /// Gives every source its part, in the order of rows.
  Result<void> plan(std::span<const RowSource> sources, std::vector<Place>& places);

  /// Hands out the memory, or counts its bytes where there is none.
  std::size_t place(std::byte* base, std::span<const RowSource> sources, std::vector<Place>& places);

  template <class Values>
  Result<void> fill(const NamedTensor& t, const Values& values) {
    float* to = const_cast<float*>(tensors_[t.slot].values);
    if (Result<void> s = values(static_cast<std::size_t>(&t - model_.tensors.data()), to); !s || !t.taps()) return s;
    std::vector<float> taps(to, to + t.size());
    for (std::int64_t c = 0; c < t.rows; ++c)
      for (std::int64_t k = 0; k < t.cols; ++k) to[k * t.rows + c] = taps[static_cast<std::size_t>(c * t.cols + k)];
    return {};
  }

  /// All threads read and pack panels. An error is asked for again by the thread that reports it.
  template <class Read>
  Result<void> fill(const Cpu& q, const RowSource& source, const Place& place, std::size_t index, const Read& read) {
    const PackedRows& w = tensors_[place.slot].matrix.parts[place.part].rows;
    const std::size_t row_bytes = static_cast<std::size_t>(format_bytes(w.format, w.cols));
    std::atomic<bool> failed{false};
    const auto pack = [&](std::int64_t panel, std::byte* bytes) -> Result<void> {
      const std::int64_t first = panel * panel_rows, count = std::min(panel_rows, w.rows - first);
      if (Result<void> s = read(index, first, count, bytes); !s) return s;
      const std::byte* rows[panel_rows];
      for (std::int64_t r = 0; r < count; ++r) rows[r] = bytes + static_cast<std::size_t>(r) * row_bytes;
      pack_panel(source.format, w.cols, rows, count,
                 place.data + static_cast<std::size_t>(panel) * panel_bytes(w.format, w.cols));
      return {};
    };
    std::vector<std::byte> buffers(row_bytes * panel_rows * static_cast<std::size_t>(q.threads()));
    const auto buffer = [&](int worker) {
      return buffers.data() + row_bytes * panel_rows * static_cast<std::size_t>(worker);
    };
    parallel(q, w.panels(), [&](std::int64_t panel, int worker) {
      if (!failed.load(std::memory_order_relaxed) && !pack(panel, buffer(worker)))
        failed.store(true, std::memory_order_relaxed);
    });
    if (!failed) return {};
    for (std::int64_t panel = 0; panel < w.panels(); ++panel)
      if (Result<void> s = pack(panel, buffer(0)); !s) return s;
    return Error{"weight " + std::string(model_.tensors[source.tensor].name()) + " changed while it was read"};
  }

  std::uint32_t sampled_checksum() const;

  AnyModel model_;
  Buffer memory_;
  std::vector<PackedTensor> tensors_;  // [model.slot_count]
  std::uint32_t fingerprint_ = 0;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace packed_model_parts {

/// What holds three values of a row exactly: with scales of blocks, where they are those of groups.
constexpr Format ternary_format(const TernaryShape& s) {
  if (s.in % 256 == 0 && s.group % 256 == 0) return Format::tq2_0;
  return s.in % 32 == 0 ? Format::q8_0 : Format::f32;
}

}  // namespace packed_model_parts

CHIMERA_FUNCTION Result<PackedModel> PackedModel::create(const Cpu& q, const AnyModel& model, const float* weights,
                                                         Format format) {
  PackedModel packed;
  packed.model_ = model;
  if (Result<void> s = packed.repack(q, weights, format); !s) return s.error();
  return packed;
}

CHIMERA_FUNCTION Result<void> PackedModel::repack(const Cpu& q, const float* weights, Format format) {
  const AnyModel& model = model_;
  const TernaryConfig& ternary = model.config->ternary;
  const auto shape_of = [&](const NamedTensor& t) { return ternary_shape(t, ternary.group); };
  std::vector<RowSource> sources;
  std::vector<std::vector<float>> scales(model.tensors.size());  // of ternary matrices
  for (std::size_t i = 0; i < model.tensors.size(); ++i)
    if (const NamedTensor& t = model.tensors[i]; t.packed()) {
      const bool three = ternary.on && t.name().starts_with("blk.");
      if (three) {
        scales[i].resize(static_cast<std::size_t>(t.rows * shape_of(t).groups()));
        for (std::int64_t row = 0, rows = shape_of(t).out; row < t.rows; row += rows)
          ternary_scales(q, shape_of(t), weights + t.offset + row * t.cols,
                         scales[i].data() + row * shape_of(t).groups());
      }
      for (std::int64_t first = 0, end = 0; first < t.rows; first = end) {
        end = part_end(t.parts, t.rows, first);
        const Format plain = t.cols % 32 == 0 ? format : Format::f32;
        const Format own = three ? packed_model_parts::ternary_format(shape_of(t)) : plain;
        const float scale =
            three && ternary.group == 0 && t.each == 0 ? scales[i][static_cast<std::size_t>(first)] : 1.f;
        sources.push_back({i, first, end - first, own, scale});
      }
    }
  return pack(
      q, sources,
      [&](std::size_t source, std::int64_t row, std::int64_t count, std::byte* to) -> Result<void> {
        const RowSource& s = sources[source];
        const NamedTensor& t = model.tensors[s.tensor];
        const auto at = static_cast<std::size_t>((s.first + row) * t.cols),
                   n = static_cast<std::size_t>(count * t.cols);
        const float* from = weights + t.offset + at;
        if (s.format == Format::f32 && scales[s.tensor].empty()) {
          std::memcpy(to, from, n * sizeof(float));
          return {};
        }
        if (scales[s.tensor].empty()) return encode_ternary(q.isa(), s.format, from, count * t.cols, to);
        std::vector<float> rounded(n);
        const auto group = static_cast<std::size_t>(shape_of(t).group_size());
        for (std::size_t i = 0; i < n; ++i) {
          const float scale = scales[s.tensor][(at + i) / group], value = scale / s.scale;
          rounded[i] = std::fabs(from[i]) > 0.5f * scale ? std::copysign(value, from[i]) : 0.f;
        }
        return encode_ternary(q.isa(), s.format, rounded.data(), count * t.cols, to);
      },
      [&](std::size_t tensor, float* to) {
        const NamedTensor& t = model.tensors[tensor];
        std::copy_n(weights + t.offset, t.size(), to);
        return Result<void>{};
      });
}

CHIMERA_FUNCTION Result<void> PackedModel::plan(std::span<const RowSource> sources, std::vector<Place>& places) {
  std::vector<std::size_t> order(sources.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(sources[a].tensor, sources[a].first) < std::pair(sources[b].tensor, sources[b].first);
  });
  places.resize(sources.size());
  for (const std::size_t i : order) {
    const RowSource& s = sources[i];
    const NamedTensor& t = model_.tensors[s.tensor];
    PackedMatrix& m = tensors_[t.slot].matrix;
    if (s.first != m.rows) continue;  // found by `create`: rows are missing
    if (m.count == Tensor::most_parts)
      return Error{"weight " + std::string(t.name()) + " comes in more than " + std::to_string(Tensor::most_parts) +
                   " parts"};
    places[i] = {t.slot, m.count, nullptr};
    m.parts[m.count++] = {PackedRows{s.format, s.rows, t.cols, nullptr}, s.first, s.scale};
    m.rows += s.rows, m.cols = t.cols;
  }
  return {};
}

CHIMERA_FUNCTION std::size_t PackedModel::place(std::byte* base, std::span<const RowSource> sources,
                                                std::vector<Place>& places) {
  Bump memory{base};
  for (const NamedTensor& t : model_.tensors)
    if (!t.packed()) tensors_[t.slot].values = memory.take(t.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    PackedRows& rows = tensors_[places[i].slot].matrix.parts[places[i].part].rows;
    const std::size_t bytes = packed_bytes(rows.format, rows.rows, rows.cols);
    places[i].data = memory.take<std::byte>(static_cast<std::int64_t>(bytes));
    rows.data = places[i].data;
  }
  return memory.used;
}

CHIMERA_FUNCTION std::uint32_t PackedModel::sampled_checksum() const {
  constexpr std::size_t sample = 4096;
  const std::string text = config_lines(config());
  std::uint32_t sum = crc32c(text.data(), text.size());
  for (const PackedTensor& t : tensors_)
    for (std::size_t i = 0; i < t.matrix.count; ++i) {
      const PackedRows& rows = t.matrix.parts[i].rows;
      sum = crc32c(rows.data, std::min(sample, packed_bytes(rows.format, rows.rows, rows.cols)), sum);
    }
  return sum;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
