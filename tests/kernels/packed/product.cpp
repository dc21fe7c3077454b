#include <chimera/config/check.hpp>
#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/product.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "numeric.hpp"

using namespace chimera;

namespace {

/// Weights [rows, cols] in parts of equal size, one for each format.
struct Matrix {
  Matrix(const Floats& weights, std::int64_t cols, const std::vector<Format>& formats) {
    const auto parts = static_cast<std::int64_t>(formats.size());
    const std::int64_t rows = static_cast<std::int64_t>(weights.size()) / cols / parts;
    packed = {.parts = {}, .count = formats.size(), .rows = parts * rows, .cols = cols};
    for (std::size_t part = 0; part < formats.size(); ++part) {
      const Format format = formats[part];
      const std::int64_t row_bytes = format_bytes(format, cols), first = static_cast<std::int64_t>(part) * rows;
      std::vector<std::byte> file(static_cast<std::size_t>(row_bytes * rows));
      REQUIRE(encode(Isa::base, format, weights.data() + first * cols, rows * cols, file.data()).ok());
      auto* panels = reinterpret_cast<std::byte*>(
          memory.emplace_back(*Buffer::create(packed_bytes(format, rows, cols) / 4)).data());
      for (std::int64_t row = 0; row < rows; row += panel_rows) {
        const std::byte* lines[panel_rows];
        const std::int64_t count = std::min(panel_rows, rows - row);
        for (std::int64_t r = 0; r < count; ++r) lines[r] = file.data() + (row + r) * row_bytes;
        pack_panel(format, cols, lines, count,
                   panels + static_cast<std::size_t>(row / panel_rows) * panel_bytes(format, cols));
      }
      packed.parts[part] = {{format, rows, cols, panels}, first, 1.f};
    }
  }

  std::vector<Buffer> memory;
  PackedMatrix packed;
};

Floats plain_product(std::int64_t n, const Floats& x, const Floats& weights, std::int64_t cols) {
  const auto rows = static_cast<std::int64_t>(weights.size()) / cols;
  Floats y(static_cast<std::size_t>(n * rows));
  gemm_reference(n, rows, cols, 1.f, row_major(x.data(), cols), transposed(weights.data(), cols), 0.f, y.data(), rows);
  return y;
}

}  // namespace

TEST_CASE("a worker's scratch holds the widest row in all forms, and what its panels make of it") {
  CHECK(product_scratch_bytes(most_columns) <= Cpu::scratch_bytes);
  for (const std::int64_t cols : {1, 32, 1000, 4096}) {
    Bump memory;
    bind_packed_input(memory, all_input_forms, 3, cols);
    CHECK(packed_input_bytes(all_input_forms, 3, cols) == static_cast<std::int64_t>(memory.used));
  }
}

TEST_CASE("the widest row times weights of two forms at once") {
  constexpr std::int64_t rows = 2 * panel_rows, cols = most_columns;
  const Floats x = noise(cols, 1), weights = noise(rows * cols, 2), want = plain_product(1, x, weights, cols);
  const Matrix matrix(weights, cols, {Format::f32, Format::q8_0});
  on_every_cpu([&](const Cpu& q) {
    Floats got = filled(rows, unwritten);
    product(q, matrix.packed, 1, {x.data(), cols}, Then::store(got.data(), rows), {});
    for (std::size_t r = 0; r < rows; ++r)
      // Eight bits move each of the products by 0.0019 on average, their sum by sqrt(cols) as much: 0.7 of some 120.
      CHECK(std::abs(got[r] - want[r]) < (r < panel_rows ? 0.01f : 4.f));
  });
}

TEST_CASE("what products read and what becomes of their results") {
  constexpr std::int64_t rows = 2 * 37, cols = 24, stride = cols + 3;
  const Floats weights = noise(rows * cols, 1), norm = noise(cols, 2), bias = noise(rows, 3);
  const Matrix matrix(weights, cols, {Format::f32, Format::f32}), one(noise(19 * cols, 4), cols, {Format::f32});
  for (const std::int64_t n : {1, 3, 130})
    on_every_cpu([&](const Cpu& q) {
      CAPTURE(n);
      const Floats wide = noise(n * stride, 5), before = noise(n * (rows + 2), 6);
      Floats x;
      for (std::int64_t t = 0; t < n; ++t)
        x.insert(x.end(), wide.begin() + t * stride, wide.begin() + t * stride + cols);
      Floats memory = room(product_bytes(n, cols));
      const Bump temp{memory.data()};
      const Floats want = plain_product(n, x, weights, cols);
      const auto results = [&](const Floats& y, std::int64_t width) {
        Floats inside;
        for (std::int64_t t = 0; t < n; ++t)
          inside.insert(inside.end(), y.begin() + t * (rows + 2), y.begin() + t * (rows + 2) + width);
        return inside;
      };

      Floats y = filled(n * (rows + 2), unwritten);
      product(q, matrix.packed, n, {wide.data(), stride}, Then::store(y.data(), rows + 2), temp);
      CHECK(difference(results(y, rows), want) <= 1e-6);

      y = before;
      product(q, matrix.packed, n, {wide.data(), stride}, Then::add(y.data(), rows + 2, 0.5f, bias.data()), temp);
      Floats sums = results(before, rows);
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += 0.5f * (want[i] + bias[i % rows]);
      CHECK(difference(results(y, rows), sums) <= 1e-6);

      product(q, matrix.packed, n, {wide.data(), stride}, Then::gate(y.data(), rows + 2), temp);
      Floats gated;
      for (std::int64_t t = 0; t < n; ++t)
        for (std::int64_t r = 0; r < rows / 2; ++r) {
          const float gate = want[static_cast<std::size_t>(t * rows + r)];
          gated.push_back(gate / (1.f + std::exp(-gate)) * want[static_cast<std::size_t>(t * rows + rows / 2 + r)]);
        }
      CHECK(difference(results(y, rows / 2), gated) <= 2e-6);

      // Three runs of channels with a norm each, of the rows that outputs ask for.
      Floats normed = x, reversed, logits = filled(n * rows, unwritten);
      std::vector<Output> outputs;
      for (std::int64_t t = 0; t < n; ++t) outputs.push_back({n - 1 - t, logits.data() + t * rows});
      rms_norm(q, {n, cols, cols / 3, 1e-5f}, x.data(), norm.data(), normed.data());
      for (std::int64_t t = n - 1; t >= 0; --t)
        reversed.insert(reversed.end(), normed.begin() + t * cols, normed.begin() + (t + 1) * cols);
      PackedMatrix lone{{matrix.packed.parts[1]}, 1, rows / 2, cols};
      lone.parts[0].first = 0;
      product(q, lone, n, {wide.data(), stride, norm.data(), cols / 3, 1e-5f, outputs.data()},
              Then::logits(outputs.data(), 5, 0.25f), temp);
      Floats quarter = plain_product(n, reversed, Floats(weights.begin() + rows / 2 * cols, weights.end()), cols), got;
      for (float& v : quarter) v *= 0.25f;
      for (std::int64_t t = 0; t < n; ++t)
        got.insert(got.end(), logits.begin() + t * rows + 5, logits.begin() + t * rows + 5 + rows / 2);
      CHECK(difference(got, quarter) <= 2e-6);

      const PackedMatrix both = PackedMatrix::joined(one.packed, lone);
      REQUIRE(both.rows == 19 + rows / 2);
      product(q, both, n, {wide.data(), stride}, Then::store(y.data(), rows + 2), temp);
      Floats joined = noise(19 * cols, 4);
      joined.insert(joined.end(), weights.begin() + rows / 2 * cols, weights.end());
      CHECK(difference(results(y, both.rows), plain_product(n, x, joined, cols)) <= 1e-6);
    });
}
