#include "numeric.hpp"

#include <chimera/kernels/cached/conv.hpp>

using namespace chimera;

namespace {

/// In runs of these lengths, each in two halves of the channels, the past in a ring.
void check_runs(const Cpu& q, std::int64_t taps, const std::vector<std::int64_t>& lengths) {
  const std::int64_t C = 21, half = 9;
  std::int64_t T = 0;
  for (const std::int64_t n : lengths) T += n;
  const ConvShape s{C, taps, C + 2, C + 1, taps % 2 == 0};
  const Floats x = noise(T * s.x_stride, 1), w = noise(C * taps, 2), bias = noise(C, 3);
  Floats transposed = zeros(C * taps), ring = zeros(C * taps), y = zeros(T * s.y_stride), got;
  transpose_taps(s, w.data(), transposed.data());
  std::int64_t at = 0;
  for (const std::int64_t n : lengths) {
    for (const std::int64_t c : {std::int64_t{0}, half}) {
      const std::int64_t count = c == 0 ? half : C - half;
      const float* in = x.data() + at * s.x_stride + c;
      conv_run(q.isa(), s, count, n, at, in, ring.data() + c, transposed.data() + c, bias.data() + c,
               y.data() + at * s.y_stride + c);
      conv_remember(s, count, n, at, in, ring.data() + c);
    }
    at += n;
  }
  for (std::int64_t t = 0; t < T; ++t)
    got.insert(got.end(), y.begin() + t * s.y_stride, y.begin() + t * s.y_stride + C);
  Floats want = zeros(T * s.y_stride), whole, temp = room(conv_bytes(s));
  causal_conv(q, s, {.sequences = 1, .length = T}, x.data(), w.data(), bias.data(), want.data(), Bump{temp.data()});
  for (std::int64_t t = 0; t < T; ++t)
    whole.insert(whole.end(), want.begin() + t * s.y_stride, want.begin() + t * s.y_stride + C);
  CHECK(got == whole);
}

}  // namespace

TEST_CASE("runs of one sequence are its convolution, even when they have fewer tokens than taps") {
  on_every_cpu([](const Cpu& q) {
    if (q.threads() > 1) return;  // it is serial
    for (const auto& lengths :
         {std::vector<std::int64_t>{1, 1, 2, 10, 1, 8}, {3, 3, 3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}) {
      for (std::int64_t taps = 1; taps <= conv_max_taps; ++taps) check_runs(q, taps, lengths);
    }
  });
}
