#include "numeric.hpp"

#include <chimera/kernels/f32/injection.hpp>

using namespace chimera;

namespace {

/// x of all rows; w: a_log, delta and input, one after the other.
Doubles reference(std::size_t width, const Doubles& w, const Doubles& h, const Doubles& e) {
  Doubles x(e.size());
  for (std::size_t i = 0; i < e.size(); ++i) {
    const std::size_t c = i % width;
    const double step = std::log1p(std::exp(w[width + c]));
    x[i] = std::exp(-step * std::exp(w[c])) * (h.empty() ? 0 : h[i]) + step * w[2 * width + c] * e[i];
  }
  return x;
}

}  // namespace

TEST_CASE("a loop forgets and takes in as the formula says, and so do its gradients") {
  for (const std::int64_t width : {1, 5, 64, 71}) {
    const std::int64_t rows = 131, n = rows * width;
    const Floats w = noise(3 * width, 1), h = noise(n, 2), e = noise(n, 3), dx = noise(n, 4);
    const InjectionWeights weights{w.data(), w.data() + width, w.data() + 2 * width};
    const auto size = static_cast<std::size_t>(width);
    same_on_every_cpu([&](const Cpu& q) {
      Floats x = filled(n, unwritten), first = x, dh = dx, de = e, dw = zeros(3 * width);
      inject(q, rows, width, weights, h.data(), e.data(), x.data());
      inject(q, rows, width, weights, nullptr, e.data(), first.data());
      CHECK(difference(x, reference(size, doubles(w), doubles(h), doubles(e))) <= 1e-6);
      CHECK(difference(first, reference(size, doubles(w), {}, doubles(e))) <= 1e-6);
      inject_backward(q, rows, width, weights, h.data(), e.data(), dh.data(), de.data(),
                      {dw.data(), dw.data() + width, dw.data() + 2 * width});
      for (std::size_t i = 0; i < de.size(); ++i) de[i] -= e[i];  // they are added
      check_gradient([&](const Doubles& v) { return inner_product(reference(size, doubles(w), v, doubles(e)), dx); }, h,
                     dh);
      check_gradient([&](const Doubles& v) { return inner_product(reference(size, doubles(w), doubles(h), v), dx); }, e,
                     de);
      check_gradient([&](const Doubles& v) { return inner_product(reference(size, v, doubles(h), doubles(e)), dx); }, w,
                     dw);
      Floats all = x;
      for (const Floats& part : {dh, de, dw}) all.insert(all.end(), part.begin(), part.end());
      return all;
    });
  }
}

TEST_CASE("what is kept is below 1 and above nothing, whatever the weights are") {
  const Cpu q = cpu(Isa::base, 1);
  const Floats a_log{-200.f, 0.f, 200.f, 200.f, -200.f}, delta{0.f, -200.f, 200.f, -200.f, 200.f}, one = filled(5, 1.f),
                                                                                                   none = zeros(5);
  Floats x = zeros(5), dx = one, de = zeros(5), dw = zeros(15);
  inject(q, 1, 5, {a_log.data(), delta.data(), one.data()}, one.data(), none.data(), x.data());
  for (const float kept : x) CHECK((kept >= 0.f && kept < 1.f));
  inject_backward(q, 1, 5, {a_log.data(), delta.data(), one.data()}, one.data(), none.data(), dx.data(), de.data(),
                  {dw.data(), dw.data() + 5, dw.data() + 10});
  for (const float g : dw) CHECK(std::isfinite(g));
}

TEST_CASE("a truncated normal law has its deviation and its ends, and the same draws on any threads") {
  same_on_every_cpu(
      [](const Cpu& q) {
        Floats x = filled(50'001, unwritten);
        truncated_normal(q, 50'001, 0.5f, 3, 4, x.data());
        double sum = 0, square = 0;
        for (const float v : x) {
          sum += static_cast<double>(v), square += static_cast<double>(v * v);
        }
        CHECK(std::abs(sum / 50'001) < 0.01);
        CHECK(std::sqrt(square / 50'001) == doctest::Approx(0.5 * 0.9866).epsilon(0.01));  // cut at 3 deviations
        const auto [least, most] = std::minmax_element(x.begin(), x.end());
        CHECK((*least >= -1.5f && *least < -1.3f && *most <= 1.5f && *most > 1.3f));
        return x;
      },
      0);
}

TEST_CASE("the mean change is that of a plain loop") {
  same_on_every_cpu([](const Cpu& q) {
    Floats found;
    for (const std::int64_t n : {1, 31, 1024, 4099}) {
      const Floats x = noise(n, 1), y = noise(n, 2);
      double sum = 0, change = 0;
      for (std::size_t i = 0; i < x.size(); ++i) sum += std::abs(static_cast<double>(x[i] - y[i]));
      mean_change(q, n, x.data(), y.data(), &change);
      CHECK(change == doctest::Approx(sum / static_cast<double>(n)).epsilon(1e-6));
      found.push_back(static_cast<float>(change));
    }
    return found;
  });
}
