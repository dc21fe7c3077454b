#include "packed.hpp"

#include <chimera/layers/moe.hpp>

using namespace chimera;

namespace {

constexpr Config few{.vocab = 1,
                     .width = 16,
                     .layers = pattern("A+E"),
                     .moe = {.experts = 6, .top_k = 2, .expert_hidden = 16, .shared = false}};
constexpr Config with_shared = [] {
  Config c = few;
  c.moe.shared = true;
  return c;
}();
constexpr Config by_sigmoid = [] {
  Config c = with_shared;
  c.moe.score = ExpertScore::sigmoid, c.moe.top_k = 3;
  return c;
}();
/// Every token goes through all.
constexpr Config through_all = [] {
  Config c = few;
  c.moe.top_k = c.moe.experts;
  return c;
}();
constexpr Config through_all_sigmoid = [] {
  Config c = by_sigmoid;
  c.moe.top_k = c.moe.experts;
  return c;
}();
constexpr Config through_one = [] {
  Config c = few;
  c.moe.top_k = 1;
  return c;
}();

/// What a row of x becomes, in double.
template <class L>
Doubles plain(const Floats& w, const float* x) {
  const auto weight = [&](std::size_t p) { return w.data() + offsets<L>[p]; };
  const auto dot = [](const float* row, const auto* v, std::int64_t n) {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += double{row[i]} * double{v[i]};
    return sum;
  };
  const auto add_swiglu = [&](const float* in, const float* out, double scale, Doubles& y) {
    Doubles h(L::hidden);
    for (std::size_t i = 0; i < h.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const double gate = dot(in + row * L::width, x, L::width),
                   up = dot(in + (L::hidden + row) * L::width, x, L::width);
      h[i] = gate / (1 + std::exp(-gate)) * up;
    }
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] += scale * dot(out + static_cast<std::int64_t>(i) * L::hidden, h.data(), L::hidden);
  };
  Doubles score(L::experts), y(L::width, 0.);
  double sum = 0;
  for (std::size_t e = 0; e < score.size(); ++e) {
    const double logit = dot(weight(L::router) + static_cast<std::int64_t>(e) * L::width, x, L::width);
    score[e] = L::sizes.score == ExpertScore::sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit);
    sum += score[e];
  }
  if (L::sizes.score == ExpertScore::softmax)
    for (double& s : score) s /= sum;
  std::vector<std::size_t> order(score.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return score[a] + double{weight(L::balance)[a]} > score[b] + double{weight(L::balance)[b]};
  });
  order.resize(L::top_k);
  double chosen = 0;
  for (const std::size_t e : order) chosen += score[e];
  for (const std::size_t e : order)
    add_swiglu(weight(L::gate_up) + static_cast<std::int64_t>(e) * 2 * L::hidden * L::width,
               weight(L::down) + static_cast<std::int64_t>(e) * L::width * L::hidden, score[e] / chosen, y);
  if (L::sizes.shared) add_swiglu(weight(L::shared), weight(L::shared + 1), 1, y);
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("experts against plain loops", L, Moe<few>, Moe<with_shared>, Moe<by_sigmoid>, Moe<through_all>,
                   Moe<through_one>) {
  on_every_cpu([](const Cpu& q) {
    const Floats w = checks::weights_of<L>(1), x = noise(45 * L::width, 2);
    const Floats y = checks::forward<L>(q, w, {.sequences = 3, .length = 15}, x);
    for (std::int64_t t = 0; t < 45; ++t) {
      const Doubles want = plain<L>(w, x.data() + t * L::width);
      for (std::size_t i = 0; i < want.size(); ++i)
        CHECK(std::abs(double{y[static_cast<std::size_t>(t * L::width) + i]} - want[i]) <= 2e-6);
    }
  });
}

TEST_CASE_TEMPLATE("experts as a layer", L, Moe<through_all>,
                   Moe<through_all_sigmoid>) {  // what is chosen does not change
  SUBCASE("gradients") { checks::gradients<L>(33); }
}

TEST_CASE_TEMPLATE("experts as a layer", L, Moe<few>, Moe<with_shared>, Moe<by_sigmoid>, Moe<through_one>) {
  SUBCASE("accumulation") { checks::accumulation<L>(); }
  SUBCASE("packed documents") { checks::packed_documents<L>(150); }
  SUBCASE("determinism") { checks::determinism<L>(150); }
  SUBCASE("memory") { checks::memory_is_linear<L>(); }
}

TEST_CASE_TEMPLATE("decoding with experts", L, Moe<few>, Moe<with_shared>, Moe<by_sigmoid>, Moe<through_all>,
                   Moe<through_one>) {
  SUBCASE("in pieces and token by token") { checks::decodes<L>(50, {30, 1, 7}); }
  SUBCASE("together") { checks::decodes_together<L>(); }
  SUBCASE("in place") { checks::decodes_in_place<L>(); }
}

TEST_CASE("a gradient through few experts is that of the experts chosen") {
  using L = Moe<with_shared>;
  // A difference so small that no token changes its experts.
  const Cpu q = cpu(detect_isa(), 2);
  const Batch batch{.sequences = 1, .length = 24};
  Floats w = checks::weights_of<L>(1);
  const Floats x = noise(24 * L::width, 2), dy = noise(24 * L::width, 3);
  float* const balance = w.data() + offsets<L>[L::balance];
  for (std::int64_t e = 0; e < L::experts; ++e) balance[e] = 10.f * static_cast<float>(e);  // the choice is theirs
  const checks::Results r = checks::run<L>(q, w, batch, x, dy);
  for (const std::size_t p : {std::size_t{L::router}, std::size_t{L::gate_up}, std::size_t{L::down}}) {
    const Floats direction = noise(L::params[p].size(), 5);
    const auto loss = [&](float step) {
      Floats moved = w;
      for (std::size_t i = 0; i < direction.size(); ++i) moved[offsets<L>[p] + i] += step * direction[i];
      return inner_product(checks::forward<L>(q, moved, batch, x), dy);
    };
    double slope = 0, size = 1e-4;
    for (std::size_t i = 0; i < direction.size(); ++i) {
      const double g = double{r.dw[offsets<L>[p] + i]};
      slope += g * double{direction[i]}, size += g * g;
    }
    CHECK(std::abs((8 * (loss(0.01f) - loss(-0.01f)) - (loss(0.02f) - loss(-0.02f))) / 0.12 - slope) <=
          1e-3 * std::sqrt(size));
  }
  // Each token counts its experts once.
  CHECK(std::accumulate(r.dw.begin() + offsets<L>[L::balance], r.dw.begin() + offsets<L>[L::balance] + L::experts,
                        0.f) == 24.f * L::top_k);
}

TEST_CASE("routing: extreme logits, equal ones, and the terms of its own loss") {
  const Cpu q = cpu(detect_isa(), 2);
  const std::int64_t E = 5, n = 4;
  Floats logits{50, -50, 50, -50, 0, -50, -50, -50, -50, -50, 1, 1, 1, 1, 1, -300, -300, -300, 300, -300};
  const Floats balance{0, 0, 0, 0.001f, 0};
  for (const bool sigmoid_scores : {false, true}) {
    const ExpertShape s{E, 2, sigmoid_scores};
    checks::Memory memory(routing_bytes(s, n));
    Bump take = memory.bump();
    const Routing r = bind_routing(take, s, n);
    route(q, s, n, logits.data(), balance.data(), r);
    const std::vector<std::int32_t> experts(r.expert, r.expert + 2 * n);
    CHECK(experts[0] == 0);
    CHECK(experts[1] == 2);
    CHECK(experts[2] == 0);
    CHECK(experts[3] == 3);  // of equals the first, beside the one with a bias
    for (std::int64_t i = 0; i < 2 * n; i += 2) CHECK(r.weight[i] + r.weight[i + 1] == doctest::Approx(1));
    CHECK(r.first[E] == 2 * n);

    // d(a balance + b z) by differences in double.
    const auto loss = [&](const Floats& at) {
      double balanced = 0, z = 0;
      std::vector<double> mean(E);
      for (std::int64_t t = 0; t < n; ++t) {
        double top = -1e300, sum = 0;
        for (std::int64_t e = 0; e < E; ++e) top = std::max(top, double{at[static_cast<std::size_t>(t * E + e)]});
        for (std::int64_t e = 0; e < E; ++e) sum += std::exp(double{at[static_cast<std::size_t>(t * E + e)]} - top);
        for (std::size_t e = 0; e < mean.size(); ++e)
          mean[e] += std::exp(double{at[static_cast<std::size_t>(t * E) + e]} - top) / sum / n;
        z += std::pow(top + std::log(sum), 2) / n;
      }
      for (std::size_t e = 0; e < mean.size(); ++e)
        balanced += static_cast<double>(E) * mean[e] * static_cast<double>(r.first[e + 1] - r.first[e]) / n;
      return 0.5 * balanced + 0.01 * z;
    };
    Floats dlogits(logits.size()), counts(static_cast<std::size_t>(E)), none(2 * static_cast<std::size_t>(n));
    route_backward(q, s, n, logits.data(), r, none.data(), {0.5f, 0.01f}, dlogits.data(), counts.data());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      Floats up = logits, down = logits;
      up[i] += 0.0625f, down[i] -= 0.0625f;
      CHECK(double{dlogits[i]} == doctest::Approx((loss(up) - loss(down)) / 0.125).epsilon(1e-3));
    }
  }
}
