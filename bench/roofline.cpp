// Prints what this machine can do at most, with one thread and with all.
#include <chimera/kernels/roofline.hpp>

#include <cstdio>

using namespace chimera;

int main() {
  std::printf("%8s %14s %14s %14s\n", "threads", "read, GB/s", "f32, GFLOP/s", "int8, GOP/s");
  for (int threads : {1, 0}) {
    auto q = Cpu::create(threads);
    if (!q) return std::fprintf(stderr, "%s\n", q.error().message.c_str()), 1;
    const auto read = roofline::measure_read_bandwidth(*q);
    if (!read) return std::fprintf(stderr, "%s\n", read.error().message.c_str()), 1;
    std::printf("%8d %14.1f %14.1f %14.1f\n", q->threads(), *read * 1e-9, roofline::measure_peak_f32(*q) * 1e-9,
                roofline::measure_peak_int8(*q) * 1e-9);
    if (threads == 0) std::printf("vectors: %s; int8: %s\n", name(q->isa()).data(), roofline::best_int8(q->isa()).name);
  }
}
