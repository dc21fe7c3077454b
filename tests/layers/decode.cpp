#include <chimera/config/check.hpp>
#include <chimera/kernels/block_formats.hpp>
#include <chimera/layers/decode.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

using namespace chimera;

TEST_CASE("a worker's scratch holds the widest row in all forms, and what its panels make of it") {
  Bump scratch;
  bind_packed_input(scratch, InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256, 1, most_columns);
  scratch.take(most_columns);
  scratch.take(panel_scratch_floats + 2 * decode_parts::together * panel_rows);
  CHECK(scratch.used <= Cpu::scratch_floats);
}

TEST_CASE("the widest row times weights of two forms at once") {
  constexpr std::int64_t rows = 32, cols = most_columns;
  const Cpu q = std::move(*Cpu::create(2));
  std::vector<float> x(cols), weights(rows * cols);
  std::uint32_t seed = 1;
  const auto next = [&] {
    return static_cast<float>(static_cast<std::int32_t>(seed = seed * 1664525 + 1013904223)) * 0x1p-31f;
  };
  for (float& v : x) v = next();
  for (float& v : weights) v = next();

  PackedMatrix matrix;
  matrix.count = 2, matrix.rows = rows, matrix.cols = cols;
  std::vector<Buffer> memory;
  for (std::size_t part = 0; part < 2; ++part) {
    const Format format = part == 0 ? Format::f32 : Format::q8_0;
    const auto row_bytes = static_cast<std::size_t>(format_bytes(format, cols));
    std::vector<std::byte> file(row_bytes * panel_rows);
    const float* from = weights.data() + static_cast<std::int64_t>(part) * panel_rows * cols;
    REQUIRE(encode(q, format, from, panel_rows * cols, file.data()));
    const std::byte* at[panel_rows];
    for (std::size_t r = 0; r < panel_rows; ++r) at[r] = file.data() + r * row_bytes;
    memory.push_back(std::move(*Buffer::create(packed_bytes(format, panel_rows, cols) / sizeof(float))));
    auto* panel = reinterpret_cast<std::byte*>(memory.back().data());
    pack_panel(format, cols, at, panel_rows, panel);
    matrix.parts[part] = {{format, panel_rows, cols, panel}, static_cast<std::int64_t>(part) * panel_rows, 1.f};
  }

  std::vector<float> y(rows);
  project(q, matrix, 1, [&](std::int64_t, float* buffer) { return std::copy(x.begin(), x.end(), buffer), buffer; },
          y.data(), {});
  for (std::size_t r = 0; r < rows; ++r) {
    double expected = 0;
    for (std::size_t k = 0; k < cols; ++k) expected += double{weights[r * cols + k]} * double{x[k]};
    // Eight bits move each of the products by 0.0019 on average, their sum by sqrt(cols) as much: 0.7 of some 120.
    CHECK(std::abs(double{y[r]} - expected) < (r < panel_rows ? 0.01 : 4.));
  }
}
