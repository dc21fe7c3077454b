// Rates of `gemm` at training shapes as shares of the measured peak.
//   gemm [--json] [THREADS]  the table
//   gemm THREADS -           answers lines "m n k a b" on stdin (layouts n or t) with the best seconds: see
//   gemm_torch.py
#include "figure.hpp"

#include <chimera/kernels/f32/gemm.hpp>
#include <chimera/kernels/roofline.hpp>

#include <cstdio>
#include <cstdlib>
#include <string_view>

using namespace chimera;

namespace {

struct Product {
  const char* name;
  std::int64_t m, n, k;
  char a, b;  // n: row-major, t: transposed in memory
};

constexpr Product products[] = {
    {"width 512, forward", 2048, 1536, 512, 'n', 't'},
    {"width 512, dX", 2048, 512, 1536, 'n', 'n'},
    {"width 512, dW", 1536, 512, 2048, 't', 'n'},
    {"vocab 4096, forward", 2048, 4096, 512, 'n', 't'},
    {"vocab 4096, dX", 2048, 512, 4096, 'n', 'n'},
    {"vocab 4096, dW", 4096, 512, 2048, 't', 'n'},
    {"Mamba in_proj, forward", 1024, 2320, 512, 'n', 't'},
    {"Mamba in_proj, dX", 1024, 512, 2320, 'n', 'n'},
    {"Mamba in_proj, dW", 2320, 512, 1024, 't', 'n'},
    {"width 128, forward", 768, 384, 128, 'n', 't'},
    {"width 128, dX", 768, 128, 384, 'n', 'n'},
    {"width 128, dW", 384, 128, 768, 't', 'n'},
    {"width 128, ffn", 768, 128, 512, 'n', 't'},
    {"decode, one token", 1, 4096, 512, 'n', 't'},
    {"decode, 8 tokens", 8, 4096, 512, 'n', 't'},
    {"matrix-vector", 4096, 1, 4096, 'n', 'n'},
};

double best(const Cpu& q, const Product& x, double budget) {
  const auto floats = [](std::int64_t rows, std::int64_t cols) { return static_cast<std::size_t>(rows * cols); };
  auto a = Buffer::create(floats(x.m, x.k)), b = Buffer::create(floats(x.k, x.n)), c = Buffer::create(floats(x.m, x.n));
  if (!a || !b || !c) return 0;
  const ConstView va = x.a == 't' ? transposed(a->data(), x.m) : row_major(a->data(), x.k);
  const ConstView vb = x.b == 't' ? transposed(b->data(), x.k) : row_major(b->data(), x.n);
  return roofline::best_seconds(budget, [&] { training_gemm(q, x.m, x.n, x.k, 1, va, vb, 0, c->data(), x.n); });
}

}  // namespace

int main(int argc, char** argv) {
  const bool json = take_flag(argc, argv, "--json");
  auto q = Cpu::create(argc > 1 ? std::atoi(argv[1]) : 0);
  if (!q) return 1;
  if (argc > 2) {
    Product x{};
    while (std::scanf("%ld %ld %ld %c %c", &x.m, &x.n, &x.k, &x.a, &x.b) == 5) {
      std::printf("%.9f\n", best(*q, x, 0.2));
      std::fflush(stdout);
    }
    return 0;
  }
  const Cpu rounding = q->with(Precision::bf16);
  const double bf16_peak = roofline::measure_peak_bf16(*q);
  for (const Product& x : products) {
    const double peak = roofline::measure_peak_f32(*q), operations = 2. * static_cast<double>(x.m * x.n * x.k);
    const double f32 = operations / best(*q, x, 0.3), bf16 = operations / best(rounding, x, 0.3);
    if (json) {
      write_json({std::string(x.name) + ", f32", f32 * 1e-9, "GFLOP/s", f32 / peak, "f32 peak"});
      write_json(
          {std::string(x.name) + ", BF16", bf16 * 1e-9, "GFLOP/s", bf16_peak > 0 ? bf16 / bf16_peak : 0, "BF16 peak"});
      continue;
    }
    std::printf("%-24s %5ld x %5ld x %5ld  %7.1f GFLOP/s  %3.0f %% of peak   bf16 %7.1f GFLOP/s, %4.2f x\n", x.name,
                x.m, x.n, x.k, f32 * 1e-9, 100 * f32 / peak, bf16 * 1e-9, bf16 / f32);
  }
}
