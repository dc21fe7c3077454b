#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/matrix.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "numeric.hpp"

using namespace chimera;

namespace {

using Bytes = std::vector<std::byte>;

constexpr std::array all{Format::f32,  Format::f16,   Format::bf16, Format::q4_0, Format::q4_1,
                         Format::q5_0, Format::q5_1,  Format::q8_0, Format::q4_k, Format::q5_k,
                         Format::q6_k, Format::tq1_0, Format::tq2_0};

bool multiplies_floats(Format format) { return input_forms(format) == InputForms::f32; }

/// Numbers of x that share a power of two.
std::int64_t input_block(Format format) { return input_forms(format) == InputForms::blocks_of_32 ? 32 : 256; }

std::vector<std::int64_t> widths(Format format) {
  if (multiplies_floats(format)) return {1, 7, 32, 33, 512, 1280};
  if (format_info(format)->values == 32) return {32, 64, 256, 1280};
  return {256, 512, 1280};
}

template <class F>
void on_every_level(F f) {
  for (const Isa isa : every_level()) {
    CAPTURE(name(isa));
    f(isa);
  }
}

/// A matrix in the file's layout, what it stands for, and its panels.
struct Matrix {
  Format format;
  std::int64_t rows, cols;
  Bytes file;
  Floats values;
  std::vector<float> memory;  // panels, behind up to 15 floats that align them
  PackedRows packed;

  Matrix(Format form, std::int64_t r, std::int64_t c, Bytes bytes)
      : format(form), rows(r), cols(c), file(std::move(bytes)), values(zeros(r * c)) {
    REQUIRE(decode(Isa::base, format, file.data(), rows * cols, values.data()).ok());
    const std::size_t size = packed_bytes(format, rows, cols);
    CHECK(size % 64 == 0);
    memory.assign(size / 4 + 16, unwritten);
    auto* at = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
    packed = {format, rows, cols, at};
    const std::int64_t row_bytes = format_bytes(format, cols);
    for (std::int64_t p = 0; p < packed.panels(); ++p, at += panel_bytes(format, cols)) {
      const std::byte* lines[panel_rows];
      const std::int64_t count = std::min(panel_rows, rows - p * panel_rows);
      for (std::int64_t i = 0; i < count; ++i) lines[i] = file.data() + (p * panel_rows + i) * row_bytes;
      pack_panel(format, cols, lines, count, at);
    }
  }
  Matrix(const Matrix&) = delete;
  Matrix& operator=(const Matrix&) = delete;
};

Bytes encoded(Format format, const Floats& x) {
  const auto n = static_cast<std::int64_t>(x.size());
  Bytes bytes(static_cast<std::size_t>(format_bytes(format, n)));
  REQUIRE(encode(Isa::base, format, x.data(), n, bytes.data()).ok());
  return bytes;
}

Matrix random_matrix(Format format, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  return {format, rows, cols, encoded(format, noise(rows * cols, seed))};
}

void put_half(std::byte* p, float x) { store_f16(p, x); }

/// Blocks whose codes and sub-block scales are drawn from all there are, and whose d and offset are 1/4: products with
/// whole numbers are exact.
Matrix exact_matrix(Format format, std::int64_t rows, std::int64_t cols, std::uint64_t seed) {
  if (multiplies_floats(format) || format == Format::tq1_0) {
    Floats x = noise(rows * cols, seed);
    for (float& v : x) v = 0.25f * std::round(v * (format == Format::tq1_0 ? 1.f : 16.f));
    for (std::size_t i = 0; i < x.size(); i += 256) x[i] = std::copysign(0.25f, x[i]);
    return {format, rows, cols, encoded(format, x)};
  }
  Bytes bytes(static_cast<std::size_t>(format_bytes(format, rows * cols)));
  for (std::byte& b : bytes) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    b = static_cast<std::byte>(seed >> 56);
  }
  const FormatInfo& info = *format_info(format);
  for (std::int64_t at = 0; at < static_cast<std::int64_t>(bytes.size()); at += info.bytes) {
    std::byte* block = bytes.data() + at;
    const bool offsets =
        format == Format::q4_1 || format == Format::q5_1 || format == Format::q4_k || format == Format::q5_k;
    put_half(block + (format == Format::q6_k ? 208 : format == Format::tq2_0 ? 64 : 0), 0.25f);
    if (offsets) put_half(block + 2, 0.25f);
    if (format == Format::tq2_0)  // no code is 3
      for (int i = 0; i < 64; ++i) block[i] &= ~(block[i] >> 1 & std::byte{0x55});
  }
  return {format, rows, cols, bytes};
}

/// Rows of x, packed.
struct Input {
  std::vector<float> memory;
  PackedInput packed;

  Input(Isa isa, InputForms forms, std::int64_t cols, const Floats& x) {
    const std::int64_t rows = static_cast<std::int64_t>(x.size()) / cols;
    Bump count;
    bind_packed_input(count, forms, rows, cols);
    memory = room(static_cast<std::int64_t>(count.used));
    Bump take{memory.data()};
    packed = bind_packed_input(take, forms, rows, cols);
    CHECK(take.used == count.used);
    for (std::int64_t t = rows - 1; t >= 0; --t) pack_input(isa, packed, t, x.data() + t * cols);
  }
};

/// Rows first ... of x W^T: [count][rows of w].
Floats product(Isa isa, const Matrix& w, const Input& x, std::int64_t first, std::int64_t count) {
  Floats y = zeros(count * w.rows), out = filled(count * panel_rows + 1, unwritten);
  std::vector<float> memory(static_cast<std::size_t>(panel_scratch_floats) + 16, unwritten);
  auto* scratch = reinterpret_cast<float*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  for (std::int64_t p = 0; p < w.packed.panels(); ++p) {
    multiply_panels(isa, w.packed, p, 1, x.packed, first, count, scratch, out.data());
    CHECK(std::isnan(out.back()));
    for (std::int64_t t = 0; t < count; ++t)
      std::copy_n(out.data() + t * panel_rows, std::min(panel_rows, w.rows - p * panel_rows),
                  y.data() + t * w.rows + p * panel_rows);
  }
  return y;
}

float largest(const Floats& x, std::size_t from, std::size_t count) {
  float most = 0;
  for (std::size_t i = from; i < from + count; ++i) most = std::max(most, std::fabs(x[i]));
  return most;
}

/// Rows of x as the weights of a format see them: whole numbers times the row's scale and powers of two, the least of
/// which is 2^-20.
Floats quantized(Format format, const Floats& x, std::int64_t cols) {
  if (multiplies_floats(format)) return x;
  Floats y = x;
  const auto block = static_cast<std::size_t>(input_block(format)), width = static_cast<std::size_t>(cols);
  for (std::size_t row = 0; row < x.size(); row += width) {
    const float most = largest(x, row, width);
    for (std::size_t at = row; at < row + width; at += block) {
      float power = 1;
      while (power > 0x1p-20f && largest(x, at, block) <= most * power / 2) power /= 2;
      for (std::size_t i = at; i < at + block; ++i)
        y[i] = most / 127.f * power * std::nearbyint(x[i] * (127.f / most) / power);
    }
  }
  return y;
}

struct Reference {
  Doubles y, size;  // sums of products, and of their magnitudes
};
Reference reference(const Matrix& w, const Floats& x) {
  const std::int64_t count = static_cast<std::int64_t>(x.size()) / w.cols;
  Reference r{Doubles(static_cast<std::size_t>(count * w.rows)), Doubles(static_cast<std::size_t>(count * w.rows))};
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t i = 0; i < w.rows; ++i)
      for (std::int64_t k = 0; k < w.cols; ++k) {
        const double p = static_cast<double>(w.values[static_cast<std::size_t>(i * w.cols + k)]) *
                         static_cast<double>(x[static_cast<std::size_t>(t * w.cols + k)]);
        r.y[static_cast<std::size_t>(t * w.rows + i)] += p;
        r.size[static_cast<std::size_t>(t * w.rows + i)] += std::fabs(p);
      }
  return r;
}

/// The largest error, each over the sum of the magnitudes of its products.
double relative_error(const Floats& y, const Reference& want) {
  double worst = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    worst = std::max(worst, std::fabs(static_cast<double>(y[i]) - want.y[i]) / (want.size[i] + 1e-30));
  return worst;
}

/// Whole numbers up to 127, which every block of 32 reaches: they are quantized without loss.
Floats whole_numbers(std::int64_t n, std::uint64_t seed) {
  Floats x = noise(n, seed);
  for (float& v : x) v = std::round(v * 127.f);
  for (std::size_t i = 0; i < x.size(); i += 32) x[i] = std::copysign(127.f, x[i]);
  return x;
}

}  // namespace

TEST_CASE("a packed row is what the file's blocks stand for") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    for (const std::int64_t rows : {1, 15, 17, 33})
      for (const std::int64_t cols : widths(format)) {
        CAPTURE(cols);
        for (const bool exact : {false, true}) {
          const Matrix w = exact ? exact_matrix(format, rows, cols, 5) : random_matrix(format, rows, cols, 3);
          for (std::int64_t i = 0; i < rows; ++i) {
            Floats y = filled(cols + 1, 42.f), z = y;
            const Floats want(w.values.begin() + i * cols, w.values.begin() + (i + 1) * cols);
            unpack_row(w.packed, i, 1.f, y.data());
            unpack_row(w.packed, i, -3.f, z.data());
            CHECK(y.back() == 42.f);
            y.pop_back();
            CHECK(y == want);
            CHECK(z[0] == -3.f * want[0]);
          }
        }
      }
  }
}

TEST_CASE("panels take the file's bytes, and little more in formats that are rare") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    const bool exact = format != Format::q4_1 && format != Format::q5_0 && format != Format::q5_1 &&
                       format != Format::q5_k && format != Format::tq1_0;
    const auto packed = static_cast<double>(packed_bytes(format, 64, 1536));
    const auto file = static_cast<double>(format_bytes(format, 64 * 1536));
    CHECK(packed >= file);
    CHECK(packed <= file * (exact ? 1 : 1.6));
  }
}

TEST_CASE("products of whole numbers are exact") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    for (const std::int64_t cols : widths(format)) {
      CAPTURE(cols);
      const Matrix w = exact_matrix(format, 33, cols, 11);
      const Floats x = whole_numbers(7 * cols, 13);
      const Reference want = reference(w, x);
      on_every_level([&](Isa isa) {
        const Input input(isa, input_forms(format), cols, x);
        for (const std::int64_t count : {1, 7}) CHECK(relative_error(product(isa, w, input, 0, count), want) == 0);
      });
    }
  }
}

TEST_CASE("no sum runs over") {
  for (const Format format : all) {
    if (multiplies_floats(format)) continue;
    CAPTURE(format_info(format)->name);
    const FormatInfo& info = *format_info(format);
    for (const int bits : {0x00, 0xff, 0xaa, 0x80, 0x7f, 0x0f, 0xf0}) {
      CAPTURE(bits);
      Matrix filler = exact_matrix(format, 1, 512, 1);
      Bytes bytes = filler.file;
      const bool ternary = format == Format::tq1_0 || format == Format::tq2_0;
      if (ternary && bits != 0x00 && bits != 0xaa && bits != 0xff) continue;
      for (std::int64_t at = 0; at < 512 / info.values * info.bytes; at += info.bytes) {
        std::byte* block = bytes.data() + at;
        const std::int64_t first = format == Format::q6_k || ternary                                            ? 0
                                   : format == Format::q4_0 || format == Format::q5_0 || format == Format::q8_0 ? 2
                                                                                                                : 4;
        const std::int64_t end = format == Format::q6_k    ? 208
                                 : format == Format::tq1_0 ? 52
                                 : ternary                 ? 64
                                                           : info.bytes;
        const int fill = format == Format::tq2_0 && bits == 0xff ? 0x55 : bits;
        for (std::int64_t i = first; i < end; ++i) block[i] = static_cast<std::byte>(fill);
      }
      const Matrix w(format, 1, 512, bytes);
      for (const unsigned signs : {0x00u, 0xffu, 0x55u, 0x33u, 0xccu, 0x0fu}) {
        CAPTURE(signs);
        Floats x = zeros(4 * 512);
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = (signs >> (i % 8) & 1) != 0 ? -127.f : 127.f;
        const Reference want = reference(w, x);
        on_every_level([&](Isa isa) {
          const Input input(isa, input_forms(format), 512, x);
          for (const std::int64_t count : {1, 4}) CHECK(relative_error(product(isa, w, input, 0, count), want) <= 1e-6);
        });
      }
    }
  }
}

TEST_CASE("products are those of the quantized x, and near those of x") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    for (const std::int64_t cols : widths(format)) {
      CAPTURE(cols);
      const Matrix w = random_matrix(format, 17, cols, 17);
      const Floats x = noise(5 * cols, 19);
      const Reference exact = reference(w, x), rounded = reference(w, quantized(format, x, cols));
      on_every_level([&](Isa isa) {
        const Input input(isa, input_forms(format), cols, x);
        for (const std::int64_t count : {1, 5}) {
          const Floats y = product(isa, w, input, 0, count);
          const bool halves = isa == Isa::avx512_bf16 && format == Format::bf16;  // x, too
          CHECK(relative_error(y, rounded) <= (halves ? 4e-3 : 2e-6));
          CHECK(relative_error(y, exact) <= (halves ? 4e-3 : multiplies_floats(format) ? 2e-6 : 8e-3));
        }
      });
    }
  }
}

TEST_CASE("a row's result has the same bits however many are multiplied") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    const std::int64_t cols = 1280, rows = 19;
    const Matrix w = random_matrix(format, 15, cols, 23);
    const Floats x = noise(rows * cols, 29);
    on_every_level([&](Isa isa) {
      const InputForms every = InputForms::f32 | InputForms::blocks_of_32 | InputForms::blocks_of_256;
      const Input input(isa, every, cols, x);
      Floats alone;
      for (std::int64_t t = 0; t < rows; ++t) {
        const Floats y = product(isa, w, input, t, 1);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (std::int64_t first = 0; first < rows; first += first < 5 ? 1 : 4)
        for (std::int64_t count = 1; first + count <= rows; ++count)
          CHECK(product(isa, w, input, first, count) ==
                Floats(alone.begin() + first * w.rows, alone.begin() + (first + count) * w.rows));
    });
  }
}

TEST_CASE("zeros stay zeros; what is no number harms no other row") {
  for (const Format format : all) {
    CAPTURE(format_info(format)->name);
    const std::int64_t cols = 512;
    const Matrix w = random_matrix(format, 16, cols, 31);
    on_every_level([&](Isa isa) {
      const Input none(isa, input_forms(format), cols, zeros(3 * cols));
      CHECK(product(isa, w, none, 0, 3) == zeros(3 * w.rows));
      for (const float size : {1e-45f, 1e-37f, 1e37f}) {
        Floats x = noise(cols, 37);
        for (float& v : x) v *= size;
        const Input input(isa, input_forms(format), cols, x);
        for (const float y : product(isa, w, input, 0, 1)) CHECK(std::fabs(y) <= 600 * size);
      }
      for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(), -3e38f}) {
        Floats x = noise(6 * cols, 41);
        const Input good(isa, input_forms(format), cols, x);
        for (const std::int64_t i : {std::int64_t{0}, std::int64_t{37}, cols - 1})
          x[static_cast<std::size_t>(3 * cols + i)] = bad;
        const Input input(isa, input_forms(format), cols, x);
        const Floats y = product(isa, w, input, 0, 6), want = product(isa, w, good, 0, 6);
        CHECK(std::equal(y.begin(), y.begin() + 3 * w.rows, want.begin()));
        CHECK(std::equal(y.begin() + 4 * w.rows, y.end(), want.begin() + 4 * w.rows));
        product(isa, w, input, 3, 1);
      }
    });
  }
}

TEST_CASE("two weights of as many parts as there may be are joined") {
  PackedMatrix a;
  a.rows = 32 * static_cast<std::int64_t>(Tensor::most_parts), a.cols = 64;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(Tensor::most_parts); ++i)
    a.parts[a.count++] = {{Format::f32, 32, 64, nullptr}, 32 * i, static_cast<float>(i)};
  const PackedMatrix both = PackedMatrix::joined(a, a);
  REQUIRE(both.count <= both.parts.size());
  CHECK(both.count == 2 * a.count);
  CHECK(both.rows == 2 * a.rows);
  for (std::size_t i = 0; i < both.count; ++i) {
    CHECK(both.parts[i].first == static_cast<std::int64_t>(32 * i));
    CHECK(both.parts[i].scale == static_cast<float>(i % a.count));
  }
}
