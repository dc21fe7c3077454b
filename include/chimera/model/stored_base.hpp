// A model's weights as the base of adapters: matrices in the format that they come in, or in NF4, all else as f32, in one
// block of memory that never changes. There is no arena of f32.
#pragma once

#include <chimera/core/checksum.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/formats/stored_matrix.hpp>
#include <chimera/kernels/ternary/codes.hpp>
#include <chimera/layers/adapter.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// What the matrices of a base are stored in.
enum class BaseFormat : std::uint8_t {
  as_they_come,
  nf4,  // those of blocks; the two ends as they come, but F32 in BF16 (QLoRA quantizes no ends)
};

class StoredBase {
 public:
  /// `sources`, `read` and `values` as of PackedModel::create. Ternary matrices become codes of two bits, where their
  /// rows are whole blocks of those, and scales; `values` gives what is rounded so.
  template <class Read, class Values>
  static Result<StoredBase> create(const Cpu& q, const AnyModel& model, std::span<const RowSource> sources,
                                   const Read& read, const Values& values, BaseFormat format) {
    StoredBase base;
    base.matrices_.resize(model.slot_count), base.tensors_.resize(model.slot_count);
    std::vector<Piece> pieces;
    if (Result<void> s = base.plan(model, sources, format, pieces); !s) return s.error();
    auto memory = Buffer::of_bytes(base.place(model, pieces, nullptr));
    if (!memory) return memory.error();
    base.memory_ = std::move(*memory);
    base.place(model, pieces, base.memory_.bytes());
    for (std::size_t i = 0; i < model.tensors.size(); ++i)
      if (const NamedTensor& t = model.tensors[i]; !t.packed()) {
        if (Result<void> s = values(i, const_cast<float*>(base.tensors_[t.slot].values)); !s) return s.error();
      } else if (is_ternary(model, t)) {
        auto latent = Buffer::create(static_cast<std::size_t>(t.size()));
        if (!latent) return latent.error();
        if (Result<void> s = values(i, latent->data()); !s) return s.error();
        if (Result<void> s = base.store_ternary(q, t, model.config->ternary.group, latent->data()); !s)
          return s.error();
      }
    for (std::size_t first = 0, end = 0; first < pieces.size(); first = end) {
      while (end < pieces.size() && pieces[end].tensor == pieces[first].tensor) ++end;
      if (Result<void> s =
              base.fill(q, model.tensors[pieces[first].tensor], std::span(pieces).subspan(first, end - first), read);
          !s)
        return s.error();
    }
    return base;
  }

  /// Of weights in an arena [model.arena_floats].
  static Result<StoredBase> create(const Cpu& q, const AnyModel& model, const float* weights, BaseFormat format);

  /// By slot, for AdaptedModel::create. They point into this base, which may be moved.
  const std::vector<BaseTensor>& tensors() const { return tensors_; }
  /// Of memory.
  std::size_t bytes() const { return memory_.size() * sizeof(float); }
  /// Tells bases apart: of all weights, as they are stored.
  std::uint32_t checksum() const { return crc32c(memory_.data(), bytes()); }

 private:
  /// A source, and where its rows go.
  struct Piece {
    std::size_t tensor = 0;
    std::int64_t first = 0, rows = 0;
    Format from = Format::f32, to = Format::f32;
    bool nf4 = false;
    float scale = 1.f;
    std::size_t source = 0;
    std::byte* data = nullptr;
  };

  StoredBase() = default;

  static bool is_ternary(const AnyModel& model, const NamedTensor& t) {
    return model.config->ternary.on && t.packed() && t.block() >= 0;
  }
  Result<void> plan(const AnyModel& model, std::span<const RowSource> sources, BaseFormat format,
                    std::vector<Piece>& pieces);
  /// Hands out the memory, or counts its bytes where there is none.
  std::size_t place(const AnyModel& model, std::span<Piece> pieces, std::byte* base);

  /// Stores what a ternary matrix is rounded to. `latent` [rows, cols] is overwritten.
  Result<void> store_ternary(const Cpu& q, const NamedTensor& t, int group, float* latent);

  /// Reads a matrix, some rows at a time.
  template <class Read>
  Result<void> fill(const Cpu& q, const NamedTensor& t, std::span<const Piece> pieces, const Read& read) {
    const std::int64_t most = std::max<std::int64_t>(std::int64_t{1} << 19, nf4_block * t.cols) / t.cols / nf4_block *
                              nf4_block;  // rows, so that all but the last end with a block of NF4
    auto values = Buffer::create(static_cast<std::size_t>(most * t.cols));
    auto writer = Nf4Writer::create(pieces[0].nf4 ? t.size() : 0, pieces[0].data);
    if (!values) return values.error();
    if (!writer) return writer.error();
    std::vector<std::byte> bytes;
    std::int64_t held = 0;  // rows of values that are not written yet
    for (const Piece& p : pieces) {
      const auto row_bytes = [&](Format format) { return static_cast<std::size_t>(format_bytes(format, t.cols)); };
      for (std::int64_t row = 0, count = 0; row < p.rows; row += count) {
        count = std::min(most - held, p.rows - row);
        const auto at = static_cast<std::size_t>(row), number = static_cast<std::size_t>(count);
        if (!p.nf4 && p.from == p.to) {
          if (Result<void> s = read(p.source, row, count, p.data + at * row_bytes(p.to)); !s) return s;
          continue;
        }
        bytes.resize(number * row_bytes(p.from));
        float* const x = values->data() + held * t.cols;
        if (Result<void> s = read(p.source, row, count, bytes.data()); !s) return s;
        if (Result<void> s = decode(q, p.from, bytes.data(), count * t.cols, x); !s) return s;
        if (!p.nf4) {
          if (Result<void> s = encode(q, p.to, x, count * t.cols, p.data + at * row_bytes(p.to)); !s) return s;
          continue;
        }
        for (std::int64_t i = 0; p.scale != 1.f && i < count * t.cols; ++i) x[i] *= p.scale;
        held += count;
        if (held < most) continue;
        if (Result<void> s = writer->append(q, values->data(), held * t.cols); !s) return s;
        held = 0;
      }
    }
    if (!pieces[0].nf4) return {};
    if (Result<void> s = writer->append(q, values->data(), held * t.cols); !s) return s;
    writer->finish();
    return {};
  }

  Buffer memory_;
  std::vector<StoredMatrix> matrices_;  // by slot, as tensors_
  std::vector<BaseTensor> tensors_;
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<StoredBase> StoredBase::create(const Cpu& q, const AnyModel& model, const float* weights,
                                                       BaseFormat format) {
  std::vector<RowSource> sources;
  for (std::size_t i = 0; i < model.tensors.size(); ++i)
    if (const NamedTensor& t = model.tensors[i]; t.packed()) sources.push_back({i, 0, t.rows, Format::f32});
  const auto copy = [&](const NamedTensor& t, std::int64_t row, std::int64_t count, void* to) -> Result<void> {
    std::memcpy(to, weights + t.offset + row * t.cols, static_cast<std::size_t>(count * t.cols) * sizeof(float));
    return {};
  };
  return create(
      q, model, sources,
      [&](std::size_t source, std::int64_t row, std::int64_t count, std::byte* to) {
        return copy(model.tensors[sources[source].tensor], row, count, to);
      },
      [&](std::size_t tensor, float* to) { return copy(model.tensors[tensor], 0, model.tensors[tensor].rows, to); },
      format);
}

CHIMERA_FUNCTION Result<void> StoredBase::plan(const AnyModel& model, std::span<const RowSource> sources,
                                               BaseFormat format, std::vector<Piece>& pieces) {
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const RowSource& s = sources[i];
    if (is_ternary(model, model.tensors[s.tensor])) continue;
    Piece p{.tensor = s.tensor,
            .first = s.first,
            .rows = s.rows,
            .from = s.format,
            .to = s.format,
            .scale = s.scale,
            .source = i};
    p.nf4 = format == BaseFormat::nf4 && model.tensors[s.tensor].block() >= 0;
    if (format == BaseFormat::nf4 && !p.nf4 && p.from == Format::f32) p.to = Format::bf16;
    pieces.push_back(p);
  }
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return std::pair(a.tensor, a.first) < std::pair(b.tensor, b.first); });
  std::vector<std::int64_t> rows(model.tensors.size());
  std::vector<std::size_t> count(model.tensors.size());
  for (const Piece& p : pieces) {
    const NamedTensor& t = model.tensors[p.tensor];
    const std::string name(t.name());
    if (p.first != rows[p.tensor]) return Error{"weight " + name + " lacks row " + std::to_string(rows[p.tensor])};
    if (!p.nf4 && t.cols % format_info(p.to)->values != 0)
      return Error{"weight " + name + " has rows of " + std::to_string(t.cols) + " numbers, and blocks of " +
                   std::string(format_info(p.to)->name) + " have " + std::to_string(format_info(p.to)->values)};
    if (++count[p.tensor] > Tensor::most_parts) return Error{"weight " + name + " comes in too many parts"};
    rows[p.tensor] += p.rows;
  }
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (const NamedTensor& t = model.tensors[i]; t.packed() && !is_ternary(model, t) && rows[i] != t.rows)
      return Error{"weight " + std::string(t.name()) + " has " + std::to_string(t.rows) + " rows, " +
                   std::to_string(rows[i]) + " were given"};
  return {};
}

CHIMERA_FUNCTION Result<void> StoredBase::store_ternary(const Cpu& q, const NamedTensor& t, int group, float* latent) {
  const StoredRows& to = matrices_[t.slot].parts[0];
  const TernaryShape shape = ternary_shape(t, group);
  float* const scales = const_cast<float*>(to.scales);
  for (std::int64_t row = 0; row < t.rows; row += shape.out)
    ternary_scales(q, shape, latent + row * t.cols, scales + row * shape.groups());
  for (std::int64_t i = 0; i < t.size(); ++i) {
    const float half = 0.5f * scales[i / to.group];
    latent[i] = static_cast<float>((latent[i] > half) - (latent[i] < -half));
  }
  return encode_ternary(q.isa(), to.format, latent, t.size(), const_cast<std::byte*>(to.data));
}

CHIMERA_FUNCTION std::size_t StoredBase::place(const AnyModel& model, std::span<Piece> pieces, std::byte* base) {
  Bump memory{base};
  for (const NamedTensor& t : model.tensors)
    if (!t.packed()) tensors_[t.slot].values = memory.take(t.size());
  for (StoredMatrix& m : matrices_) m = {};
  for (const NamedTensor& t : model.tensors)
    if (is_ternary(model, t)) {
      const TernaryShape shape = ternary_shape(t, model.config->ternary.group);
      const Format format = t.cols % 256 == 0 ? Format::tq2_0 : t.cols % 32 == 0 ? Format::q8_0 : Format::f32;
      StoredMatrix& m = matrices_[t.slot];
      m.rows = t.rows, m.cols = t.cols, m.count = 1;
      m.parts[0] = {.rows = t.rows,
                    .format = format,
                    .data = memory.take<std::byte>(format_bytes(format, t.size())),
                    .scales = memory.take(t.rows * shape.groups()),
                    .group = shape.group_size()};
      tensors_[t.slot].stored = &m;
    }
  for (Piece& p : pieces) {
    const NamedTensor& t = model.tensors[p.tensor];
    StoredMatrix& m = matrices_[t.slot];
    m.rows = t.rows, m.cols = t.cols;
    tensors_[t.slot].stored = &m;
    if (p.nf4) {  // all pieces as one
      if (m.count > 0) continue;
      p.data = memory.take<std::byte>(static_cast<std::int64_t>(Nf4::bytes(t.size())));
      if (base) m = StoredMatrix::of(Nf4::at(p.data, t.size()), t.rows, t.cols);
      m.count = 1;
      continue;
    }
    p.data = memory.take<std::byte>(format_bytes(p.to, p.rows * t.cols));
    m.parts[m.count++] = {.first = p.first, .rows = p.rows, .format = p.to, .data = p.data, .scale = p.scale};
  }
  return memory.used;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
