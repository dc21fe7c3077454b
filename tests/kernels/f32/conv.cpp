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
          Floats y = filled(B * T * C, unwritten), temp = room(conv_backward_bytes(s, batch));
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

TEST_CASE("the convolution is the same bits for every number of threads") {
  same_on_every_cpu([](const Cpu& q) {
    const std::int64_t B = 2, T = 101, C = 37;
    const ConvShape s{C, 4, C, C, true};
    const Batch batch{.sequences = B, .length = T};
    const Floats x = noise(B * T * C, 1), w = noise(C * 4, 2), bias = noise(C, 3);
    Floats dy = noise(B * T * C, 4), y = zeros(B * T * C), dx = y, dw = zeros(C * 4), db = zeros(C),
           temp = room(conv_backward_bytes(s, batch));
    causal_conv(q, s, batch, x.data(), w.data(), bias.data(), y.data(), Bump{temp.data()});
    causal_conv_backward(q, s, batch, x.data(), w.data(), bias.data(), dy.data(), dx.data(), dw.data(), db.data(),
                         Bump{temp.data()});
    for (const Floats& part : {dx, dw, db}) y.insert(y.end(), part.begin(), part.end());
    return y;
  });
}
