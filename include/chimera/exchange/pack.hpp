// Weights packed for decoding straight from a file, in the file's own formats: no arena of f32 in between.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/model/packed_model.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// Packs the weights of a GGUF file; ternary matrices (Config::ternary) as PackedModel::create does. What is read is
/// copied from the file, and a file that becomes shorter meanwhile is an error. Errors: as load_gguf.
Result<PackedModel> pack_gguf(const Cpu& q, const Gguf& file, const AnyModel& model);

/// Of a file.
Result<PackedModel> pack_gguf(const Cpu& q, const std::string& path, const AnyModel& model);

/// Of a file in memory, which is not needed any more afterwards.
Result<PackedModel> pack_gguf(const Cpu& q, std::span<const std::byte> bytes, const AnyModel& model);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
#include <chimera/core/files.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/weights.hpp>

#include <algorithm>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<PackedModel> pack_gguf(const Cpu& q, const Gguf& file, const AnyModel& model) {
  if (model.config->ternary.on) {  // the file has what training rounds
    auto weights = Buffer::create(model.arena_floats);
    if (!weights) return weights.error();
    if (Result<void> s = load_gguf(q, file, model, weights->data()); !s) return s.error();
    return PackedModel::create(q, model, weights->data());
  }
  const auto table = find_weights(file, model);
  if (!table) return table.error();
  std::vector<RowSource> sources;
  std::vector<const FileWeight*> weights;  // of each source
  for (const FileWeight& w : *table) {
    const NamedTensor& t = model.tensors[w.tensor];
    if (!t.packed()) continue;
    if (Result<void> s = check_shape(w, w.stored); !s) return s.error();
    if (!holds_weights(w.stored.format))
      return Error{"tensor " + w.name + ": expected a format of weights, found " +
                   std::string(format_info(w.stored.format)->name)};
    for (std::int64_t first = w.first; first < w.first + w.rows;) {
      const std::int64_t end = std::min(part_end(t.parts, t.rows, first), w.first + w.rows);
      sources.push_back({w.tensor, first, end - first, w.stored.format, w.divisor});
      weights.push_back(&w);
      first = end;
    }
  }
  std::vector<std::vector<std::int64_t>> file_rows;  // of each source; none: the file's order is ours
  file_rows.reserve(weights.size());
  for (const FileWeight* w : weights) file_rows.push_back(w->file_rows());
  const auto read = [&](std::size_t source, std::int64_t row, std::int64_t count, std::byte* to) -> Result<void> {
    const FileWeight& w = *weights[source];
    const GgufTensor& t = file.tensors()[w.stored.index];
    const std::size_t row_bytes = static_cast<std::size_t>(format_bytes(t.format, w.cols));
    row += sources[source].first - w.first;
    const auto& theirs = file_rows[source];
    const std::int64_t together = theirs.empty() ? count : 1;  // rows that follow one another in the file, too
    for (std::int64_t r = 0; r < count; r += together) {
      const std::span bytes(to + static_cast<std::size_t>(r) * row_bytes,
                            static_cast<std::size_t>(together) * row_bytes);
      const auto from = static_cast<std::size_t>(theirs.empty() ? row + r : theirs[static_cast<std::size_t>(row + r)]);
      if (Result<void> s = file.read(t, from * row_bytes, bytes); !s) return s;
      if (Result<void> s = check_numbers(w.stored, bytes); !s) return s;
    }
    return {};
  };
  const auto values = [&](std::size_t tensor, float* to) -> Result<void> {
    const auto before = [](const FileWeight& w, std::size_t t) { return w.tensor < t; };
    auto w = std::lower_bound(table->begin(), table->end(), tensor, before);
    for (; w != table->end() && w->tensor == tensor; ++w) {
      StoredTensor t = w->stored;
      std::vector<std::byte> copy(t.data.size());
      if (Result<void> s = file.read(file.tensors()[t.index], 0, copy); !s) return s;
      t.data = copy;
      if (Result<void> s = load_weight(q, *w, t, to + w->first * w->cols); !s) return s;
    }
    return {};
  };
  return PackedModel::create(q, model, sources, read, values);
}

CHIMERA_FUNCTION Result<PackedModel> pack_gguf(const Cpu& q, const std::string& path, const AnyModel& model) {
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  auto packed = pack_gguf(q, *file, model);
  if (!packed) return Error{"cannot load " + path + ": " + packed.error().message};
  return packed;
}

CHIMERA_FUNCTION Result<PackedModel> pack_gguf(const Cpu& q, std::span<const std::byte> bytes, const AnyModel& model) {
  const auto file = Gguf::parse(bytes);
  if (!file) return file.error();
  return pack_gguf(q, *file, model);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
