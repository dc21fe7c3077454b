#include <chimera/kernels/ternary/product.hpp>
#include <cmath>
#include <cstring>

#include "numeric.hpp"

using namespace chimera;

namespace {

/// The formulas of codes.hpp as they stand, a group and a row at a time.
struct Plain {
  TernaryShape s;
  Floats scales, weights;           // [out, groups], [out, in]
  std::vector<std::int64_t> codes;  // [out, in]

  Plain(const TernaryShape& shape, const Floats& w) : s(shape) {
    const auto mean = [&](std::int64_t from, std::int64_t n) {
      double sum = 0;
      for (std::int64_t i = from; i < from + n; ++i) sum += std::abs(double{w[static_cast<std::size_t>(i)]});
      return std::max(static_cast<float>(sum / static_cast<double>(n)), 1e-5f);
    };
    for (std::int64_t row = 0, begin = 0; row < s.out; ++row) {
      const std::int64_t end = part_end(s.parts, s.out, row);
      if (row > 0 && part_end(s.parts, s.out, row - 1) == row) begin = row;
      for (std::int64_t g = 0; g < s.groups(); ++g)
        scales.push_back(s.group > 0 ? mean(row * s.in + g * s.group, s.group)
                                     : mean(begin * s.in, (end - begin) * s.in));
    }
    for (std::int64_t i = 0; i < s.out * s.in; ++i) {
      const float scale = scales[static_cast<std::size_t>(i / s.group_size())];
      codes.push_back(std::lrint(std::clamp(w[static_cast<std::size_t>(i)] / scale, -1.f, 1.f)));
      weights.push_back(static_cast<float>(codes.back()) * scale);
    }
  }

  static float inverse_scale(const float* x, std::int64_t n) {
    float most = 1e-5f;
    for (std::int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
    return 127.f / most;
  }

  Floats product(const Floats& x, std::int64_t rows, std::int64_t ldx) const {
    Floats y;
    for (std::int64_t r = 0; r < rows; ++r) {
      const float* from = x.data() + r * ldx;
      const float a = inverse_scale(from, s.in);
      for (std::int64_t o = 0; o < s.out; ++o) {
        double sum = 0;
        for (std::int64_t i = 0; i < s.in; i += s.group_size()) {
          std::int64_t whole = 0;
          for (std::int64_t k = i; k < i + s.group_size(); ++k)
            whole += codes[static_cast<std::size_t>(o * s.in + k)] * std::lrint(a * from[k]);
          sum += static_cast<double>(whole) * double{scales[static_cast<std::size_t>((o * s.in + i) / s.group_size())]};
        }
        y.push_back(static_cast<float>(sum / double{a}));
      }
    }
    return y;
  }
};

const TernaryShape shapes[] = {
    {24, 64, 32}, {33, 256, 128}, {100, 96}, {7, 70}, {65, 513}, {200, 1024, 64}, {96, 64, 0, {48, 16, 32}}, {1, 4}};

Floats weights_of(const TernaryShape& s) {
  Floats w = noise(s.out * s.in, 5);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] *= w[i] * w[i] * (i < w.size() / 2 ? 0.1f : 0.05f);
  return w;
}

Floats scales_of(const Cpu& q, const TernaryShape& s, const Floats& w) {
  Floats scales = filled(s.out * s.groups(), unwritten);
  ternary_scales(q, s, w.data(), scales.data());
  return scales;
}

}  // namespace

TEST_CASE("ternary weights and rounded rows are those of the formulas, in the same bits at every level") {
  for (const TernaryShape& s : shapes) {
    CAPTURE(s.in);
    const Floats w = weights_of(s);
    const Plain plain(s, w);
    Floats first;
    for (const Isa isa : every_level())
      for (const int threads : {1, 2, 3}) {
        const Cpu q = cpu(isa, threads);
        const Floats scales = scales_of(q, s, w);
        Floats rounded = filled(s.out * s.in, unwritten), rows = rounded;
        ternary_weights(q, s, w.data(), scales.data(), rounded.data());
        rounded_rows(q, s.out, s.in, w.data(), s.in, rows.data());
        CHECK(difference(scales, plain.scales) < 1e-6);
        CHECK(difference(rounded, plain.weights) < 1e-6);
        for (std::size_t i = 0; i < rows.size(); ++i) {
          const std::size_t in = static_cast<std::size_t>(s.in);
          const float a = Plain::inverse_scale(w.data() + i / in * in, s.in);
          CHECK(rows[i] == doctest::Approx(static_cast<float>(std::lrint(a * w[i])) / a).epsilon(1e-6));
        }
        rounded.insert(rounded.end(), rows.begin(), rows.end());
        rounded.insert(rounded.end(), scales.begin(), scales.end());
        if (first.empty()) first = rounded;
        CHECK(rounded == first);
      }
  }
}

TEST_CASE("ternary products are those of the integers, in the same bits at every level and for any number of threads") {
  for (const TernaryShape& s : shapes)
    for (const std::int64_t rows : {1, 13, 47, 400}) {
      CAPTURE(s.in);
      CAPTURE(rows);
      const std::int64_t ldx = s.in + 3, ldy = s.out + 2;
      const Floats w = weights_of(s), x = noise(rows * ldx, 7), before = noise(rows * ldy, 8);
      const Floats plain = Plain(s, w).product(x, rows, ldx);
      Floats first;
      for (const Isa isa : every_level())
        for (const int threads : {1, 2, 3}) {
          CAPTURE(name(isa));
          const Cpu q = cpu(isa, threads);
          const Floats scales = scales_of(q, s, w);
          Floats y = before, alone = filled(rows * ldy, unwritten), want = before;
          ternary_product(q, s, rows, 0.5f, x.data(), ldx, w.data(), scales.data(), 1.f, y.data(), ldy);
          ternary_product(q, s, rows, 1.f, x.data(), ldx, w.data(), scales.data(), 0.f, alone.data(), ldy);
          for (std::size_t r = 0, i = 0; r < static_cast<std::size_t>(rows); ++r)
            for (std::size_t o = 0; o < static_cast<std::size_t>(s.out); ++o, ++i)
              want[r * static_cast<std::size_t>(ldy) + o] += 0.5f * plain[i];
          CHECK(difference(y, want) < 2e-6);
          Floats tight;
          for (std::int64_t r = 0; r < rows; ++r)
            tight.insert(tight.end(), alone.begin() + r * ldy, alone.begin() + r * ldy + s.out);
          CHECK(difference(tight, plain) < 2e-6);
          CHECK(std::isnan(alone.back()));
          y.insert(y.end(), tight.begin(), tight.end());
          if (first.empty()) first = y;
          CHECK(y == first);
        }
    }
}

TEST_CASE("a row that has what is no number, or infinite, gives nothing finite, and the rows beside it their own") {
  const TernaryShape s{40, 200};
  const Floats w = weights_of(s);
  Floats x = noise(20 * s.in, 3);
  const Floats want = Plain(s, w).product(x, 20, s.in);
  x[static_cast<std::size_t>(3 * s.in + 77)] = unwritten;
  x[static_cast<std::size_t>(9 * s.in)] = HUGE_VALF;
  for (const Isa isa : every_level()) {
    CAPTURE(name(isa));
    const Cpu q = cpu(isa, 1);
    const Floats scales = scales_of(q, s, w);
    Floats y = filled(20 * s.out, unwritten);
    ternary_product(q, s, 20, 1.f, x.data(), s.in, w.data(), scales.data(), 0.f, y.data(), s.out);
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t row = i / static_cast<std::size_t>(s.out);
      if (row == 3 || row == 9)
        CHECK(!std::isfinite(y[i]));
      else
        CHECK(y[i] == doctest::Approx(want[i]).epsilon(1e-4));
    }
  }
}

TEST_CASE("the longest row fits into a worker's scratch") {
  const TernaryShape s{3, 131'072, 64};
  const Floats w = weights_of(s), x = noise(15 * s.in, 2);
  const Floats want = Plain(s, w).product(x, 15, s.in);
  for (const Isa isa : every_level()) {
    if (isa == Isa::base) continue;  // slow
    const Cpu q = cpu(isa, 1);
    const Floats scales = scales_of(q, s, w);
    Floats y = filled(15 * s.out, unwritten);
    ternary_product(q, s, 15, 1.f, x.data(), s.in, w.data(), scales.data(), 0.f, y.data(), s.out);
    CHECK(difference(y, want) < 1e-5);
  }
}

TEST_CASE("deep zeros get no gradient, but where a group has too many of them") {
  const TernaryShape s{2, 64, 32};
  Floats w = noise(128, 4);
  for (std::size_t i = 32; i < 64; ++i) w[i] = i < 60 ? 0.001f : 1.f;  // a group of zeros
  const Floats g = noise(128, 6);
  on_every_cpu([&](const Cpu& q) {
    const Floats scales = scales_of(q, s, w);
    for (const DeepZero deep : {DeepZero{}, DeepZero{0.2f}, DeepZero{0.2f, 0.6f}}) {
      Floats dw = filled(128, 1.f);
      ternary_gradient(q, s, deep, w.data(), scales.data(), g.data(), dw.data());
      for (std::size_t i = 0; i < dw.size(); ++i) {
        const bool held = std::abs(w[i]) / scales[i / 32] < deep.depth && !(deep.most_zeros < 1.f && i / 32 == 1);
        CHECK(dw[i] == (held ? 1.f : 1.f + g[i]));
      }
    }
  });
}
