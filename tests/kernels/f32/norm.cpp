#include "numeric.hpp"

#include <chimera/kernels/f32/norm.hpp>

using namespace chimera;

namespace {

/// y for u = x, or x silu(z) when z is not empty; z's rows lie z_stride apart.
Doubles reference(NormShape s, const Doubles& x, const Doubles& z, std::int64_t z_stride, const Doubles& w) {
  Doubles y(x.size());
  for (std::int64_t r = 0; r < s.rows; ++r)
    for (std::int64_t g = 0; g < s.width; g += s.group) {
      double squares = 0;
      for (std::int64_t i = g; i < g + s.group; ++i) {
        const auto at = static_cast<std::size_t>(r * s.width + i);
        y[at] = x[at];
        if (!z.empty()) {
          const double gate = z[static_cast<std::size_t>(r * z_stride + i)];
          y[at] *= gate / (1 + std::exp(-gate));
        }
        squares += y[at] * y[at];
      }
      for (std::int64_t i = g; i < g + s.group; ++i)
        y[static_cast<std::size_t>(r * s.width + i)] *=
            w[static_cast<std::size_t>(i)] /
            std::sqrt(squares / static_cast<double>(s.group) + static_cast<double>(s.eps));
    }
  return y;
}

}  // namespace

TEST_CASE("the root-mean-square norm and its gradients, more rows than one partial sum holds") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t width : {1, 7, 50}) {
      CAPTURE(width);
      const NormShape s{131, width, width, 1e-5f};
      const Floats x = noise(s.rows * width, 1), w = noise(width, 2), dy = noise(s.rows * width, 3);
      Floats y = filled(s.rows * width, unwritten), dx = zeros(s.rows * width), dw = zeros(width);
      Floats temp = room(norm_backward_bytes(s.rows, width));
      rms_norm(q, s, x.data(), w.data(), y.data());
      rms_norm_backward(q, s, x.data(), w.data(), dy.data(), dx.data(), dw.data(), Bump{temp.data()});
      CHECK(difference(y, reference(s, doubles(x), {}, 0, doubles(w))) <= 1e-6);
      check_gradient([&](const Doubles& v) { return inner_product(reference(s, v, {}, 0, doubles(w)), dy); }, x, dx,
                     1e-3);
      check_gradient([&](const Doubles& v) { return inner_product(reference(s, doubles(x), {}, 0, v), dy); }, w, dw);

      Floats twice = dx;
      rms_norm_backward(q, s, x.data(), w.data(), dy.data(), twice.data(), dw.data(), Bump{temp.data()});
      for (float& v : twice) v *= 0.5f;
      CHECK(difference(twice, dx) <= 1e-6);  // the gradient of the input is added
    }
  });
}

TEST_CASE("the gated norm over groups, with the gate's rows apart") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t groups : {1, 3}) {
      CAPTURE(groups);
      const std::int64_t width = 21, stride = 33;
      const NormShape s{70, width, width / groups, 1e-6f};
      const Floats x = noise(s.rows * width, 4), w = noise(width, 5), dy = noise(s.rows * width, 6);
      Floats z = noise(s.rows * stride, 7);
      for (float& v : z) v *= 4.f;
      Floats y = filled(s.rows * width, unwritten), dx = dy, dz = zeros(s.rows * stride), dw = zeros(width);
      Floats temp = room(norm_backward_bytes(s.rows, width));
      gated_rms_norm(q, s, x.data(), z.data(), stride, w.data(), y.data());
      gated_rms_norm_backward(q, s, x.data(), z.data(), stride, w.data(), dx.data(), dx.data(), dz.data(), dw.data(),
                              Bump{temp.data()});
      const auto loss = [&](const Doubles& a, const Doubles& b, const Doubles& c) {
        return inner_product(reference(s, a, b, stride, c), dy);
      };
      CHECK(difference(y, reference(s, doubles(x), doubles(z), stride, doubles(w))) <= 1e-6);
      check_gradient([&](const Doubles& v) { return loss(v, doubles(z), doubles(w)); }, x, dx, 1e-3);
      check_gradient([&](const Doubles& v) { return loss(doubles(x), v, doubles(w)); }, z, dz, 1e-3);
      check_gradient([&](const Doubles& v) { return loss(doubles(x), doubles(z), v); }, w, dw);
    }
  });
}

TEST_CASE("norms are the same bits for every number of threads") {
  same_on_every_cpu([](const Cpu& q) {
    const NormShape s{131, 50, 50, 1e-5f};
    const Floats x = noise(s.rows * s.width, 1), w = noise(s.width, 2), dy = noise(s.rows * s.width, 3);
    Floats y = zeros(s.rows * s.width), dx = y, dw = zeros(s.width), temp = room(norm_backward_bytes(s.rows, s.width));
    rms_norm(q, s, x.data(), w.data(), y.data());
    rms_norm_backward(q, s, x.data(), w.data(), dy.data(), dx.data(), dw.data(), Bump{temp.data()});
    y.insert(y.end(), dx.begin(), dx.end());
    y.insert(y.end(), dw.begin(), dw.end());
    return y;
  });
}
