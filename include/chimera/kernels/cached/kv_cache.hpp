// Keys and values of one layer and one sequence, as decoding keeps them: a ring of the newest tokens. Keys are
// kept as rotation leaves them.
//
//   keys [kv_heads, n, row], values [kv_heads, n, row];  the token at position p lies in slot p mod n, the slot count
//
// A row is one head of one token, head_dim numbers in the cache's format and zeros up to whole blocks of 32. Of one
// head all tokens lie together: that is how attention reads them.
#pragma once

#include <chimera/core/batch.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera {

constexpr Format format_of(KvFormat format) {
  switch (format) {
    case KvFormat::f32: return Format::f32;
    case KvFormat::f16: return Format::f16;
    case KvFormat::q8_0: return Format::q8_0;
    case KvFormat::q4_0: return Format::q4_0;
  }
  return Format::f32;
}

struct KvShape {
  static constexpr std::int64_t block = 32, most_head_dim = 256;

  std::int64_t kv_heads, head_dim, slot_count;

  /// Floats of a row.
  constexpr std::int64_t row() const { return (head_dim + block - 1) / block * block; }
  constexpr std::int64_t row_bytes(KvFormat format) const { return format_bytes(format_of(format), row()); }
  /// Of the keys and of the values; a multiple of 64.
  constexpr std::int64_t half_bytes(KvFormat format) const {
    return (kv_heads * slot_count * row_bytes(format) + 63) / 64 * 64;
  }
  constexpr std::int64_t bytes(KvFormat format) const { return 2 * half_bytes(format); }
};

}  // namespace chimera

namespace chimera::inline CHIMERA_ABI {

struct KvCache {
  KvShape shape;
  KvFormat format;
  std::byte* data;

  std::byte* key(std::int64_t head, std::int64_t position) const {
    return data + (head * shape.slot_count + position % shape.slot_count) * shape.row_bytes(format);
  }
  std::byte* value(std::int64_t head, std::int64_t position) const {
    return key(head, position) + shape.half_bytes(format);
  }
  /// Rows from this position on that lie together, at most n: the ring's end comes between the others.
  std::int64_t together(std::int64_t position, std::int64_t n) const {
    return std::min(n, shape.slot_count - position % shape.slot_count);
  }
};

/// Keeps one row: x [head_dim].
void store_row(Isa isa, const KvCache& cache, const float* x, std::byte* row);

/// `count` rows that lie together as f32 [count, row()]: in `buffer`, or where they are.
const float* load_rows(Isa isa, const KvCache& cache, const std::byte* rows, std::int64_t count, float* buffer);

/// Copies what a sequence of that many tokens keeps.
void copy_rows(const KvShape& shape, KvFormat format, std::int64_t tokens, const std::byte* from, std::byte* to);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION void store_row(Isa isa, const KvCache& cache, const float* x, std::byte* row) {
  using namespace format_parts;
  alignas(64) float padded[KvShape::most_head_dim] = {};
  std::copy_n(x, cache.shape.head_dim, padded);
  const float* from = padded;
  const std::int64_t n = cache.shape.row();
  switch (cache.format) {
    case KvFormat::f32: std::memcpy(row, from, static_cast<std::size_t>(n) * sizeof(float)); return;
    case KvFormat::f16: return dispatch<EncodeHalves<F16>>(isa, from, n, row);
    case KvFormat::q8_0: return dispatch<EncodeBlocks<Q8_0>>(isa, from, n, row);
    case KvFormat::q4_0: return dispatch<EncodeBlocks<Q4_0>>(isa, from, n, row);
  }
}

CHIMERA_FUNCTION const float* load_rows(Isa isa, const KvCache& cache, const std::byte* rows, std::int64_t count,
                                        float* buffer) {
  using namespace format_parts;
  const std::int64_t n = count * cache.shape.row();
  switch (cache.format) {
    case KvFormat::f32: return reinterpret_cast<const float*>(rows);
    case KvFormat::f16: dispatch<DecodeHalves<F16>>(isa, rows, n, buffer); break;
    case KvFormat::q8_0: dispatch<DecodeBlocks<Q8_0>>(isa, rows, n, buffer); break;
    case KvFormat::q4_0: dispatch<DecodeBlocks<Q4_0>>(isa, rows, n, buffer); break;
  }
  return buffer;
}

CHIMERA_FUNCTION void copy_rows(const KvShape& shape, KvFormat format, std::int64_t tokens, const std::byte* from,
                                std::byte* to) {
  const KvCache cache{shape, format, to};
  const auto bytes = static_cast<std::size_t>(std::min(tokens, shape.slot_count) * shape.row_bytes(format));
  for (std::int64_t h = 0; h < shape.kv_heads; ++h)
    for (std::byte* head : {cache.key(h, 0), cache.value(h, 0)}) std::memcpy(head, from + (head - to), bytes);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
