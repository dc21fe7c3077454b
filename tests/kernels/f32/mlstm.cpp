#include "kernels/scan.hpp"

#include <chimera/kernels/f32/mlstm.hpp>

using namespace chimera;

namespace {

/// The inputs of one memory in double; states [B,heads,state] as the kernel has them.
struct Inputs {
  Doubles qkvo, gates, initial;
};
struct Outcome {
  Doubles y, last;
  double closest = 1e30;  // of all |n . q| to e^-m, over e^-m
};

/// Token after token; a document's first token drops the state. `m`: the last state is given for that m of each head.
Outcome reference(const MlstmShape& s, const Batch& batch, const Inputs& in, const Doubles* m_last = nullptr) {
  const std::int64_t H = s.heads, K = s.qk, V = s.v;
  const double scale = 1 / std::sqrt(static_cast<double>(K));
  Outcome out;
  out.y.resize(static_cast<std::size_t>(batch.tokens() * s.inner()));
  out.last = in.initial;
  if (out.last.empty()) out.last.resize(static_cast<std::size_t>(batch.sequences * H * s.state()));
  for (std::int64_t at = 0; at < batch.tokens(); ++at)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t b = at / batch.length, t = at % batch.length;
      const double *row = in.qkvo.data() + at * s.row(), *q = row + h * K, *k = row + s.keys() + h * K,
                   *v = row + s.values() + h * V;
      const double i = in.gates[static_cast<std::size_t>(at * 2 * H + h)],
                   log_f = in.gates[static_cast<std::size_t>(at * 2 * H + H + h)];
      double *C = out.last.data() + (b * H + h) * s.state(), *n = C + s.matrix(), &m = n[K];
      if (t > 0 && batch.document_start && batch.document_start[at] == t) std::fill(C, C + s.state(), 0.0);
      const double next = std::max(log_f + m, i), forget = std::exp(log_f + m - next), take = std::exp(i - next);
      m = next;
      double dots = 0;
      for (std::int64_t c = 0; c < K; ++c) {
        n[c] = forget * n[c] + take * k[c];
        dots += n[c] * q[c] * scale;
        for (std::int64_t j = 0; j < V; ++j) C[c * V + j] = forget * C[c * V + j] + take * k[c] * v[j];
      }
      const double floor = std::exp(-m), N = std::max(std::abs(dots), floor) + 1e-6;
      out.closest = std::min(out.closest, std::abs(std::abs(dots) - floor) / floor);
      for (std::int64_t j = 0; j < V; ++j) {
        double sum = 0;
        for (std::int64_t c = 0; c < K; ++c) sum += C[c * V + j] * q[c] * scale;
        out.y[static_cast<std::size_t>(at * s.inner() + h * V + j)] = sum / N;
      }
    }
  for (std::int64_t i = 0; m_last && i < batch.sequences * H; ++i) {
    double* state = out.last.data() + i * s.state();
    double& m = state[s.matrix() + K];
    const double factor = std::exp(m - (*m_last)[static_cast<std::size_t>(i)]);
    for (std::int64_t c = 0; c < s.matrix() + K; ++c) state[c] *= factor;
    m = (*m_last)[static_cast<std::size_t>(i)];
  }
  return out;
}

struct Values {
  Floats qkvo, gates, initial;

  /// Input gates around `open`; queries and keys above 0 if `positive`: then |n . q| is far from 0.
  Values(const MlstmShape& s, const Batch& batch, float open, bool positive)
      : qkvo(noise(batch.tokens() * s.row(), 1)),
        gates(noise(batch.tokens() * 2 * s.heads, 2)),
        initial(noise(batch.sequences * s.heads * s.state(), 3)) {
    for (std::int64_t at = 0; at < batch.tokens(); ++at) {
      for (std::int64_t c = 0; positive && c < s.values(); ++c) at_of(qkvo, at * s.row() + c) += 1.5f;
      for (std::int64_t h = 0; h < s.heads; ++h) {
        float &i = at_of(gates, at * 2 * s.heads + h), &log_f = at_of(gates, at * 2 * s.heads + s.heads + h);
        i = open + 2 * i, log_f = -0.8f + 0.79f * log_f;
      }
    }
    for (std::int64_t i = 0; i < batch.sequences * s.heads; ++i)
      for (std::int64_t c = 0; positive && c < s.qk; ++c) at_of(initial, i * s.state() + s.matrix() + c) += 1.5f;
  }
  Inputs inputs(bool carried) const { return {doubles(qkvo), doubles(gates), carried ? doubles(initial) : Doubles{}}; }

  static float& at_of(Floats& x, std::int64_t i) { return x[static_cast<std::size_t>(i)]; }
};

/// Zero where the states have m, and nothing.
void clear_rest(const MlstmShape& s, Floats& states) {
  for (std::size_t i = 0; i < states.size(); ++i)
    if (static_cast<std::int64_t>(i) % s.state() >= s.matrix() + s.qk) states[i] = 0;
}

/// h, the last state and every gradient, each in its place.
struct Results {
  Floats h, last, dqkvo, dgates, dinitial;

  Results(const Cpu& q, const MlstmShape& s, const Batch& batch, const Values& in, bool carried, const Floats& dh,
          const Floats& dlast)
      : h(filled(batch.tokens() * s.inner(), unwritten)),
        last(filled(batch.sequences * s.heads * s.state(), unwritten)),
        dqkvo(zeros(batch.tokens() * s.row())),
        dgates(filled(batch.tokens() * 2 * s.heads, unwritten)),
        dinitial(last) {
    Floats states = filled(mlstm_states(s, batch), unwritten), dots = filled(batch.tokens() * s.heads, unwritten);
    Floats temp = room(mlstm_backward_bytes(s, batch));
    for (std::int64_t at = 0; at < batch.tokens(); ++at)
      std::fill_n(dqkvo.data() + at * s.row(), s.output_gate(), unwritten);
    mlstm(q, s, batch, in.qkvo.data(), in.gates.data(), carried ? in.initial.data() : nullptr, h.data(), states.data(),
          dots.data(), last.data());
    mlstm_backward(q, s, batch, in.qkvo.data(), in.gates.data(), states.data(), dots.data(), h.data(), dh.data(),
                   {.dqkvo = dqkvo.data(), .dgates = dgates.data(), .dlast = dlast.data(), .dinitial = dinitial.data()},
                   Bump{temp.data()});
    clear_rest(s, dinitial);
  }
  Floats all() const {
    Floats x;
    for (const Floats* part : {&h, &last, &dqkvo, &dgates, &dinitial}) x.insert(x.end(), part->begin(), part->end());
    return x;
  }
};

}  // namespace

TEST_CASE("the memory and its gradients at every chunk length, with documents and a carried state") {
  struct Case {
    std::int64_t T, heads, qk, v;
    float open;
    bool positive;  // |n . q| divides; else e^-m does
  };
  on_every_cpu([](const Cpu& q) {
    if (q.threads() == 2) return;  // one and three threads are enough here: the bits are compared below
    for (const Case& c : {Case{1, 1, 1, 1, 3.f, true}, Case{1, 2, 3, 4, -6.f, false}, Case{50, 3, 5, 9, 3.f, true},
                          Case{65, 2, 18, 7, -6.f, false}, Case{129, 2, 4, 35, 6.f, true}})
      for (const std::int64_t chunk : {1, 7, 64, 128}) {
        const MlstmShape s{c.heads, c.qk, c.v, chunk};
        scans::with_documents(c.T, [&](const Batch& batch) {
          for (const bool carried : {false, true}) {
            CAPTURE(c.open);
            CAPTURE(chunk);
            CAPTURE(carried);
            Values in(s, batch, c.open, c.positive);
            if (!c.positive)
              for (float& x : in.initial) x *= 0.01f;
            const Inputs inputs = in.inputs(carried);
            const Floats dh = noise(batch.tokens() * s.inner(), 6);
            Floats dlast = noise(2 * s.heads * s.state(), 7);
            clear_rest(s, dlast);
            const Results r(q, s, batch, in, carried, dh, dlast);
            const Outcome want = reference(s, batch, inputs);
            CHECK(want.closest > 1e-3);  // the gradient has a corner where the two are equal
            CHECK(difference(r.h, want.y) <= 1e-5);
            Floats last = r.last, want_last(want.last.begin(), want.last.end());
            Doubles m;
            for (std::int64_t i = 0; i < 2 * s.heads; ++i)
              m.push_back(want.last[static_cast<std::size_t>(i * s.state() + s.matrix() + s.qk)]);
            for (std::int64_t i = 0; i < 2 * s.heads; ++i)
              CHECK(std::abs(Values::at_of(last, i * s.state() + s.matrix() + s.qk) -
                             static_cast<float>(m[static_cast<std::size_t>(i)])) <= 1e-4f);
            clear_rest(s, last), clear_rest(s, want_last);
            CHECK(difference(last, want_last) <= 2e-5);
            const auto loss = [&](const Inputs& x) {
              const Outcome o = reference(s, batch, x, &m);
              return inner_product(o.y, dh) + inner_product(o.last, dlast);
            };
            scans::check_gradients(inputs, loss, {{&Inputs::qkvo, &r.dqkvo}, {&Inputs::gates, &r.dgates}});
            if (!carried) continue;
            const auto of_initial = [&](Inputs x) {  // m stays
              for (std::size_t i = 0; i < x.initial.size(); ++i)
                if (static_cast<std::int64_t>(i) % s.state() >= s.matrix() + s.qk) x.initial[i] = inputs.initial[i];
              return loss(x);
            };
            scans::check_gradients(inputs, of_initial, {{&Inputs::initial, &r.dinitial}});
          }
        });
      }
  });
}

TEST_CASE("parts that pass a state on, and single steps, give what the whole gives") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t chunk : {1, 7, 64}) {
      const MlstmShape s{3, 5, 9, chunk};
      const Batch batch{.sequences = 1, .length = 45};
      const Values in(s, batch, 0.f, true);
      const auto qkvo = [&](std::int64_t t) { return in.qkvo.data() + t * s.row(); };
      const auto gates = [&](std::int64_t t) { return in.gates.data() + t * 2 * s.heads; };
      scans::check_parts_and_steps(
          s.inner(), reference(s, batch, in.inputs(true)).y, in.initial,
          [&](std::int64_t first, std::int64_t n, float* state, float* h, bool keep) {
            const Batch part{.sequences = 1, .length = n};
            Floats states = zeros(mlstm_states(s, part)), dots = zeros(n * s.heads);
            mlstm(q, s, part, qkvo(first), gates(first), state, h, keep ? states.data() : nullptr,
                  keep ? dots.data() : nullptr, state);
          },
          [&](std::int64_t t, float* state, float* h) { mlstm_step(q, s, qkvo(t), gates(t), state, h); },
          [&](Floats state) {
            clear_rest(s, state);
            return state;
          });
    }
  });
}

TEST_CASE("what is added to all input gates cancels where e^-m does not divide") {
  on_every_cpu([](const Cpu& q) {
    const MlstmShape s{2, 6, 5, 16};
    const Batch batch{.sequences = 2, .length = 50};
    Values in(s, batch, 6.f, true);
    const auto h = [&] {
      Floats y = zeros(batch.tokens() * s.inner()), last = zeros(2 * s.heads * s.state());
      mlstm(q, s, batch, in.qkvo.data(), in.gates.data(), nullptr, y.data(), nullptr, nullptr, last.data());
      return y;
    };
    const Floats before = h();
    for (std::int64_t at = 0; at < batch.tokens(); ++at)
      for (std::int64_t head = 0; head < s.heads; ++head) Values::at_of(in.gates, at * 2 * s.heads + head) += 4.f;
    CHECK(difference(h(), before) <= 1e-5);
  });
}

// Exponents were sums over a chunk, in f32: differences of large ones lost digits.
TEST_CASE("strong forgetting costs no digits in long chunks") {
  on_every_cpu([](const Cpu& q) {
    const MlstmShape s{2, 6, 5, 128};
    const Batch batch{.sequences = 1, .length = 128};
    Values in(s, batch, 3.f, true);
    for (std::size_t g = 0; g < in.gates.size(); ++g)
      if (g % 4 >= 2) in.gates[g] *= 9.f;  // ln f down to -14
    Floats y = zeros(batch.tokens() * s.inner()), last = zeros(s.heads * s.state());
    mlstm(q, s, batch, in.qkvo.data(), in.gates.data(), nullptr, y.data(), nullptr, nullptr, last.data());
    CHECK(difference(y, reference(s, batch, in.inputs(false)).y) <= 3e-6);
  });
}

TEST_CASE("gates at their limits give finite numbers") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t T : {1, 15, 16, 17, 100})
      for (const float i : {-50.f, 50.f, 0.f})
        for (const float log_f : {-50.f, 0.f, 1.f}) {
          const MlstmShape s{2, 6, 5, 16};
          const Batch batch{.sequences = 1, .length = T};
          Values in(s, batch, 0.f, false);
          for (std::size_t g = 0; g < in.gates.size(); ++g) {  // 0 and 1: now one limit, now the other
            const bool odd = in.gates[g] > 0;
            if (g % 4 < 2)
              in.gates[g] = i == 0.f ? (odd ? 50.f : -50.f) : i;
            else
              in.gates[g] = log_f == 1.f ? (odd ? -50.f : 0.f) : log_f;
          }
          const Floats dlast = zeros(s.heads * s.state());
          const Results r(q, s, batch, in, false, noise(T * s.inner(), 6), dlast);
          Floats all = r.all();
          CHECK(std::all_of(all.begin(), all.end(), [](float x) { return std::isfinite(x); }));
          Floats state = zeros(s.heads * s.state()), h = zeros(s.inner());
          for (std::int64_t t = 0; t < T; ++t) {
            mlstm_step(q, s, in.qkvo.data() + t * s.row(), in.gates.data() + t * 2 * s.heads, state.data(), h.data());
            CHECK(std::all_of(h.begin(), h.end(), [](float x) { return std::isfinite(x); }));
          }
        }
  });
}

TEST_CASE("the memory is the same bits for every number of threads") {
  const MlstmShape s{3, 6, 20, 16};
  const Batch batch{.sequences = 2, .length = 75};
  const Values in(s, batch, 0.f, true);
  Floats dlast = noise(2 * s.heads * s.state(), 7);
  clear_rest(s, dlast);
  const Floats dh = noise(batch.tokens() * s.inner(), 6);
  same_on_every_cpu([&](const Cpu& q) { return Results(q, s, batch, in, true, dh, dlast).all(); });
}

TEST_CASE("gates are capped by tanh, and their gradients") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t rows = 70, heads = 5;
    const float cap = 15.f;
    Floats raw = noise(rows * 2 * heads, 1);
    for (float& x : raw) x *= 60.f;
    const Floats bias_i = noise(heads, 2), bias_f = noise(heads, 3), d = noise(rows * 2 * heads, 4);
    const auto gates = [&](const Doubles& r, const Doubles& bi, const Doubles& bf) {
      Doubles y;
      for (std::size_t at = 0; at < r.size(); ++at) {
        const std::size_t c = at % (2 * heads);
        const double x = (r[at] + (c < heads ? bi[c] : bf[c - heads])) / static_cast<double>(cap);
        const double capped = static_cast<double>(cap) * std::tanh(x);
        y.push_back(c < heads ? capped : -std::log1p(std::exp(-capped)));
      }
      return y;
    };
    Floats y = filled(rows * 2 * heads, unwritten), dy = d, dbias_i = zeros(heads), dbias_f = zeros(heads);
    mlstm_gates(q, rows, heads, cap, raw.data(), bias_i.data(), bias_f.data(), y.data());
    CHECK(difference(y, gates(doubles(raw), doubles(bias_i), doubles(bias_f))) <= 1e-6);
    mlstm_gates_backward(q, rows, heads, cap, raw.data(), bias_i.data(), bias_f.data(), dy.data(), dbias_i.data(),
                         dbias_f.data());
    const auto loss = [&](const Doubles& r, const Doubles& bi, const Doubles& bf) {
      return inner_product(gates(r, bi, bf), d);
    };
    const Doubles r = doubles(raw), bi = doubles(bias_i), bf = doubles(bias_f);
    check_gradient([&](const Doubles& x) { return loss(x, bi, bf); }, raw, dy);
    check_gradient([&](const Doubles& x) { return loss(r, x, bf); }, bias_i, dbias_i);
    check_gradient([&](const Doubles& x) { return loss(r, bi, x); }, bias_f, dbias_f);
  });
}

TEST_CASE("the norm of each head behind its output gate, and its gradients") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t V : {1, 7, 16, 37}) {
      const std::int64_t rows = 70;
      const MlstmShape s{3, 2, V, 16};
      const float eps = 1e-4f;
      const Floats h = noise(rows * s.inner(), 1), qkvo = noise(rows * s.row(), 2), w = noise(s.inner(), 3),
                   d = noise(rows * s.inner(), 4);
      const auto normed = [&](const Doubles& x, const Doubles& rest, const Doubles& weight) {
        Doubles y;
        for (std::int64_t at = 0; at < rows * s.inner(); ++at) {
          const std::int64_t head = at / V * V, c = at % s.inner(), t = at / s.inner();
          double mean = 0, variance = 0;
          for (std::int64_t i = head; i < head + V; ++i) mean += x[static_cast<std::size_t>(i)];
          mean /= static_cast<double>(V);
          for (std::int64_t i = head; i < head + V; ++i) variance += std::pow(x[static_cast<std::size_t>(i)] - mean, 2);
          variance /= static_cast<double>(V);
          const double o = rest[static_cast<std::size_t>(t * s.row() + s.output_gate() + c)];
          y.push_back((x[static_cast<std::size_t>(at)] - mean) / std::sqrt(variance + static_cast<double>(eps)) *
                      weight[static_cast<std::size_t>(c)] / (1 + std::exp(-o)));
        }
        return y;
      };
      Floats y = filled(rows * s.inner(), unwritten), dh = d, dqkvo = zeros(rows * s.row()), dw = zeros(s.inner());
      Floats temp = room(mlstm_norm_backward_bytes(s, rows)), in_place = h;
      mlstm_norm(q, s, rows, eps, h.data(), qkvo.data(), w.data(), y.data());
      mlstm_norm(q, s, rows, eps, in_place.data(), qkvo.data(), w.data(), in_place.data());
      CHECK(in_place == y);
      const Doubles x = doubles(h), rest = doubles(qkvo), weight = doubles(w);
      CHECK(difference(y, normed(x, rest, weight)) <= 5e-6);
      mlstm_norm_backward(q, s, rows, eps, h.data(), qkvo.data(), w.data(), dh.data(), dqkvo.data(), dw.data(),
                          Bump{temp.data()});
      const auto loss = [&](const Doubles& a, const Doubles& b, const Doubles& c) {
        return inner_product(normed(a, b, c), d);
      };
      check_gradient([&](const Doubles& a) { return loss(a, rest, weight); }, h, dh);
      check_gradient([&](const Doubles& b) { return loss(x, b, weight); }, qkvo, dqkvo);
      check_gradient([&](const Doubles& c) { return loss(x, rest, c); }, w, dw);
    }
  });
}
