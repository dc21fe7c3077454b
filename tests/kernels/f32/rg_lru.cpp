#include "numeric.hpp"

#include <chimera/kernels/f32/rg_lru.hpp>

using namespace chimera;

namespace {

double sigma(double x) { return 1 / (1 + std::exp(-x)); }

struct Inputs {
  Doubles x, r, i, lambda, initial;
};

/// h of every token, then the last h of each sequence.
Doubles reference(std::int64_t channels, const Batch& batch, const Inputs& in) {
  Doubles h, last;
  const auto C = static_cast<std::size_t>(channels);
  for (std::size_t at = 0; at < static_cast<std::size_t>(batch.tokens()); ++at)
    for (std::size_t c = 0; c < C; ++c) {
      const auto b = at / static_cast<std::size_t>(batch.length), t = at % static_cast<std::size_t>(batch.length);
      const bool fresh = batch.document_start ? batch.document_start[at] == static_cast<std::int32_t>(t)
                                              : t == 0 && batch.position == 0;
      const double past = t > 0 ? h[(at - 1) * C + c] : in.initial.empty() ? 0 : in.initial[b * C + c];
      const double log_a = -8 * std::log1p(std::exp(in.lambda[c])) * sigma(in.r[at * C + c]);
      const double gated = sigma(in.i[at * C + c]) * in.x[at * C + c];
      h.push_back(fresh ? gated : std::exp(log_a) * past + std::sqrt(-std::expm1(2 * log_a)) * gated);
      if (t + 1 == static_cast<std::size_t>(batch.length)) last.push_back(h.back());
    }
  h.insert(h.end(), last.begin(), last.end());
  return h;
}

struct Values {
  Floats x, r, i, lambda, initial;

  Values(std::int64_t channels, const Batch& batch)
      : x(noise(batch.tokens() * channels, 1)),
        r(noise(batch.tokens() * channels, 2)),
        i(noise(batch.tokens() * channels, 3)),
        lambda(noise(channels, 4)),
        initial(noise(batch.sequences * channels, 5)) {
    for (float& v : r) v *= 3.f;
    for (float& v : lambda) v = -3.f + 2.5f * v;
  }
};

/// h and the last state, then the gradients of x, r, i, lambda and the initial state.
std::vector<Floats> run(const Cpu& q, std::int64_t C, const Batch& batch, const Values& v, bool carried,
                        const Floats& dh, const Floats& dlast) {
  const float* initial = carried ? v.initial.data() : nullptr;
  const std::int64_t n = batch.tokens() * C, states = batch.sequences * C;
  Floats h = filled(n, unwritten), last = filled(states, unwritten), dx = h, dr = h, di = h, dlambda = zeros(C),
         dinitial = last;
  Floats temp = room(rg_lru_backward_bytes(C, batch));
  rg_lru(q, C, batch, v.x.data(), v.r.data(), v.i.data(), v.lambda.data(), initial, h.data(), last.data());
  rg_lru_backward(q, C, batch, v.x.data(), v.r.data(), v.i.data(), v.lambda.data(), initial, h.data(), dh.data(),
                  {.dx = dx.data(),
                   .dr = dr.data(),
                   .di = di.data(),
                   .dlambda = dlambda.data(),
                   .dlast = dlast.data(),
                   .dinitial = dinitial.data()},
                  Bump{temp.data()});
  h.insert(h.end(), last.begin(), last.end());
  return {h, dx, dr, di, dlambda, dinitial};
}

}  // namespace

TEST_CASE("the recurrence and its gradients, fresh, continued and with documents") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t T : {1, 40, 77})
      for (const std::int64_t C : {5, 131})
        for (const int kind : {0, 1, 2}) {  // a fresh start, a continued one, documents
          CAPTURE(T);
          CAPTURE(C);
          CAPTURE(kind);
          const std::vector<std::int32_t> start = documents(T, {{1, 1, 12}, {39}});
          const Batch batch{.sequences = 2,
                            .length = T,
                            .document_start = kind == 2 ? start.data() : nullptr,
                            .position = kind == 1 ? 9 : 0};
          const Values v(C, batch);
          const Inputs in{doubles(v.x), doubles(v.r), doubles(v.i), doubles(v.lambda),
                          kind == 1 ? doubles(v.initial) : Doubles{}};
          const Floats dh = noise(2 * T * C, 6), dlast = noise(2 * C, 7);
          Floats cotangent = dh;
          cotangent.insert(cotangent.end(), dlast.begin(), dlast.end());
          const auto results = run(q, C, batch, v, kind == 1, dh, dlast);
          CHECK(difference(results[0], reference(C, batch, in)) <= 2e-6);
          const auto along = [&](Doubles Inputs::*input) {
            return [&, input](const Doubles& x) {
              Inputs moved = in;
              moved.*input = x;
              return inner_product(reference(C, batch, moved), cotangent);
            };
          };
          check_gradient(along(&Inputs::x), v.x, results[1]);
          check_gradient(along(&Inputs::r), v.r, results[2]);
          check_gradient(along(&Inputs::i), v.i, results[3]);
          check_gradient(along(&Inputs::lambda), v.lambda, results[4]);
          if (kind == 1) check_gradient(along(&Inputs::initial), v.initial, results[5]);
        }
  });
}

TEST_CASE("a decay near 1 keeps its digits, and the root's slope stays finite") {
  on_every_cpu([](const Cpu& q) {
    const Batch batch{.sequences = 1, .length = 8, .position = 1};
    Values v(3, batch);
    for (float& x : v.lambda) x = -18.f;  // 1 - a^2 is about 1e-7
    const Inputs in{doubles(v.x), doubles(v.r), doubles(v.i), doubles(v.lambda), doubles(v.initial)};
    const auto results = run(q, 3, batch, v, true, noise(24, 6), zeros(3));
    CHECK(difference(results[0], reference(3, batch, in)) <= 1e-6);
    for (const Floats& part : results)
      for (const float x : part) CHECK(std::isfinite(x));
  });
}

TEST_CASE("the recurrence is the same bits for every number of threads") {
  const Batch batch{.sequences = 2, .length = 75};
  const Values v(131, batch);
  same_on_every_cpu([&](const Cpu& q) {
    Floats all;
    for (const Floats& part : run(q, 131, batch, v, false, noise(2 * 75 * 131, 6), noise(2 * 131, 7)))
      all.insert(all.end(), part.begin(), part.end());
    return all;
  });
}
