#include <doctest/doctest.h>

#include <Eigen/Dense>
#include <chimera/kernels/f32/gemm.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

using namespace chimera;

namespace {

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

std::vector<float> noise(std::int64_t n, std::uint64_t state) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<std::int32_t>(state >> 32)) / 2147483648.f;
  }
  return x;
}

/// rows x cols in memory, row-major or transposed, with a gap behind each line.
struct Matrix {
  std::vector<float> data;
  ConstView view;
  Matrix(std::int64_t rows, std::int64_t cols, bool flip, std::uint64_t seed) {
    const std::int64_t stride = (flip ? rows : cols) + 3;
    data = noise((flip ? cols : rows) * stride, seed);
    view = flip ? transposed(data.data(), stride) : row_major(data.data(), stride);
  }
};

struct Shape {
  std::int64_t m, n, k;
};

/// Largest difference where C is, infinite for NaN or where the gap between rows has changed.
double difference(const std::vector<float>& c, const std::vector<float>& want, std::int64_t n, std::int64_t ldc) {
  double worst = 0;
  for (std::size_t i = 0; i < c.size(); ++i) {
    const bool gap = static_cast<std::int64_t>(i) % ldc >= n;
    if (gap && std::memcmp(&c[i], &want[i], sizeof(float)) != 0) return HUGE_VAL;
    if (!gap && !(std::abs(double{c[i]} - double{want[i]}) < HUGE_VAL)) return HUGE_VAL;
    if (!gap) worst = std::max(worst, std::abs(double{c[i]} - double{want[i]}));
  }
  return worst;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Devices of 1, 2 and 3 threads at a level this processor has.
std::vector<Cpu> teams(Isa isa) {
  std::vector<Cpu> all;
  for (int threads : {1, 2, 3}) {
    auto q = Cpu::create(threads);
    REQUIRE(q);
    q->limit(isa);
    if (q->isa() == isa) all.push_back(std::move(*q));
  }
  return all;
}

constexpr Isa levels[] = {Isa::base, Isa::avx2, Isa::avx512};

void check(const std::vector<Cpu>& devices, Shape s, ConstView a, ConstView b, float alpha, float beta) {
  CAPTURE(s.m);
  CAPTURE(s.n);
  CAPTURE(s.k);
  CAPTURE(alpha);
  CAPTURE(beta);
  const std::int64_t ldc = s.n + 2;
  std::vector<float> before = noise(s.m * ldc, 3);
  if (beta == 0) std::fill(before.begin(), before.end(), not_a_number);
  std::vector<float> want = before;
  gemm_reference(s.m, s.n, s.k, alpha, a, b, beta, want.data(), ldc);
  std::vector<float> first;
  for (const Cpu& q : devices) {
    CAPTURE(name(q.isa()));
    CAPTURE(q.threads());
    std::vector<float> serial = before, c = before;
    gemm_serial(q.isa(), q.scratch(0), s.m, s.n, s.k, alpha, a, b, beta, serial.data(), ldc);
    gemm(q, s.m, s.n, s.k, alpha, a, b, beta, c.data(), ldc);
    if (q.threads() == 1) first = c;
    CHECK(difference(c, want, s.n, ldc) <=
          2e-6 * (std::abs(alpha) * std::sqrt(static_cast<double>(s.k) + 1) + std::abs(beta)));
    CHECK(same_bits(c, serial));
    CHECK(same_bits(c, first));
  }
}

}  // namespace

TEST_CASE("gemm agrees with the reference, in the same bits for every number of threads") {
  const Shape shapes[] = {{1, 1, 1},       {1, 7, 300},     {9, 1, 33},     {6, 16, 8},     {5, 15, 7},
                          {7, 17, 9},      {64, 64, 64},    {65, 63, 67},   {13, 31, 257},  {14, 32, 256},
                          {40, 40, 40},    {100, 300, 100}, {169, 40, 513}, {2, 600, 40},   {40, 3, 600},
                          {34, 20, 2100},  {1, 700, 512},   {700, 1, 512},  {300, 530, 33}, {33, 1100, 90},
                          {1100, 35, 140}, {3, 5, 4097},    {4, 513, 140},  {4, 1025, 70},  {1025, 2, 140}};
  std::vector<Cpu> devices;
  for (Isa isa : levels)
    for (Cpu& q : teams(isa)) devices.push_back(std::move(q));
  for (const Shape& s : shapes)
    for (int flips = 0; flips < 4; ++flips) {
      CAPTURE(flips);
      const Matrix a(s.m, s.k, flips & 1, 1), b(s.k, s.n, flips & 2, 2);
      check(devices, s, a.view, b.view, 1, 0);
      check(devices, s, a.view, b.view, -0.5f, 1);
      check(devices, s, a.view, b.view, 2, 0.25f);
    }
}

TEST_CASE("gemm reads views that are contiguous in neither direction") {
  const std::vector<float> data = noise(200'000, 5);
  for (Isa isa : levels)
    for (const Shape& s : {Shape{1, 9, 40}, {9, 1, 40}, {70, 90, 80}})
      check(teams(isa), s, {data.data(), 2, 231}, {data.data(), 500, 3}, 1, 0.5f);
}

TEST_CASE("gemm agrees with Eigen") {
  using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  for (Isa isa : levels)
    for (const Cpu& q : teams(isa)) {
      RowMajor a = RowMajor::Random(230, 310), b = RowMajor::Random(310, 150), c = RowMajor::Random(230, 150);
      const RowMajor want = 0.75f * a * b - 2.f * c;
      gemm(q, 230, 150, 310, 0.75f, row_major(a.data(), 310), row_major(b.data(), 150), -2, c.data(), 150);
      CHECK((c - want).cwiseAbs().maxCoeff() < 3e-5f);
      const RowMajor d = 2.f * want.transpose() * a;
      RowMajor e(150, 310);
      gemm(q, 150, 310, 230, 2, transposed(want.data(), 150), row_major(a.data(), 310), 0, e.data(), 310);
      CHECK((e - d).cwiseAbs().maxCoeff() < 1e-6f * d.cwiseAbs().maxCoeff());
    }
}

/// To BF16, to nearest, as its bits say; numbers below the normal ones are 0.
float as_bf16(float x) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  bits += 0x7fff + (bits >> 16 & 1);
  bits &= 0xffff0000;
  std::memcpy(&x, &bits, 4);
  return std::fabs(x) < std::numeric_limits<float>::min() ? 0.f : x;
}

TEST_CASE(
    "products of BF16 are those of rounded numbers, in the same bits at every level and for every number of threads") {
  std::vector<Cpu> devices;
  for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512, Isa::avx512_bf16})
    for (Cpu& q : teams(isa)) devices.push_back(std::move(q));
  for (const Shape& s :
       {Shape{64, 64, 64}, {65, 63, 67}, {100, 300, 100}, {169, 40, 1031}, {34, 130, 2100}, {300, 33, 33}})
    for (int flips = 0; flips < 4; ++flips) {
      CAPTURE(s.k);
      CAPTURE(flips);
      const Matrix a(s.m, s.k, flips & 1, 1), b(s.k, s.n, flips & 2, 2);
      Matrix near_a = a, near_b = b;
      for (Matrix* m : {&near_a, &near_b})
        for (float& x : m->data) x = as_bf16(x);
      near_a.view.p = near_a.data.data(), near_b.view.p = near_b.data.data();
      const std::vector<float> before = noise(s.m * s.n, 3);
      std::vector<float> want = before, first;
      gemm_reference(s.m, s.n, s.k, 2, near_a.view, near_b.view, 1, want.data(), s.n);
      for (const Cpu& q : devices) {
        CAPTURE(name(q.isa()));
        std::vector<float> c = before;
        training_gemm(q.with(Precision::bf16), s.m, s.n, s.k, 2, a.view, b.view, 1, c.data(), s.n);
        if (first.empty()) first = c;
        CHECK(difference(c, want, s.n, s.n) <= 4e-6 * std::sqrt(static_cast<double>(s.k) + 1));
        CHECK(same_bits(c, first));
      }
    }
}

TEST_CASE("what is no number stays so in products of BF16, and what is below the normal numbers is nothing") {
  constexpr std::int64_t n = 64;
  std::vector<float> a(n * n, 1.f), b(n * n, 1.f), first;
  a[0] = not_a_number, a[n] = HUGE_VALF, a[2 * n] = -HUGE_VALF, a[2 * n + 1] = HUGE_VALF, a[3 * n] = 3.4e38f;
  for (std::int64_t i = 0; i < n; ++i) a[static_cast<std::size_t>(4 * n + i)] = 1e-39f;
  std::uint32_t loud = 0x7f800001;  // no number, whose bits of weight in BF16 are those of infinity
  std::memcpy(&a[5 * n], &loud, 4);
  for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512, Isa::avx512_bf16})
    for (const Cpu& q : teams(isa)) {
      std::vector<float> c(n * n);
      training_gemm(q.with(Precision::bf16), n, n, n, 1, row_major(a.data(), n), row_major(b.data(), n), 0, c.data(),
                    n);
      CHECK(std::isnan(c[0]));
      CHECK(c[n] == HUGE_VALF);
      CHECK(std::isnan(c[2 * n]));
      CHECK(c[3 * n] == HUGE_VALF);
      CHECK(c[4 * n] == 0);
      CHECK(std::isnan(c[5 * n]));
      CHECK(c[6 * n] == n);
    }
}

TEST_CASE("products in a batch are those products") {
  constexpr std::int64_t count = 3, m = 5, n = 4, k = 6, wide = count * k;
  const std::vector<float> a = noise(m * wide, 1), b = noise(count * k * n, 2);
  for (const Cpu& q : teams(best_isa(Isa::avx512))) {
    std::vector<float> together = noise(m * count * n, 3), apart = together;
    gemm_batched(q, count, m, n, k, 0.5f, row_major(a.data(), wide), k, row_major(b.data(), n), k * n, 2.f,
                 together.data(), count * n, n);
    for (std::int64_t i = 0; i < count; ++i)
      gemm(q, m, n, k, 0.5f, row_major(a.data() + i * k, wide), row_major(b.data() + i * k * n, n), 2.f,
           apart.data() + i * n, count * n);
    CHECK(same_bits(together, apart));
  }
}

TEST_CASE("an empty sum leaves beta C, an empty C is left alone") {
  for (Isa isa : levels)
    for (const Cpu& q : teams(isa)) {
      const std::vector<float> x = noise(100, 1);
      std::vector<float> c = {1, 2, 3, 4, 5, 6};
      gemm(q, 2, 2, 0, 1, row_major(x.data(), 1), row_major(x.data(), 2), 0.5f, c.data(), 3);
      CHECK(c == std::vector<float>{0.5f, 1, 3, 2, 2.5f, 6});
      gemm(q, 0, 2, 5, 1, row_major(x.data(), 5), row_major(x.data(), 2), 0, c.data(), 3);
      gemm(q, 2, 0, 5, 1, row_major(x.data(), 5), row_major(x.data(), 2), 0, c.data(), 3);
      CHECK(c == std::vector<float>{0.5f, 1, 3, 2, 2.5f, 6});
      c[0] = not_a_number;
      gemm_serial(isa, q.scratch(0), 2, 2, 0, 1, row_major(x.data(), 1), row_major(x.data(), 2), 0, c.data(), 3);
      CHECK(c == std::vector<float>{0, 0, 3, 0, 0, 6});
    }
}

TEST_CASE("NaN and infinity reach the rows and columns they belong to, and no other") {
  for (Isa isa : levels)
    for (const Cpu& q : teams(isa))
      for (bool flip : {false, true}) {
        const std::int64_t m = 70, n = 75, k = 66;
        Matrix a(m, k, flip, 1), b(k, n, flip, 2);
        const_cast<float&>(*a.view.from(69, 65).p) = not_a_number;
        const_cast<float&>(*b.view.from(3, 74).p) = HUGE_VALF;
        std::vector<float> c(static_cast<std::size_t>(m * n));
        gemm(q, m, n, k, 1, a.view, b.view, 0, c.data(), n);
        bool right = true;
        for (std::int64_t i = 0; i < m; ++i)
          for (std::int64_t j = 0; j < n; ++j) {
            const float x = c[static_cast<std::size_t>(i * n + j)];
            right &= i == 69 ? std::isnan(x) : j == 74 ? std::isinf(x) : std::isfinite(x);
          }
        CHECK(right);
      }
}

TEST_CASE("gemm_serial keeps to its part of the scratch") {
  auto q = Cpu::create(1);
  REQUIRE(q);
  const Matrix a(400, 600, false, 1), b(600, 1100, true, 2);
  std::vector<float> c(400 * 1100);
  for (Isa isa : levels) {
    q->limit(isa);
    std::vector<float> scratch(gemm_scratch_floats + 1000, not_a_number);
    gemm_serial(q->isa(), scratch.data(), 400, 1100, 600, 1, a.view, b.view, 0, c.data(), 1100);
    bool kept = true;
    for (std::size_t i = gemm_scratch_floats; i < scratch.size(); ++i) kept &= std::isnan(scratch[i]);
    CHECK(kept);
  }
}

// The body for wider vectors than the processor has, which the compiler splits: AVX-512's tile and packing on AVX2.
template <class Kernel, class Run = decltype(&Kernel::template run<4>)>
struct Doubled;
template <class Kernel, class... P>
struct Doubled<Kernel, void (*)(P...)> {
  template <int W>
  CHIMERA_INLINE static void run(P... a) {
    Kernel::template run<2 * W>(a...);
  }
};

TEST_CASE("tiles of twice the width give the same product") {
  auto q = Cpu::create(1);
  REQUIRE(q);
  for (Isa isa : {Isa::avx2, Isa::base}) {
    q->limit(isa);
    for (const Shape& s : {Shape{14, 32, 16}, {168, 64, 300}, {33, 45, 70}, {1, 100, 100}})
      for (int flips = 0; flips < 4; ++flips) {
        const Matrix a(s.m, s.k, flips & 1, 1), b(s.k, s.n, flips & 2, 2);
        std::vector<float> c(static_cast<std::size_t>(s.m * s.n), 1.f), want = c;
        float* const packed = q->shared();
        dispatch<Doubled<gemm_parts::PackB<gemm_parts::Floats>>>(q->isa(), b.view, s.n, s.k, packed, s.k, false);
        dispatch<Doubled<gemm_parts::MultiplyPacked<gemm_parts::Floats>>>(
            q->isa(), q->scratch(0), s.m, s.n, s.k, gemm_depth(s.k), 0.5f, a.view, static_cast<const float*>(packed),
            2.f, c.data(), s.n, false);
        gemm_reference(s.m, s.n, s.k, 0.5f, a.view, b.view, 2, want.data(), s.n);
        CHECK(difference(c, want, s.n, s.n) < 2e-5);
      }
  }
}

TEST_CASE("tasks of one product are equal and enough for all threads") {
  for (std::int64_t threads : {1, 2, 3, 16, 64})
    for (std::int64_t m : {40, 200, 512, 2048, 5000})
      for (std::int64_t n : {64, 512, 1536, 4096})
        for (std::int64_t tile_rows : {6, 14}) {
          const gemm_parts::GemmGrid grid = gemm_parts::gemm_grid(m, n, tile_rows, threads);
          CHECK(grid.rows % tile_rows == 0);
          CHECK(grid.rows <= gemm_rows);
          CHECK(grid.cols % 64 == 0);
          CHECK(grid.cols <= gemm_cols);
        }
  const gemm_parts::GemmGrid grid = gemm_parts::gemm_grid(2048, 1536, 6, 2);
  CHECK(((2048 + grid.rows - 1) / grid.rows) * ((1536 + grid.cols - 1) / grid.cols) % 2 == 0);
}
