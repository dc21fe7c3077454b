#include "numeric.hpp"

#include <chimera/kernels/f32/elementwise.hpp>

using namespace chimera;

namespace {

double silu_of(double x) { return x / (1 + std::exp(-x)); }
double relu2_of(double x) { return x > 0 ? x * x : 0; }
double gelu_of(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

/// Values from -8 to 8.
Floats wide(std::int64_t n, std::uint64_t seed) {
  Floats x = noise(n, seed);
  for (float& v : x) v *= 8.f;
  return x;
}

}  // namespace

TEST_CASE("sums, products and biases agree with plain loops at odd sizes") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t n : {1, 5, 16, 8195}) {
      CAPTURE(n);
      const Floats x = noise(n, 1), y = noise(n, 2);
      CHECK(std::abs(static_cast<double>(dot(q.isa(), n, x.data(), y.data())) - inner_product(x, y)) <=
            1e-5 * std::sqrt(static_cast<double>(n)));
      Floats z = y;
      add_scaled(q, n, 0.5f, x.data(), z.data());
      for (std::size_t i = 0; i < z.size(); ++i) z[i] -= y[i] + 0.5f * x[i];
      CHECK(difference(z, zeros(n)) <= 1e-3);
    }
    const std::int64_t rows = 37, n = 71, stride = 75;
    const Floats x = noise(rows * stride, 3);
    Floats sums = filled(n, 1.f);
    Doubles want(static_cast<std::size_t>(n), 1.0);
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t i = 0; i < n; ++i) want[i] += static_cast<double>(x[r * stride + i]);
    sum_rows(q, rows, stride, n, x.data(), sums.data());
    CHECK(difference(sums, want) <= 1e-6);
    Floats shifted = noise(rows * n, 4);
    const Floats before = shifted, bias = noise(n, 5);
    add_bias(q, rows, n, 1.f, bias.data(), shifted.data());
    for (std::size_t i = 0; i < shifted.size(); ++i)
      CHECK(shifted[i] == before[i] + bias[i % static_cast<std::size_t>(n)]);
    Floats copied = filled(rows * n + 1, 7.f);
    copy(q, rows * n, before.data(), copied.data());
    CHECK(std::equal(before.begin(), before.end(), copied.begin()));
    add_bias(q, rows, n, 0.5f, bias.data(), copied.data());
    for (std::size_t i = 0; i < shifted.size(); ++i)
      CHECK(copied[i] == before[i] + 0.5f * bias[i % static_cast<std::size_t>(n)]);
    zero(q, rows * n, copied.data());
    CHECK(std::count(copied.begin(), copied.end(), 0.f) == rows * n);
    CHECK(copied.back() == 7.f);
  });
}

TEST_CASE("gates of feed-forward layers and their gradients") {
  using Forward = void (*)(const Cpu&, std::int64_t, std::int64_t, const float*, float*);
  using Backward = void (*)(const Cpu&, std::int64_t, std::int64_t, float*, float*);
  struct Gate {
    double (*of)(double);
    bool gated;
    Forward forward;
    Backward backward;
  };
  on_every_cpu([](const Cpu& q) {
    for (const auto& [of, gated, run, run_backward] :
         {Gate{silu_of, true, swiglu, swiglu_backward}, Gate{gelu_of, true, geglu, geglu_backward},
          Gate{relu2_of, true, relu2_gate, relu2_gate_backward}, Gate{relu2_of, false, relu2, relu2_backward}}) {
      const std::size_t rows = 11, n = 13, row = gated ? 2 * n : n;
      const Floats gate_up = wide(static_cast<std::int64_t>(rows * row), 6), dh = noise(rows * n, 7);
      const auto forward = [&, of = of, gated = gated](const Doubles& x) {
        Doubles h;
        for (std::size_t r = 0; r < rows; ++r)
          for (std::size_t i = 0; i < n; ++i) h.push_back(of(x[r * row + i]) * (gated ? x[r * row + n + i] : 1.0));
        return h;
      };
      Floats h = filled(rows * n, unwritten);
      run(q, rows, n, gate_up.data(), h.data());
      CHECK(difference(h, forward(doubles(gate_up))) <= 1e-6);
      Floats gradient = gate_up, again = dh;
      run_backward(q, rows, n, gradient.data(), again.data());
      CHECK(difference(again, h) <= 1e-6);
      check_gradient([&](const Doubles& x) { return inner_product(forward(x), dh); }, gate_up, gradient);
    }
  });
}

TEST_CASE("the GELU gate and its gradients") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t n = 8207;
    const Floats a = wide(n, 8), b = noise(n, 9), dy = noise(n, 10);
    const auto loss = [&](const Doubles& u, const Doubles& v) {
      double sum = 0;
      for (std::size_t i = 0; i < u.size(); ++i) sum += static_cast<double>(dy[i]) * gelu_of(u[i]) * v[i];
      return sum;
    };
    Floats y = filled(n, unwritten), da = filled(n, unwritten), db = dy;
    gelu_gate(q, n, a.data(), b.data(), y.data());
    Doubles want;
    for (std::size_t i = 0; i < a.size(); ++i)
      want.push_back(gelu_of(static_cast<double>(a[i])) * static_cast<double>(b[i]));
    CHECK(difference(y, want) <= 1e-6);
    gelu_gate_backward(q, n, a.data(), b.data(), db.data(), da.data());
    check_gradient([&](const Doubles& u) { return loss(u, doubles(b)); }, a, da);
    check_gradient([&](const Doubles& v) { return loss(doubles(a), v); }, b, db);
  });
}

TEST_CASE("a soft cap is a tanh, and its gradient is of what it made") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t n = 8'195;
    const float cap = 3.f;
    const Floats x = wide(n, 11), dy = noise(n, 12);
    const auto capped = [&](const Doubles& u) {
      Doubles y;
      for (const double v : u) y.push_back(static_cast<double>(cap) * std::tanh(v / static_cast<double>(cap)));
      return y;
    };
    Floats y = x, dx = dy;
    soft_cap(q, n, cap, y.data());
    CHECK(difference(y, capped(doubles(x))) <= 1e-6);
    soft_cap_backward(q, n, cap, y.data(), dx.data());
    check_gradient([&](const Doubles& u) { return inner_product(capped(u), dy); }, x, dx);
  });
}

TEST_CASE("dropout drops its share, keeps the mean and repeats itself") {
  const std::int64_t n = 100'003;
  const auto dropped = [&](const Cpu& q, std::uint64_t key, std::uint64_t stream) {
    Floats x = filled(n, 1.f);
    dropout(q, n, 0.2f, key, stream, x.data());
    return x;
  };
  const Floats first = dropped(cpu(Isa::base, 1), 7, 3);
  const auto zero = std::count(first.begin(), first.end(), 0.f);
  CHECK(std::abs(static_cast<double>(zero) / static_cast<double>(n) - 0.2) < 0.005);
  CHECK(std::count(first.begin(), first.end(), 1.25f) == n - zero);
  CHECK(dropped(cpu(Isa::avx512, 3), 7, 3) == first);
  CHECK(dropped(cpu(Isa::base, 1), 7, 4) != first);
  CHECK(dropped(cpu(Isa::base, 1), 8, 3) != first);
}
