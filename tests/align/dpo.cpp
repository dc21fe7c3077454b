// Losses that compare two answers, and what is seen of them.
#include <chimera/align/dpo.hpp>

#include <doctest/doctest.h>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

using namespace chimera;

TEST_CASE("each loss falls as its slope says, and does not overflow") {
  for (const DpoLoss kind : {DpoLoss::sigmoid, DpoLoss::conservative, DpoLoss::robust, DpoLoss::ipo})
    for (const bool by_length : {false, true}) {
      CAPTURE(static_cast<int>(kind));
      Dpo dpo{.loss = kind, .beta = 0.4, .noise = 0.1, .by_length = by_length};
      const std::vector<std::int32_t> targets{-1, 3, 3, 3, -1, -1, 3, 3};
      const std::vector<float> reference{0, -1, -2, -3, 0, 0, -2, -1};
      TokenBatch batch;
      batch.sequences = 2, batch.length = 4, batch.targets = targets.data(), batch.reference = reference.data();
      const Objective o = dpo.objective();
      const auto loss = [&](std::vector<float> p, float* g) { return o.weigh(o.self, batch, p.data(), g); };
      std::vector<float> p{0, -1.5f, -1, -2, 0, 0, -3, -2}, g(8), unread(8);
      loss(p, g.data());
      for (const std::size_t t : {1u, 3u, 6u}) {
        std::vector<float> up = p, down = p;
        up[t] += 0.25f, down[t] -= 0.25f;
        CHECK((loss(down, unread.data()) - loss(up, unread.data())) / 0.5 == doctest::Approx(g[t]).epsilon(2e-2));
      }
      for (const float far : {-3e4f, 3e4f}) {
        p[1] = far;
        CHECK(std::isfinite(loss(p, g.data())));
        CHECK(std::isfinite(g[1]));
      }
    }
}

TEST_CASE("what is seen of pairs adds up until it is cleared") {
  Dpo dpo{.beta = 1};
  const std::vector<std::int32_t> targets{3, 3, 3, 3};
  const std::vector<float> p{-1, -2, -3, -1};
  std::vector<float> g(4);
  TokenBatch batch;
  batch.sequences = 4, batch.length = 1, batch.targets = targets.data();
  const Objective o = dpo.objective();
  o.weigh(o.self, batch, p.data(), g.data());
  o.weigh(o.self, batch, p.data(), g.data());
  CHECK(dpo.seen.pairs == 4);
  CHECK(dpo.seen.accuracy() == 0.5);
  CHECK(dpo.seen.mean_margin() == doctest::Approx(-0.5));
  dpo.seen = {};
  CHECK(dpo.seen.accuracy() == 0);
}
