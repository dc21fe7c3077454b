// A matrix as it is stored: rows of tensors of a file, as they lie there, or NF4. Products of training read it so.
#pragma once

#include <chimera/core/isa.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/tensor.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/formats/nf4.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// Rows that are stored together: in `format`, row after row at `data`, or in NF4 if there is none.
struct StoredRows {
  std::int64_t first = 0, rows = 0;  // of the matrix
  Format format = Format::f32;       // one that holds_weights, whose blocks fill rows
  const std::byte* data = nullptr;
  Nf4 nf4{};
  float scale = 1.f;              // multiplies all
  const float* scales = nullptr;  // multiply each `group` columns of each row; null: 1
  std::int64_t group = 0;
};

/// A matrix [rows, cols].
struct StoredMatrix {
  std::int64_t rows = 0, cols = 0;
  std::array<StoredRows, Tensor::most_parts> parts{};
  std::size_t count = 0;
  std::int64_t skipped = 0;  // rows of the parts before the first row

  static StoredMatrix of(const Nf4& w, std::int64_t rows, std::int64_t cols) {
    return {.rows = rows, .cols = cols, .parts = {StoredRows{.rows = rows, .nf4 = w}}, .count = 1};
  }
  /// Some of its rows.
  StoredMatrix from(std::int64_t first, std::int64_t number) const {
    StoredMatrix some = *this;
    some.rows = number, some.skipped += first;
    return some;
  }
};

/// to [rows, cols], with rows ld apart, = rows `row` ... and columns `col` ... of w, on the calling thread.
void decode_part(Isa isa, const StoredMatrix& w, std::int64_t row, std::int64_t rows, std::int64_t col,
                 std::int64_t cols, float* to, std::int64_t ld);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace stored_matrix_parts {

/// Numbers first ... first + n - 1 of a row that lies at `row`.
inline void decode_run(Isa isa, Format format, const std::byte* row, std::int64_t first, std::int64_t n, float* to) {
  constexpr std::int64_t most = 256;  // numbers of a block
  const std::int64_t values = format_info(format)->values;
  while (n > 0) {
    const std::int64_t skipped = first % values;
    const std::byte* from = row + format_bytes(format, first - skipped);
    std::int64_t count = n / values * values;
    if (skipped == 0 && count > 0) {
      format_parts::decode_blocks(isa, format, from, count, to);
    } else {
      float block[most];
      count = std::min(values - skipped, n);
      format_parts::decode_blocks(isa, format, from, values, block);
      std::copy_n(block + skipped, count, to);
    }
    first += count, n -= count, to += count;
  }
}

}  // namespace stored_matrix_parts

CHIMERA_FUNCTION void decode_part(Isa isa, const StoredMatrix& w, std::int64_t row, std::int64_t rows, std::int64_t col,
                                  std::int64_t cols, float* to, std::int64_t ld) {
  std::size_t part = 0;
  for (std::int64_t r = w.skipped + row; r < w.skipped + row + rows; ++r, to += ld) {
    while (part + 1 < w.count && r >= w.parts[part].first + w.parts[part].rows) ++part;
    const StoredRows& p = w.parts[part];
    const std::int64_t at = r - p.first;
    if (p.data)
      stored_matrix_parts::decode_run(isa, p.format, p.data + at * format_bytes(p.format, w.cols), col, cols, to);
    else
      decode_nf4(isa, p.nf4, at * w.cols + col, cols, to);
    if (p.scale != 1.f)
      for (std::int64_t i = 0; i < cols; ++i) to[i] *= p.scale;
    if (p.scales)
      for (std::int64_t i = 0; i < cols; ++i) to[i] *= p.scales[at * (w.cols / p.group) + (col + i) / p.group];
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
