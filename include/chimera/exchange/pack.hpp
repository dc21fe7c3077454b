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
#include <chimera/core/memory.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/gguf_rows.hpp>

namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<PackedModel> pack_gguf(const Cpu& q, const Gguf& file, const AnyModel& model) {
  if (model.config->ternary.on) {  // the file has what training rounds
    auto weights = Buffer::create(model.arena_floats);
    if (!weights) return weights.error();
    if (Result<void> s = load_gguf(q, file, model, weights->data()); !s) return s.error();
    return PackedModel::create(q, model, weights->data());
  }
  const auto rows = GgufRows::create(q, file, model);
  if (!rows) return rows.error();
  return PackedModel::create(
      q, model, rows->sources(), [&](auto... a) { return rows->read(a...); },
      [&](auto... a) { return rows->values(a...); });
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
