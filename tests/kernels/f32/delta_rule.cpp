#include "kernels/scan.hpp"

#include <chimera/kernels/f32/delta_rule.hpp>

using namespace chimera;

namespace {

/// The inputs of one scan and its results, in double.
struct Scan {
  Doubles qkv, g, beta, initial;
};
struct Outcome {
  Doubles y, last;
};

/// x at length 1, as far as the kernel has it so, times scale.
Doubles unit(const double* x, std::int64_t n, double scale) {
  double squares = 1e-6;
  for (std::int64_t i = 0; i < n; ++i) squares += x[i] * x[i];
  Doubles y(x, x + n);
  for (double& v : y) v *= scale / std::sqrt(squares);
  return y;
}

/// Token after token; a document's first token drops the state.
Outcome reference(const DeltaRuleShape& s, const Batch& batch, const Scan& in) {
  const std::int64_t H = s.value_heads, K = s.key_dim, V = s.value_dim;
  Outcome out;
  out.last = in.initial.empty() ? Doubles(static_cast<std::size_t>(batch.sequences * H * s.matrix()), 0.0) : in.initial;
  for (std::int64_t at = 0; at < batch.tokens(); ++at)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t b = at / batch.length, t = at % batch.length;
      const double* row = in.qkv.data() + at * s.row();
      const Doubles q = unit(row + s.q(h), K, 1 / std::sqrt(static_cast<double>(K))), k = unit(row + s.k(h), K, 1);
      const bool fresh = t > 0 && batch.document_start && batch.document_start[at] == t;
      const double decay = fresh ? 0 : std::exp(in.g[static_cast<std::size_t>(at * H + h)]),
                   beta = in.beta[static_cast<std::size_t>(at * H + h)];
      double* S = out.last.data() + (b * H + h) * s.matrix();
      for (std::int64_t v = 0; v < V; ++v) {
        double found = 0, y = 0;
        for (std::int64_t i = 0; i < K; ++i)
          found += (S[i * V + v] = fresh ? 0 : decay * S[i * V + v]) * k[static_cast<std::size_t>(i)];
        const double x = beta * (row[s.v(h) + v] - found);
        for (std::int64_t i = 0; i < K; ++i)
          y += (S[i * V + v] += k[static_cast<std::size_t>(i)] * x) * q[static_cast<std::size_t>(i)];
        out.y.push_back(y);
      }
    }
  return out;
}

struct Inputs {
  Floats qkv, g, beta, initial;

  Inputs(const DeltaRuleShape& s, const Batch& batch)
      : qkv(noise(batch.tokens() * s.row(), 1)),
        g(noise(batch.tokens() * s.value_heads, 2)),
        beta(noise(batch.tokens() * s.value_heads, 3)),
        initial(noise(batch.sequences * s.value_heads * s.matrix(), 4)) {
    for (float& x : g) x = -0.5f + 0.49f * x;
    for (float& x : beta) x = 0.6f + 0.6f * x;
  }
  Scan scan(bool carried) const {
    return {doubles(qkv), doubles(g), doubles(beta), carried ? doubles(initial) : Doubles{}};
  }
};

/// y, the last state and every gradient, each in its place.
struct Results {
  Floats y, last, dqkv, dg, dbeta, dinitial;

  Results(const Cpu& q, const DeltaRuleShape& s, const Batch& batch, const Inputs& in, bool carried, const Floats& dy,
          const Floats& dlast)
      : y(filled(batch.tokens() * s.values(), unwritten)),
        last(filled(batch.sequences * s.value_heads * s.matrix(), unwritten)),
        dqkv(filled(batch.tokens() * s.row(), unwritten)),
        dg(filled(batch.tokens() * s.value_heads, unwritten)),
        dbeta(dg),
        dinitial(last) {
    Floats states = filled(delta_rule_states(s, batch), unwritten);
    delta_rule(q, s, batch, in.qkv.data(), in.g.data(), in.beta.data(), carried ? in.initial.data() : nullptr, y.data(),
               states.data(), last.data());
    delta_rule_backward(q, s, batch, in.qkv.data(), in.g.data(), in.beta.data(), states.data(), dy.data(),
                        {.dqkv = dqkv.data(),
                         .dg = dg.data(),
                         .dbeta = dbeta.data(),
                         .dlast = dlast.data(),
                         .dinitial = dinitial.data()});
  }
  Floats all() const {
    Floats x;
    for (const Floats* part : {&y, &last, &dqkv, &dg, &dbeta, &dinitial}) x.insert(x.end(), part->begin(), part->end());
    return x;
  }
};

bool all_finite(const Floats& x) {
  return std::all_of(x.begin(), x.end(), [](float v) { return std::isfinite(v); });
}

}  // namespace

TEST_CASE("the delta rule and its gradients at every chunk length, with groups, documents and a carried state") {
  struct Case {
    std::int64_t T, key_heads, value_heads, key_dim, value_dim;
  };
  on_every_cpu([](const Cpu& q) {
    if (q.threads() == 2) return;  // one and three threads are enough here: the bits are compared below
    for (const Case& c : {Case{1, 1, 1, 1, 1}, Case{50, 2, 6, 5, 9}, Case{129, 2, 2, 35, 33}})
      for (const std::int64_t chunk : {1, 7, 16, 64}) {
        if (c.key_dim > 9 && chunk < 16) continue;
        const DeltaRuleShape s{c.key_heads, c.value_heads, c.key_dim, c.value_dim, chunk};
        scans::with_documents(c.T, [&](const Batch& batch) {
          for (const bool carried : {false, true}) {
            CAPTURE(chunk);
            CAPTURE(carried);
            const Inputs in(s, batch);
            const Scan scan = in.scan(carried);
            const Floats dy = noise(batch.tokens() * s.values(), 6),
                         dlast = noise(batch.sequences * s.value_heads * s.matrix(), 7);
            const Results r(q, s, batch, in, carried, dy, dlast);
            const Outcome want = reference(s, batch, scan);
            CHECK(difference(r.y, want.y) <= 5e-6);
            CHECK(difference(r.last, want.last) <= 5e-6);
            const auto loss = [&](const Scan& x) {
              const Outcome o = reference(s, batch, x);
              return inner_product(o.y, dy) + inner_product(o.last, dlast);
            };
            scans::check_gradients(scan, loss, {{&Scan::qkv, &r.dqkv}, {&Scan::g, &r.dg}, {&Scan::beta, &r.dbeta}});
            if (carried) scans::check_gradients(scan, loss, {{&Scan::initial, &r.dinitial}});
          }
        });
      }
  });
}

TEST_CASE("halves that pass a state on, and single steps of the delta rule, give what one scan gives") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t value_dim : {9, 64, 80}) {  // strips of the step: parts, four vectors, and one
      const DeltaRuleShape s{2, 4, 6, value_dim, 7};
      const Batch batch{.sequences = 1, .length = 45};
      const Inputs in(s, batch);
      const auto qkv = [&](std::int64_t t) { return in.qkv.data() + t * s.row(); };
      const auto g = [&](std::int64_t t) { return in.g.data() + t * s.value_heads; };
      const auto beta = [&](std::int64_t t) { return in.beta.data() + t * s.value_heads; };
      scans::check_parts_and_steps(
          s.values(), reference(s, batch, in.scan(true)).y, in.initial,
          [&](std::int64_t first, std::int64_t n, float* state, float* y, bool keep) {
            const Batch part{.sequences = 1, .length = n};
            Floats states = zeros(delta_rule_states(s, part));
            delta_rule(q, s, part, qkv(first), g(first), beta(first), state, y, keep ? states.data() : nullptr, state);
          },
          [&](std::int64_t t, float* state, float* y) { delta_rule_step(q, s, qkv(t), g(t), beta(t), state, y); },
          [](const Floats& state) { return state; });
    }
  });
}

TEST_CASE("the delta rule is the same bits for every number of threads") {
  const DeltaRuleShape s{3, 6, 20, 40, 16};
  const Batch batch{.sequences = 2, .length = 75};
  const Inputs in(s, batch);
  const Floats dy = noise(batch.tokens() * s.values(), 6), dlast = noise(2 * s.value_heads * s.matrix(), 7);
  same_on_every_cpu([&](const Cpu& q) { return Results(q, s, batch, in, true, dy, dlast).all(); });
}

TEST_CASE("what was written last under a key is read back, if nothing is forgotten and all of the error is written") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t T = 70;
    const DeltaRuleShape s{1, 1, 16, 8, 64};
    const Batch batch{.sequences = 1, .length = T};
    Inputs in(s, batch);
    for (std::int64_t t = 0; t < T; ++t)  // one key for all tokens, and for their queries
      for (std::int64_t i = 0; i < 2 * s.key_dim; ++i)
        in.qkv[static_cast<std::size_t>(t * s.row() + i)] = static_cast<float>(1 + i % s.key_dim);
    in.g.assign(in.g.size(), 0.f), in.beta.assign(in.beta.size(), 1.f);
    Floats y = zeros(T * s.values()), states = zeros(delta_rule_states(s, batch)), values = y;
    delta_rule(q, s, batch, in.qkv.data(), in.g.data(), in.beta.data(), nullptr, y.data(), states.data(), nullptr);
    for (std::int64_t i = 0; i < T * s.value_dim; ++i) {
      const float v = in.qkv[static_cast<std::size_t>(i / s.value_dim * s.row() + s.v(0) + i % s.value_dim)];
      values[static_cast<std::size_t>(i)] = v / std::sqrt(static_cast<float>(s.key_dim));
    }
    CHECK(difference(y, values) <= 1e-5);
  });
}

TEST_CASE("the delta rule stays finite: gates at their ends, keys that are all equal or zero, short and odd lengths") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t T : {1, 63, 64, 65})
      for (const float gate : {-800.f, -50.f, -1e-30f, 0.f})
        for (const float share : {0.f, 1e-20f, 1.f, 2.f})
          for (const float key : {0.f, 1.f}) {
            const DeltaRuleShape s{1, 2, 8, 12, 64};
            const Batch batch{.sequences = 1, .length = T};
            Inputs in(s, batch);
            in.g.assign(in.g.size(), gate), in.beta.assign(in.beta.size(), share);
            for (std::int64_t t = 0; t < T; ++t) std::fill_n(in.qkv.begin() + t * s.row() + s.k(0), s.key_dim, key);
            const Floats dy = noise(T * s.values(), 6), dlast = noise(s.value_heads * s.matrix(), 7);
            CHECK(all_finite(Results(q, s, batch, in, true, dy, dlast).all()));
          }
  });
}

TEST_CASE("the gates of the delta rule and their gradients") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t rows = 70, heads = 5;
    Floats raw = noise(rows * 2 * heads, 1), bias = noise(heads, 2), a_log = noise(heads, 3);
    for (float& x : raw) x *= 12.f;
    const Floats dg = noise(rows * heads, 4), dbeta = noise(rows * heads, 5);
    for (const float most : {1.f, 2.f}) {
      const auto gates = [&](const Doubles& r, const Doubles& b, const Doubles& a) {
        Doubles y;
        for (std::size_t at = 0; at < rows * heads; ++at) {
          const std::size_t h = at % heads, row = at / heads * 2 * heads;
          y.push_back(-std::exp(a[h]) * std::log1p(std::exp(r[row + h] + b[h])));
          y.push_back(static_cast<double>(most) / (1 + std::exp(-r[row + heads + h])));
        }
        return y;
      };
      Floats g = filled(rows * heads, unwritten), beta = g, all, dall;
      delta_gates(q, rows, heads, raw.data(), bias.data(), a_log.data(), most, g.data(), beta.data());
      for (std::size_t at = 0; at < g.size(); ++at) {
        all.insert(all.end(), {g[at], beta[at]});
        dall.insert(dall.end(), {dg[at], dbeta[at]});
      }
      CHECK(difference(all, gates(doubles(raw), doubles(bias), doubles(a_log))) <= 1e-6);
      Floats draw = filled(rows * 2 * heads, unwritten), dbias = zeros(heads), da_log = zeros(heads), used = dg;
      delta_gates_backward(q, rows, heads, raw.data(), bias.data(), a_log.data(), most, g.data(), beta.data(),
                           used.data(), dbeta.data(), draw.data(), dbias.data(), da_log.data());
      const Doubles r = doubles(raw), b = doubles(bias), a = doubles(a_log);
      check_gradient([&](const Doubles& x) { return inner_product(gates(x, b, a), dall); }, raw, draw);
      check_gradient([&](const Doubles& x) { return inner_product(gates(r, x, a), dall); }, bias, dbias);
      check_gradient([&](const Doubles& x) { return inner_product(gates(r, b, x), dall); }, a_log, da_log);
    }
  });
}
