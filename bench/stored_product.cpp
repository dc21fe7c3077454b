// Rates of training's products with a frozen matrix that stays as it is stored, as shares of those with f32, taken in
// turns: W [out, in] of a product with `rows` rows, forward and for the gradient of its input.
// usage: stored_product [ROWS]
#include <chimera/kernels/f32/stored_product.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

using namespace chimera;

namespace {

using Shape = std::pair<std::int64_t, std::int64_t>;
constexpr std::optional<Format> nf4;

template <class F>
double seconds(F f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<float> numbers(std::int64_t n) {
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 1013) / 506.f - 1.f;
  return x;
}

}  // namespace

int main(int argc, char** argv) {
  const auto cpu = Cpu::create();
  if (!cpu) return 1;
  const std::int64_t n = argc > 1 ? std::atoi(argv[1]) : 512;
  for (const auto& [out, in] : {Shape{4096, 1024}, Shape{1536, 1536}, Shape{1536, 4096}})
    for (const Precision precision : {Precision::f32, Precision::bf16}) {
      const Cpu q = cpu->with(precision);
      const std::vector<float> w = numbers(out * in), x = numbers(n * in), dy = numbers(n * out);
      std::vector<float> y(dy.size()), dx(x.size());
      std::printf("%4ld x %4ld x %4ld, %s", n, out, in, precision == Precision::f32 ? "f32, " : "bf16,");
      for (const std::optional<Format> format :
           {nf4, std::optional(Format::q4_0), std::optional(Format::q4_k), std::optional(Format::q6_k),
            std::optional(Format::q8_0), std::optional(Format::f16), std::optional(Format::tq2_0)}) {
        auto memory =
            Buffer::of_bytes(format ? static_cast<std::size_t>(format_bytes(*format, out * in)) : Nf4::bytes(out * in));
        if (!memory) return 1;
        StoredMatrix stored = StoredMatrix::of(Nf4::at(memory->bytes(), out * in), out, in);
        if (format) stored.parts[0].format = *format, stored.parts[0].data = memory->bytes();
        if (!(format ? encode(q, *format, w.data(), out * in, memory->bytes())
                     : encode_nf4(q, w.data(), out * in, memory->bytes())))
          return 1;
        double best[4] = {1e9, 1e9, 1e9, 1e9};
        for (int turn = 0; turn < 7; ++turn) {
          const double now[4] = {
              seconds([&] {
                training_gemm(q, n, out, in, 1.f, row_major(x.data(), in), transposed(w.data(), in), 0.f, y.data(),
                              out);
              }),
              seconds([&] { stored_product(q, stored, n, 1.f, x.data(), in, 0.f, y.data(), out); }), seconds([&] {
                training_gemm(q, n, in, out, 1.f, row_major(dy.data(), out), row_major(w.data(), in), 0.f, dx.data(),
                              in);
              }),
              seconds([&] { stored_input_gradient(q, stored, n, 1.f, dy.data(), out, 0.f, dx.data(), in); })};
          for (int i = 0; i < 4; ++i) best[i] = std::min(best[i], now[i]);
        }
        std::printf("  %s %.2f %.2f", format ? format_info(*format)->name.data() : "NF4", best[0] / best[1],
                    best[2] / best[3]);
      }
      std::printf("\n");
    }
}
