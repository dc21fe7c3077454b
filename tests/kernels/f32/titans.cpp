#include "numeric.hpp"

#include <chimera/kernels/f32/titans.hpp>

using namespace chimera;

namespace {

/// What one block reads token after token, in double, and its memory in the end: gradients at the memory as it was at
/// the segment's start. Keys, values and queries [T,width], gates [T,3].
Doubles reference(const TitansShape& s, std::int64_t T, std::int64_t head, const Floats& k, const Floats& v,
                  const Floats& q, const Floats& gates, const std::vector<Floats>& m0) {
  const std::int64_t D = s.block();
  std::vector<Doubles> M, S, anchor;
  for (int m = 0; m < s.matrices(); ++m) {
    const auto from = m0[static_cast<std::size_t>(m)].begin() + head * s.matrix(m);
    M.emplace_back(from, from + s.matrix(m)), S.emplace_back(M.back().size(), 0.0);
  }
  const auto times = [](const Doubles& w, const Doubles& x) {
    Doubles y(w.size() / x.size(), 0.0);
    for (std::size_t i = 0; i < w.size(); ++i) y[i / x.size()] += w[i] * x[i % x.size()];
    return y;
  };
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  const auto silu = [&](Doubles x) {
    for (double& u : x) u *= sigmoid(u);
    return x;
  };
  Doubles out;
  for (std::int64_t t = 0; t < T; ++t) {
    const auto row = [&](const Floats& x) {
      const auto from = x.begin() + t * s.width + head * D;
      return Doubles(from, from + D);
    };
    if (t % s.segment == 0) anchor = M;
    const Doubles key = row(k), value = row(v), first = times(anchor[0], key), active = silu(first);
    Doubles error = s.hidden > 0 ? times(anchor[1], active) : first, back;
    for (std::size_t i = 0; i < error.size(); ++i) error[i] = 2 * (error[i] - value[i]);
    for (std::size_t i = 0; s.hidden > 0 && i < first.size(); ++i) {
      double sum = 0;
      for (std::size_t o = 0; o < error.size(); ++o) sum += anchor[1][o * first.size() + i] * error[o];
      const double g = sigmoid(first[i]);
      back.push_back(sum * g * (1 + first[i] * (1 - g)));
    }
    const float* gate = gates.data() + 3 * t;
    for (int m = 0; m < s.matrices(); ++m) {
      const Doubles &left = m == s.last() ? error : back, &right = m == 0 ? key : active;
      Doubles &w = M[static_cast<std::size_t>(m)], &momentum = S[static_cast<std::size_t>(m)];
      for (std::size_t i = 0; i < w.size(); ++i) {
        momentum[i] =
            double{gate[1]} * momentum[i] - double{gate[2]} * left[i / right.size()] * right[i % right.size()];
        w[i] = (1 - double{gate[0]}) * w[i] + momentum[i];
      }
    }
    Doubles read = times(M[0], row(q));
    if (s.hidden > 0) read = times(M[1], silu(read));
    out.insert(out.end(), read.begin(), read.end());
  }
  return out;
}

}  // namespace

TEST_CASE("the memory of Titans, by whole segments and token after token") {
  for (const TitansShape s : {TitansShape{21, 1, 1, 0, 5, 3, 0, 0}, TitansShape{300, 1, 1, 0, 9, 1, 0, 0},
                              TitansShape{10, 1, 1, 0, 1, 2, 7, 0}, TitansShape{12, 1, 1, 0, 16, 1, 20, 0}}) {
    const std::int64_t T = 37, width = s.width;
    CAPTURE(width);
    Floats k = noise(2 * T * width, 1), v = noise(2 * T * width, 2), query = noise(2 * T * width, 3),
           gates = noise(2 * T * 3, 4);
    for (std::size_t i = 0; i < k.size(); ++i) {
      k[i] /= std::sqrt(static_cast<float>(s.block())), query[i] /= std::sqrt(static_cast<float>(s.block()));
    }
    for (std::size_t i = 0; i < gates.size(); ++i)
      gates[i] = i % 3 == 0 ? 0.1f + 0.09f * gates[i] : i % 3 == 1 ? 0.5f + 0.4f * gates[i] : 0.05f + 0.04f * gates[i];
    std::vector<Floats> m0;
    for (int m = 0; m < s.matrices(); ++m) {
      m0.push_back(noise(s.memory_heads * s.matrix(m), 5));
      for (float& w : m0.back()) w /= std::sqrt(static_cast<float>(s.in(m)));
    }
    // The second row has two documents.
    const std::int64_t second = 11;
    std::vector<std::int32_t> start(static_cast<std::size_t>(2 * T), 0);
    for (std::int64_t t = second; t < T; ++t) start[static_cast<std::size_t>(T + t)] = second;
    std::vector<Doubles> want(static_cast<std::size_t>(s.memory_heads));
    for (std::int64_t head = 0; head < s.memory_heads; ++head)
      for (const auto& [from, end] :
           {std::pair(std::int64_t{0}, T), std::pair(T, T + second), std::pair(T + second, 2 * T)}) {
        const auto part = [&](const Floats& x, std::int64_t columns) {
          return Floats(x.begin() + from * columns, x.begin() + end * columns);
        };
        const Doubles read =
            reference(s, end - from, head, part(k, width), part(v, width), part(query, width), part(gates, 3), m0);
        Doubles& all = want[static_cast<std::size_t>(head)];
        all.insert(all.end(), read.begin(), read.end());
      }
    same_on_every_cpu([&](const Cpu& q) {
      const Batch batch{.sequences = 2, .length = T, .document_start = start.data()};
      Bump count;
      bind_titans_segments(count, 2 * T, s.steps(T)), bind_titans_tokens(count, s, 2 * T, true);
      Floats memory = room(static_cast<std::int64_t>(count.used)), states = zeros(titans_states(s, batch));
      Bump kept{memory.data()};
      const TitansSegments segments = bind_titans_segments(kept, 2 * T, s.steps(T));
      const TitansTokens tokens = bind_titans_tokens(kept, s, 2 * T, true);
      titans_segments(q, s, batch, tokens, nullptr, states.data(), nullptr, segments);
      for (std::int64_t r = 0; r < 2 * T; ++r) {
        const std::int64_t token = segments.token[r];
        float* row = tokens.rows + r * s.row();
        std::copy_n(k.data() + token * width, width, row + s.key(0));
        for (std::int64_t i = 0; i < width; ++i)
          row[s.error(s.last()) + i] = -2.f * v[static_cast<std::size_t>(token * width + i)];
        std::copy_n(query.data() + token * width, width, tokens.query[0] + r * width);
        std::copy_n(gates.data() + token * 3, 3, tokens.gates + r * 3);
      }
      const TitansMemory from{{m0[0].data(), m0.back().data()}};
      titans_steps(q, segments, TitansShape::training_columns, TitansOrder::forwards,
                   [&](const Cpu& on, const TitansStep& step) { titans_update(on, s, step, from, tokens); });
      Floats got = zeros(2 * T * width);
      titans_scatter(q, 2 * T, width, segments.token, tokens.read[s.last()], got.data());
      double most = 0;
      for (std::int64_t t = 0; t < 2 * T; ++t)
        for (std::int64_t c = 0; c < width; ++c)
          most = std::max(most, std::abs(double{got[static_cast<std::size_t>(t * width + c)]} -
                                         want[static_cast<std::size_t>(c / s.block())]
                                             [static_cast<std::size_t>(t * s.block() + c % s.block())]));
      CHECK(most <= 1e-5);
      return got;
    });
  }
}
