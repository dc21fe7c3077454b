#include <chimera/config/check.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/layers/decode.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "numeric.hpp"

using namespace chimera;

TEST_CASE("a worker's scratch holds the widest row in all forms, and what its panels make of it") {
  Bump scratch;
  bind_packed_input(scratch, InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256, 1, most_columns);
  scratch.take(most_columns);
  scratch.take(panel_scratch_floats + 2 * decode_parts::together * panel_rows);
  CHECK(scratch.used <= Cpu::scratch_floats);
}

TEST_CASE("the widest row times weights of two forms at once") {
  constexpr std::int64_t rows = 2 * panel_rows, cols = most_columns;
  const Floats x = noise(cols, 1), weights = noise(rows * cols, 2);
  Floats want(rows);
  gemm_reference(rows, 1, cols, 1.f, row_major(weights.data(), cols), row_major(x.data(), 1), 0.f, want.data(), 1);

  PackedMatrix matrix{.parts = {}, .count = 2, .rows = rows, .cols = cols};
  std::vector<Buffer> memory;
  for (const std::int64_t part : {0, 1}) {
    const Format format = part == 0 ? Format::f32 : Format::q8_0;
    const std::int64_t row_bytes = format_bytes(format, cols);
    std::vector<std::byte> file(static_cast<std::size_t>(row_bytes * panel_rows));
    REQUIRE(encode(Isa::base, format, weights.data() + part * panel_rows * cols, panel_rows * cols, file.data()).ok());
    const std::byte* lines[panel_rows];
    for (std::int64_t r = 0; r < panel_rows; ++r) lines[r] = file.data() + r * row_bytes;
    const std::size_t bytes = packed_bytes(format, panel_rows, cols);
    auto* panel = reinterpret_cast<std::byte*>(memory.emplace_back(std::move(*Buffer::create(bytes / 4))).data());
    pack_panel(format, cols, lines, panel_rows, panel);
    matrix.parts[static_cast<std::size_t>(part)] = {{format, panel_rows, cols, panel}, part * panel_rows, 1.f};
  }

  on_every_cpu([&](const Cpu& q) {
    Floats got = filled(rows, unwritten);
    project(q, matrix, 1, [&](std::int64_t, float* buffer) { return std::copy_n(x.data(), cols, buffer), buffer; },
            got.data(), {});
    for (std::size_t r = 0; r < rows; ++r)
      // Eight bits move each of the products by 0.0019 on average, their sum by sqrt(cols) as much: 0.7 of some 120.
      CHECK(std::abs(got[r] - want[r]) < (r < panel_rows ? 0.01f : 4.f));
  });
}
