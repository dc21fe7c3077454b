#include "numeric.hpp"

#include <chimera/layers/embedding.hpp>

using namespace chimera;

namespace {

std::vector<std::int32_t> tokens_below(std::int32_t vocab, std::int64_t n, int ignore_every) {
  std::vector<std::int32_t> t;
  for (std::int64_t i = 0; i < n; ++i)
    t.push_back(ignore_every && i % ignore_every == 3 ? -1 : static_cast<std::int32_t>(i * i % 97 % vocab));
  return t;
}

}  // namespace

TEST_CASE("an embedding looks rows up, and its gradient adds them up") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t n = 75, width = 71, vocab = 11;
    const auto tokens = tokens_below(vocab, n, 0);
    const Floats table = noise(vocab * width, 1), dx = noise(n * width, 2);
    Floats x = filled(n * width, unwritten), dtable = filled(vocab * width, 1.f);
    Doubles want_x, want_table(dtable.size(), 1.0);
    for (std::int64_t i = 0; i < n * width; ++i) {
      const auto at = static_cast<std::size_t>(tokens[static_cast<std::size_t>(i / width)] * width + i % width);
      want_x.push_back(3 * static_cast<double>(table[at]));
      want_table[at] += 3 * static_cast<double>(dx[static_cast<std::size_t>(i)]);
    }
    embed(q, n, width, tokens.data(), 3.f, table.data(), x.data());
    CHECK(difference(x, want_x) <= 1e-7);
    embed_backward(q, n, width, tokens.data(), 3.f, dx.data(), dtable.data());
    CHECK(difference(dtable, want_table) <= 1e-6);
  });
}

TEST_CASE("the head's loss and gradients do not depend on how many rows it holds at once") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t vocab = 9, width = 5;
    const Head head{vocab, width, 0.5f};
    for (const std::int64_t n : {7, 4101}) {  // more rows than one block has
      CAPTURE(n);
      REQUIRE((n < 4096) == (head.rows(n) == n));
      const auto targets = tokens_below(vocab, n, 6);
      const Floats u = noise(n * width, 1), w = noise(vocab * width, 2);
      const auto loss = [&](const Doubles& a, const Doubles& b) {
        double sum = 0;
        for (std::size_t t = 0; t < static_cast<std::size_t>(n); ++t) {
          if (targets[t] < 0) continue;
          double total = 0, chosen = 0;
          for (std::size_t v = 0; v < vocab; ++v) {
            double logit = 0;
            for (std::size_t c = 0; c < width; ++c) logit += 2 * a[t * width + c] * b[v * width + c];
            total += std::exp(logit);
            if (static_cast<std::int32_t>(v) == targets[t]) chosen = logit;
          }
          sum += std::log(total) - chosen;
        }
        return sum;
      };
      Floats temp = room(head.temp_bytes(n)), du = u, dw = zeros(vocab * width);
      const double want = loss(doubles(u), doubles(w));
      TokenBatch batch;
      batch.length = n, batch.targets = targets.data();
      double sum = 0;
      head.loss(q, {}, batch, batch.targets, u.data(), {w.data()}, 1.f, nullptr, {}, &sum, Bump{temp.data()});
      CHECK(sum == doctest::Approx(want));
      // The loss is added; the gradient may take the place of the input.
      head.loss(q, {}, batch, batch.targets, du.data(), {w.data()}, 1.f, du.data(), {dw.data()}, &sum,
                Bump{temp.data()});
      CHECK(sum == doctest::Approx(2 * want));
      check_gradient([&](const Doubles& a) { return loss(a, doubles(w)); }, u, du);
      check_gradient([&](const Doubles& b) { return loss(doubles(u), b); }, w, dw);
    }
  });
}
