// Rates of ternary products at training shapes as shares of the measured int8 peak: with all that is done to x and to
// W each time.
// usage: ternary [THREADS]
#include <chimera/kernels/roofline.hpp>
#include <chimera/kernels/ternary/product.hpp>

#include <cstdio>
#include <cstdlib>

using namespace chimera;

int main(int argc, char** argv) {
  auto q = Cpu::create(argc > 1 ? std::atoi(argv[1]) : 0);
  if (!q) return 1;
  constexpr std::int64_t rows = 4096;
  for (const std::int64_t in : {256, 512, 1024})
    for (const std::int64_t out : {256, 1024})
      for (const std::int64_t group : {0, 128}) {
        const TernaryShape s{out, in, group};
        auto x = Buffer::create(static_cast<std::size_t>(rows * in)),
             w = Buffer::create(static_cast<std::size_t>(out * in));
        auto y = Buffer::create(static_cast<std::size_t>(rows * out));
        auto scales = Buffer::create(static_cast<std::size_t>(out * s.groups()));
        if (!x || !w || !y || !scales) return 1;
        for (std::int64_t i = 0; i < rows * in; ++i) x->data()[i] = static_cast<float>(i * 7919 % 1013) - 500.f;
        for (std::int64_t i = 0; i < out * in; ++i) w->data()[i] = static_cast<float>(i * 7919 % 1009) - 504.f;
        const double peak = roofline::measure_peak_int8(*q), operations = 2. * static_cast<double>(rows * in * out);
        const double seconds = roofline::best_seconds(0.3, [&] {
          ternary_scales(*q, s, w->data(), scales->data());
          ternary_product(*q, s, rows, 1.f, x->data(), in, w->data(), scales->data(), 0.f, y->data(), out);
        });
        std::printf("%4ld x %4ld x %4ld, group %3ld  %7.1f GOP/s  %3.0f %% of peak\n", rows, out, in, group,
                    operations / seconds * 1e-9, 100 * operations / seconds / peak);
      }
}
