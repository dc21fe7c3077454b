#include <chimera/optim/adamw.hpp>

#include <chimera/core/random.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <vector>

using namespace chimera;

namespace {

/// Tensors of odd sizes, with and without decay, one of them longer than a block.
struct Arena {
  std::array<NamedTensor, 5> tensors;
  std::size_t floats = 0;

  Arena() {
    const std::array<std::int64_t, 5> sizes{30, 7, 40'001, 16, 1};
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      tensors[i].rows = 1, tensors[i].cols = sizes[i], tensors[i].offset = floats;
      tensors[i].role = i % 2 == 0 ? Role::matrix : Role::vector;
      floats += aligned_floats(static_cast<std::size_t>(sizes[i]));
    }
  }
  template <class F>
  void each(F&& f) const {
    for (const NamedTensor& t : tensors)
      for (std::size_t i = t.offset; i < t.offset + static_cast<std::size_t>(t.size()); ++i) f(i, t.decays());
  }
  std::vector<float> noise(std::uint64_t seed, float scale) const {
    std::vector<float> values(floats, 0.f);
    Random r{seed, 0};
    each([&](std::size_t i, bool) { values[i] = scale * r.normal(); });
    return values;
  }
};

std::vector<Isa> levels() {
  std::vector<Isa> all;
  for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512})
    if (isa <= detect_isa()) all.push_back(isa);
  return all;
}

double norm_of(const Cpu& q, const std::vector<float>& gradient) {
  const auto n = static_cast<std::int64_t>(gradient.size());
  std::vector<std::byte> temp(static_cast<std::size_t>(gradient_norm_bytes(n)));
  double norm = 0;
  gradient_norm(q, n, gradient.data(), &norm, Bump{temp.data()});
  return norm;
}

}  // namespace

TEST_CASE("ten steps agree with AdamW in double, clipped and not") {
  const Arena arena;
  const AdamWSettings settings{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};
  const double lr = 1e-2, clip = 1.0;
  for (Isa isa : levels()) {
    auto q = Cpu::create(2);
    REQUIRE(q);
    q->limit(isa);
    auto optimizer = AdamW::create(*q, arena.tensors, arena.floats, settings);
    REQUIRE(optimizer);
    std::vector<float> weights = arena.noise(1, 1.f);
    std::vector<double> w(weights.begin(), weights.end()), m(arena.floats), v(arena.floats);
    for (int t = 1; t <= 10; ++t) {
      std::vector<float> gradient = arena.noise(static_cast<std::uint64_t>(t) + 10, t % 3 ? 1.f : 1e-3f);
      double squares = 0;
      arena.each(
          [&](std::size_t i, bool) { squares += static_cast<double>(gradient[i]) * static_cast<double>(gradient[i]); });
      const double k = std::fmin(1.0, clip / (std::sqrt(squares) + 1e-6));
      arena.each([&](std::size_t i, bool decay) {
        const double g = static_cast<double>(gradient[i]) * k;
        m[i] = settings.beta1 * m[i] + (1 - settings.beta1) * g;
        v[i] = settings.beta2 * v[i] + (1 - settings.beta2) * g * g;
        if (decay) w[i] *= 1 - lr * settings.weight_decay;
        w[i] -= lr * (m[i] / (1 - std::pow(settings.beta1, t))) /
                (std::sqrt(v[i] / (1 - std::pow(settings.beta2, t))) + settings.epsilon);
      });
      const double norm = norm_of(*q, gradient);
      CHECK(norm == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
      optimizer->update(*q, weights.data(), gradient.data(),
                        {.number = t, .rate = lr, .scale = clip_factor(norm, clip)});
      double worst = 0;
      bool cleared = true;
      arena.each([&](std::size_t i, bool) {
        worst = std::fmax(worst, std::abs(static_cast<double>(weights[i]) - w[i]));
        cleared = cleared && gradient[i] == 0.f;
      });
      CHECK(worst < 2e-6);
      CHECK(cleared);
    }
    double worst = 0;
    arena.each([&](std::size_t i, bool) {
      worst = std::fmax(worst, std::abs(static_cast<double>(optimizer->first_moment()[i]) - m[i]));
      worst = std::fmax(worst, std::abs(static_cast<double>(optimizer->second_moment()[i]) - v[i]));
    });
    CHECK(worst < 1e-7);
  }
}

TEST_CASE("padding between tensors stays zero") {
  const Arena arena;
  auto q = Cpu::create(1);
  auto optimizer = AdamW::create(*q, arena.tensors, arena.floats, {});
  std::vector<float> weights = arena.noise(1, 1.f), gradient = arena.noise(2, 1.f);
  optimizer->update(*q, weights.data(), gradient.data(), {.rate = 1e-2});
  arena.each([&](std::size_t i, bool) { weights[i] = 0.f; });
  for (float x : weights) REQUIRE(x == 0.f);
}

TEST_CASE("the number of threads changes no bit; the norm is the same at every level too") {
  const Arena arena;
  std::vector<std::vector<float>> results;
  std::vector<double> norms;
  for (Isa isa : levels())
    for (int threads : {1, 2, 3}) {
      auto q = Cpu::create(threads);
      q->limit(isa);
      auto optimizer = AdamW::create(*q, arena.tensors, arena.floats, {});
      std::vector<float> weights = arena.noise(1, 1.f);
      for (int t = 1; t <= 3; ++t) {
        auto gradient = arena.noise(static_cast<std::uint64_t>(t), 1.f);
        norms.push_back(norm_of(*q, gradient));
        optimizer->update(*q, weights.data(), gradient.data(), {.number = t, .rate = 1e-2});
      }
      if (threads == 1) results.clear();
      results.push_back(weights);
      CHECK(std::memcmp(results[0].data(), weights.data(), weights.size() * sizeof(float)) == 0);
    }
  for (std::size_t i = 3; i < norms.size(); ++i) CHECK(norms[i] == norms[i % 3]);
}

TEST_CASE("an optimizer's state is named, and an update goes on from it") {
  const Arena arena;
  auto q = Cpu::create(1);
  auto first = AdamW::create(*q, arena.tensors, arena.floats, {}),
       second = AdamW::create(*q, arena.tensors, arena.floats, {});
  std::vector<float> weights = arena.noise(1, 1.f), gradient = arena.noise(2, 1.f);
  first->update(*q, weights.data(), gradient.data(), {.number = 1, .rate = 1e-2});
  REQUIRE(first->state().size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    const Section from = first->state()[i], to = second->state()[i];
    CHECK(from.name == (i == 0 ? "moment1" : "moment2"));
    CHECK(from.bytes.data() ==
          reinterpret_cast<const std::byte*>(i == 0 ? first->first_moment() : first->second_moment()));
    REQUIRE(from.bytes.size() == arena.floats * sizeof(float));
    std::memcpy(to.bytes.data(), from.bytes.data(), to.bytes.size());
  }
  std::vector<float> other = weights, gradient2 = arena.noise(3, 1.f), gradient3 = gradient2;
  AdamW moved = std::move(*second);
  first->update(*q, weights.data(), gradient2.data(), {.number = 2, .rate = 1e-2});
  moved.update(*q, other.data(), gradient3.data(), {.number = 2, .rate = 1e-2});
  CHECK(weights == other);
  CHECK(moved.state()[0].bytes.data() == reinterpret_cast<const std::byte*>(moved.first_moment()));
}
