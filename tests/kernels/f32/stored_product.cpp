#include "numeric.hpp"

#include <chimera/kernels/f32/stored_product.hpp>

#include <optional>

using namespace chimera;

namespace {

/// A matrix of random numbers, and what is stored of it.
struct Stored {
  std::vector<Buffer> data{};
  StoredMatrix matrix;

  Stored(std::int64_t rows, std::int64_t cols) : matrix{.rows = rows, .cols = cols} {}

  /// Adds rows that are stored together; null: in NF4.
  void add(std::optional<Format> format, std::int64_t rows) {
    const std::int64_t n = rows * matrix.cols;
    const Floats x = noise(n, static_cast<std::uint64_t>(n));
    const Cpu q = cpu(Isa::base, 1);
    auto memory = Buffer::of_bytes(format ? static_cast<std::size_t>(format_bytes(*format, n)) : Nf4::bytes(n));
    REQUIRE(memory);
    StoredRows& part = matrix.parts[matrix.count++];
    part.first = matrix.count > 1 ? (&part)[-1].first + (&part)[-1].rows : 0, part.rows = rows;
    REQUIRE((format ? encode(q, *format, x.data(), n, memory->bytes()) : encode_nf4(q, x.data(), n, memory->bytes())));
    if (format)
      part.format = *format, part.data = memory->bytes();
    else
      part.nf4 = Nf4::at(memory->bytes(), n);
    data.push_back(std::move(*memory));
  }
  Floats decoded() const {
    Floats w = filled(matrix.rows * matrix.cols, unwritten);
    decode_part(Isa::base, matrix, 0, matrix.rows, 0, matrix.cols, w.data(), matrix.cols);
    return w;
  }
};

Stored one(std::optional<Format> format, std::int64_t rows, std::int64_t cols) {
  Stored s(rows, cols);
  s.add(format, rows);
  return s;
}

/// Both products with what is stored are those with the decoded matrix: of large ones the same bits, at both precisions.
void check(const Stored& s, std::int64_t n) {
  const StoredMatrix& w = s.matrix;
  const Floats dense = s.decoded(), x = noise(n * w.cols, 5), dy = noise(n * w.rows, 6);
  CAPTURE(w.rows);
  CAPTURE(w.cols);
  CAPTURE(n);
  const auto same = [&](const Floats& got, const Floats& want) {
    if (n > gemm_few_rows && n * w.rows * w.cols >= 1 << 18)
      CHECK(got == want);
    else
      CHECK(difference(got, want) < 1e-6);
  };
  on_every_cpu([&](const Cpu& q) {
    for (const Precision precision : {Precision::f32, Precision::bf16}) {
      const Cpu p = q.with(precision);
      Floats y = noise(n * w.rows, 7), want_y = y, dx = noise(n * w.cols, 8), want_dx = dx;
      stored_product(p, w, n, 0.5f, x.data(), w.cols, 1.f, y.data(), w.rows);
      training_gemm(p, n, w.rows, w.cols, 0.5f, row_major(x.data(), w.cols), transposed(dense.data(), w.cols), 1.f,
                    want_y.data(), w.rows);
      same(y, want_y);
      stored_input_gradient(p, w, n, 2.f, dy.data(), w.rows, 0.f, dx.data(), w.cols);
      training_gemm(p, n, w.cols, w.rows, 2.f, row_major(dy.data(), w.rows), row_major(dense.data(), w.cols), 0.f,
                    want_dx.data(), w.cols);
      same(dx, want_dx);
    }
  });
}

}  // namespace

TEST_CASE("a part of what is stored is that part of all of it, in every format") {
  std::vector<std::optional<Format>> all{std::nullopt};
  for (const FormatInfo& f : formats)
    if (holds_weights(f.format)) all.push_back(f.format);
  for (const auto format : all) {
    const Stored s = one(format, 5, 768);
    const Floats w = s.decoded();
    for (const Isa isa : every_level()) {
      Floats part = filled(3 * 310, unwritten);
      decode_part(isa, s.matrix.from(1, 4), 1, 3, 250, 300, part.data(), 310);
      for (std::int64_t r = 0; r < 3; ++r)
        CHECK(Floats(part.begin() + r * 310, part.begin() + r * 310 + 300) ==
              Floats(w.begin() + (r + 2) * 768 + 250, w.begin() + (r + 2) * 768 + 550));
    }
  }
}

TEST_CASE("products with a stored matrix are those with the decoded one") {
  check(one(std::nullopt, 130, 100), 67);  // blocks of NF4 go on in the next row
  check(one(std::nullopt, 40, 64), 1);
  check(one(Format::q4_0, 300, 544), 45);  // several blocks of depth, none whole
  check(one(Format::q6_k, 70, 768), 40);   // blocks longer than a strip's columns
  check(one(Format::f16, 33, 37), 5);
}

TEST_CASE("rows of several tensors, with a scale or many, are one matrix") {
  Stored s(150, 256);
  s.add(Format::q8_0, 64);
  s.add(std::nullopt, 30);
  s.add(Format::tq2_0, 56);
  const Floats plain = s.decoded(), scales = noise(64 * 4, 9);
  s.matrix.parts[0].scales = scales.data(), s.matrix.parts[0].group = 64, s.matrix.parts[2].scale = 3.f;
  const Floats w = s.decoded();
  CHECK(w[63 * 256 + 130] == scales[63 * 4 + 2] * plain[63 * 256 + 130]);
  CHECK(w[80 * 256] == plain[80 * 256]);
  CHECK(w[100 * 256] == 3.f * plain[100 * 256]);
  check(s, 48);
  const std::vector<std::int32_t> tokens{149, 0, 70};
  same_on_every_cpu([&](const Cpu& q) {
    Floats x = filled(3 * 256, unwritten);
    stored_embed(q, s.matrix, 3, tokens.data(), 2.f, x.data());
    for (std::size_t i = 0; i < x.size(); ++i)
      CHECK(x[i] == 2.f * w[static_cast<std::size_t>(tokens[i / 256]) * 256 + i % 256]);
    return x;
  });
}
