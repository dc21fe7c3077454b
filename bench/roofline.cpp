// Prints what this machine can do at most, with one thread and with all.
//   roofline [--json]
#include "figure.hpp"

#include <chimera/kernels/roofline.hpp>

#include <cstdio>

using namespace chimera;

int main(int argc, char** argv) {
  const bool json = take_flag(argc, argv, "--json");
  if (!json)
    std::printf("%8s %14s %14s %14s %14s\n", "threads", "read, GB/s", "f32, GFLOP/s", "int8, GOP/s", "BF16, GFLOP/s");
  for (int threads : {1, 0}) {
    auto q = Cpu::create(threads);
    if (!q) return std::fprintf(stderr, "%s\n", q.error().message.c_str()), 1;
    const auto read = roofline::measure_read_bandwidth(*q);
    if (!read) return std::fprintf(stderr, "%s\n", read.error().message.c_str()), 1;
    const double f32 = roofline::measure_peak_f32(*q) * 1e-9, int8 = roofline::measure_peak_int8(*q) * 1e-9,
                 bf16 = roofline::measure_peak_bf16(*q) * 1e-9;
    if (json) {
      const std::string of = std::to_string(q->threads()) + (q->threads() == 1 ? " thread: " : " threads: ");
      write_json({of + "read", *read * 1e-9, "GB/s"});
      write_json({of + "f32", f32, "GFLOP/s"});
      write_json({of + "int8", int8, "GOP/s"});
      if (bf16 > 0) write_json({of + "BF16", bf16, "GFLOP/s"});
      continue;
    }
    std::printf("%8d %14.1f %14.1f %14.1f %14.1f\n", q->threads(), *read * 1e-9, f32, int8, bf16);
    if (threads == 0) std::printf("vectors: %s; int8: %s\n", name(q->isa()).data(), roofline::best_int8(q->isa()).name);
  }
}
