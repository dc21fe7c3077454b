#include "numeric.hpp"

#include <chimera/kernels/f32/conv.hpp>

using namespace chimera;

namespace {

/// Everything in double.
Doubles reference(ConvShape s, const Batch& batch, const Doubles& x, const Doubles& w, const Doubles& bias) {
  Doubles y;
  for (std::int64_t t = 0; t < batch.tokens(); ++t)
    for (std::int64_t c = 0; c < s.channels; ++c) {
      const std::int64_t b = t / batch.length, time = t % batch.length,
                         start = batch.document_start ? batch.document_start[t] : 0;
      double sum = bias.empty() ? 0 : bias[static_cast<std::size_t>(c)];
      for (std::int64_t k = 0; k < s.taps; ++k) {
        const std::int64_t from = time - s.taps + 1 + k;
        if (from >= start)
          sum += w[static_cast<std::size_t>(c * s.taps + k)] *
                 x[static_cast<std::size_t>((b * batch.length + from) * s.x_stride + c)];
      }
      y.push_back(s.silu ? sum / (1 + std::exp(-sum)) : sum);
    }
  return y;
}

}  // namespace

TEST_CASE("the convolution and its gradients, with documents shorter than its taps") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t taps : {1, 3, 4, 8})
      for (const bool silu : {false, true}) {
        CAPTURE(taps);
        CAPTURE(silu);
        const std::int64_t B = 2, T = 71, C = 13;
        const ConvShape s{C, taps, C + 4, C, silu};
        const std::vector<std::int32_t> start = documents(T, {{1, 2, 5, 40}, {69, 1}});
        for (const std::int32_t* documents_of : {static_cast<const std::int32_t*>(nullptr), start.data()}) {
          const Batch batch{.sequences = B, .length = T, .document_start = documents_of};
          const Floats x = noise(B * T * s.x_stride, 1), w = noise(C * taps, 2), bias = noise(C, 3),
                       dy = noise(B * T * C, 4);
          Floats y = filled(B * T * C, unwritten), temp = filled(conv_backward_temp(s, batch), unwritten);
          causal_conv(q, s, batch, x.data(), w.data(), bias.data(), y.data(), Bump{temp.data()});
          CHECK(difference(y, reference(s, batch, doubles(x), doubles(w), doubles(bias))) <= 1e-6);
          causal_conv(q, s, batch, x.data(), w.data(), nullptr, y.data(), Bump{temp.data()});
          CHECK(difference(y, reference(s, batch, doubles(x), doubles(w), {})) <= 1e-6);

          Floats g = dy, dx = zeros(B * T * s.x_stride), dw = zeros(C * taps), db = zeros(C);
          causal_conv_backward(q, s, batch, x.data(), w.data(), bias.data(), g.data(), dx.data(), dw.data(), db.data(),
                               Bump{temp.data()});
          const auto loss = [&](const Doubles& a, const Doubles& b, const Doubles& c) {
            return inner_product(reference(s, batch, a, b, c), dy);
          };
          check_gradient([&](const Doubles& v) { return loss(v, doubles(w), doubles(bias)); }, x, dx);
          check_gradient([&](const Doubles& v) { return loss(doubles(x), v, doubles(bias)); }, w, dw);
          check_gradient([&](const Doubles& v) { return loss(doubles(x), doubles(w), v); }, bias, db);
        }
      }
  });
}

namespace {

/// In runs of these lengths, each in two halves of the channels, the past in a ring.
template <std::int64_t taps>
void check_runs(const Cpu& q, const std::vector<std::int64_t>& lengths) {
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
      conv_run<taps>(q.isa(), s, count, n, at, in, ring.data() + c, transposed.data() + c, bias.data() + c,
                     y.data() + at * s.y_stride + c);
      conv_remember(s, count, n, at, in, ring.data() + c);
    }
    at += n;
  }
  for (std::int64_t t = 0; t < T; ++t)
    got.insert(got.end(), y.begin() + t * s.y_stride, y.begin() + t * s.y_stride + C);
  CHECK(difference(got, reference(s, {.sequences = 1, .length = T}, doubles(x), doubles(w), doubles(bias))) <= 1e-6);
}

}  // namespace

TEST_CASE("runs of one sequence are its convolution, even when they have fewer tokens than taps") {
  on_every_cpu([](const Cpu& q) {
    if (q.threads() > 1) return;  // it is serial
    for (const auto& lengths :
         {std::vector<std::int64_t>{1, 1, 2, 10, 1, 8}, {3, 3, 3, 3}, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}}) {
      check_runs<1>(q, lengths);
      check_runs<2>(q, lengths);
      check_runs<3>(q, lengths);
      check_runs<4>(q, lengths);
      check_runs<5>(q, lengths);
      check_runs<6>(q, lengths);
      check_runs<7>(q, lengths);
      check_runs<8>(q, lengths);
    }
  });
}

TEST_CASE("the convolution is the same bits for every number of threads") {
  same_on_every_cpu([](const Cpu& q) {
    const std::int64_t B = 2, T = 101, C = 37;
    const ConvShape s{C, 4, C, C, true};
    const Batch batch{.sequences = B, .length = T};
    const Floats x = noise(B * T * C, 1), w = noise(C * 4, 2), bias = noise(C, 3);
    Floats dy = noise(B * T * C, 4), y = zeros(B * T * C), dx = y, dw = zeros(C * 4), db = zeros(C),
           temp = zeros(conv_backward_temp(s, batch));
    causal_conv(q, s, batch, x.data(), w.data(), bias.data(), y.data(), Bump{temp.data()});
    causal_conv_backward(q, s, batch, x.data(), w.data(), bias.data(), dy.data(), dx.data(), dw.data(), db.data(),
                         Bump{temp.data()});
    for (const Floats& part : {dx, dw, db}) y.insert(y.end(), part.begin(), part.end());
    return y;
  });
}
