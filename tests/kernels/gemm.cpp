#include <chimera/kernels/gemm.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

using namespace chimera;

namespace {

struct Noise {
  std::uint64_t state;
  float operator()() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<std::int32_t>(state >> 32)) / 2147483648.f;
  }
};

std::vector<float> noise(std::int64_t n, std::uint64_t seed) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (Noise next{seed}; float& v : x) v = next();
  return x;
}

struct Shape {
  std::int64_t m, n, k;
};

constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// A matrix of rows x cols in memory with extra floats behind each line, in either layout.
struct Matrix {
  std::vector<float> data;
  ConstView view;
  Matrix(std::int64_t rows, std::int64_t cols, bool flip, std::int64_t extra, std::uint64_t seed) {
    const std::int64_t stride = (flip ? rows : cols) + extra;
    data = noise((flip ? cols : rows) * stride, seed);
    view = flip ? transposed(data.data(), stride) : row_major(data.data(), stride);
  }
};

void check(const Cpu& q, Shape s, bool flip_a, bool flip_b, float alpha, float beta, bool serial) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(flip_a);
  CAPTURE(flip_b);
  CAPTURE(alpha);
  CAPTURE(beta);
  CAPTURE(serial);
  CAPTURE(name(q.isa()));
  CAPTURE(q.threads());
  const Matrix a(s.m, s.k, flip_a, 3, 1), b(s.k, s.n, flip_b, 5, 2);
  const std::int64_t ldc = s.n + 2;
  std::vector<float> c = noise(s.m * ldc, 3);
  if (beta == 0) std::fill(c.begin(), c.end(), nan);
  std::vector<float> want = c;
  gemm_reference(s.m, s.n, s.k, alpha, a.view, b.view, beta, want.data(), ldc);
  if (serial)
    gemm_serial(q.isa(), q.scratch(0), s.m, s.n, s.k, alpha, a.view, b.view, beta, c.data(), ldc);
  else
    gemm(q, s.m, s.n, s.k, alpha, a.view, b.view, beta, c.data(), ldc);
  double worst = 0;
  bool gap_kept = true;
  for (std::int64_t i = 0; i < s.m; ++i)
    for (std::int64_t j = 0; j < ldc; ++j) {
      const auto at = static_cast<std::size_t>(i * ldc + j);
      if (j < s.n)
        worst = std::max(worst, std::isnan(c[at]) ? 1e9 : std::abs(double{c[at]} - double{want[at]}));
      else
        gap_kept &= std::memcmp(&c[at], &want[at], sizeof(float)) == 0;
    }
  CHECK(worst <= 2e-6 * (std::abs(alpha) * std::sqrt(static_cast<double>(s.k) + 1) + std::abs(beta)));
  CHECK(gap_kept);
}

}  // namespace

TEST_CASE("gemm agrees with the reference in every layout, at every level") {
  const Shape shapes[] = {{1, 1, 1},    {1, 7, 300},  {9, 1, 33},    {6, 16, 8},     {5, 15, 7},     {7, 17, 9},
                          {64, 64, 64}, {65, 63, 67}, {13, 31, 257}, {14, 32, 256},  {200, 530, 300}, {169, 40, 513},
                          {2, 600, 40}, {40, 3, 600}, {336, 100, 2100}, {1, 700, 512}, {700, 1, 512}};
  for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512})
    for (int threads : {1, 2, 3}) {
      auto q = Cpu::create(threads);
      REQUIRE(q);
      q->limit(isa);
      if (q->isa() != isa) continue;
      for (const Shape& s : shapes)
        for (int flips = 0; flips < 4; ++flips)
          for (auto [alpha, beta] : {std::pair{1.f, 0.f}, {-0.5f, 1.f}, {2.f, 0.25f}})
            for (bool serial : {false, true}) check(*q, s, flips & 1, flips & 2, alpha, beta, serial);
    }
}
