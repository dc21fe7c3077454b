#include "kernels/scan.hpp"

#include <chimera/kernels/f32/ssd.hpp>

using namespace chimera;

namespace {

/// The inputs of one scan and its results, in double.
struct Scan {
  Doubles xbc, dt, A, D, initial;
};
struct Outcome {
  Doubles y, last;
};

/// Token after token; a document's first token drops the state.
Outcome reference(const SsdShape& s, const Batch& batch, const Scan& in) {
  const std::int64_t H = s.heads, P = s.head_dim, N = s.state;
  Outcome out;
  Doubles states =
      in.initial.empty() ? Doubles(static_cast<std::size_t>(batch.sequences * H * s.matrix()), 0.0) : in.initial;
  for (std::int64_t at = 0; at < batch.tokens(); ++at)
    for (std::int64_t h = 0; h < H; ++h) {
      const std::int64_t b = at / batch.length, t = at % batch.length, g = h / s.per_group();
      const double* row = in.xbc.data() + at * s.row();
      const double step = in.dt[static_cast<std::size_t>(at * H + h)],
                   decay = std::exp(step * in.A[static_cast<std::size_t>(h)]);
      const bool fresh = t > 0 && batch.document_start && batch.document_start[at] == t;
      for (std::int64_t p = 0; p < P; ++p) {
        double* S = states.data() + (b * H + h) * s.matrix() + p * N;
        const double x = row[h * P + p];
        double y = in.D[static_cast<std::size_t>(h)] * x;
        for (std::int64_t n = 0; n < N; ++n) {
          S[n] = (fresh ? 0 : decay * S[n]) + step * x * row[s.b(g) + n];
          y += S[n] * row[s.c(g) + n];
        }
        out.y.push_back(y);
      }
    }
  out.last = states;
  return out;
}

struct Inputs {
  Floats xbc, dt, A, D, initial;

  Inputs(const SsdShape& s, const Batch& batch)
      : xbc(noise(batch.tokens() * s.row(), 1)),
        dt(noise(batch.tokens() * s.heads, 2)),
        A(noise(s.heads, 3)),
        D(noise(s.heads, 4)),
        initial(noise(batch.sequences * s.heads * s.matrix(), 5)) {
    for (float& x : dt) x = 0.3f + 0.29f * x;
    for (float& x : A) x = -1.5f + 1.4f * x;
  }
  Scan scan(bool carried) const {
    return {doubles(xbc), doubles(dt), doubles(A), doubles(D), carried ? doubles(initial) : Doubles{}};
  }
};

/// y, the last state and every gradient, each in its place.
struct Results {
  Floats y, last, dxbc, ddt, dA, dD, dinitial;

  Results(const Cpu& q, const SsdShape& s, const Batch& batch, const Inputs& in, bool carried, const Floats& dy,
          const Floats& dlast)
      : y(filled(batch.tokens() * s.inner(), unwritten)),
        last(filled(batch.sequences * s.heads * s.matrix(), unwritten)),
        dxbc(filled(batch.tokens() * s.row(), unwritten)),
        ddt(filled(batch.tokens() * s.heads, unwritten)),
        dA(zeros(s.heads)),
        dD(zeros(s.heads)),
        dinitial(last) {
    Floats states = filled(ssd_states(s, batch), unwritten), products = filled(ssd_products(s, batch), unwritten);
    Floats temp = room(ssd_backward_bytes(s, batch));
    ssd(q, s, batch, in.xbc.data(), in.dt.data(), in.A.data(), in.D.data(), carried ? in.initial.data() : nullptr,
        y.data(), states.data(), products.data(), last.data());
    ssd_backward(q, s, batch, in.xbc.data(), in.dt.data(), in.A.data(), in.D.data(), states.data(), products.data(),
                 dy.data(),
                 {.dxbc = dxbc.data(),
                  .ddt = ddt.data(),
                  .dA = dA.data(),
                  .dD = dD.data(),
                  .dlast = dlast.data(),
                  .dinitial = dinitial.data()},
                 Bump{temp.data()});
  }
  Floats all() const {
    Floats x;
    for (const Floats* part : {&y, &last, &dxbc, &ddt, &dA, &dD, &dinitial})
      x.insert(x.end(), part->begin(), part->end());
    return x;
  }
};

}  // namespace

TEST_CASE("the scan and its gradients at every chunk length, with groups, documents and a carried state") {
  struct Case {
    std::int64_t T, heads, head_dim, state, groups;
  };
  on_every_cpu([](const Cpu& q) {
    if (q.threads() == 2) return;  // one and three threads are enough here: the bits are compared below
    for (const Case& c : {Case{1, 1, 1, 1, 1}, Case{50, 6, 5, 9, 2}, Case{129, 9, 4, 3, 1}})
      for (const std::int64_t chunk : {1, 7, 64, 128}) {
        const SsdShape s{c.heads, c.head_dim, c.state, c.groups, chunk};
        scans::with_documents(c.T, [&](const Batch& batch) {
          for (const bool carried : {false, true}) {
            CAPTURE(chunk);
            CAPTURE(carried);
            const Inputs in(s, batch);
            const Scan scan = in.scan(carried);
            const Floats dy = noise(batch.tokens() * s.inner(), 6), dlast = noise(2 * s.heads * s.matrix(), 7);
            const Results r(q, s, batch, in, carried, dy, dlast);
            const Outcome want = reference(s, batch, scan);
            CHECK(difference(r.y, want.y) <= 5e-6);
            CHECK(difference(r.last, want.last) <= 5e-6);
            const auto loss = [&](const Scan& x) {
              const Outcome o = reference(s, batch, x);
              return inner_product(o.y, dy) + inner_product(o.last, dlast);
            };
            scans::check_gradients(scan, loss,
                                   {{&Scan::xbc, &r.dxbc}, {&Scan::dt, &r.ddt}, {&Scan::A, &r.dA}, {&Scan::D, &r.dD}});
            if (carried) scans::check_gradients(scan, loss, {{&Scan::initial, &r.dinitial}});
          }
        });
      }
  });
}

TEST_CASE("halves that pass a state on, and single steps, give what one scan gives") {
  on_every_cpu([](const Cpu& q) {
    const SsdShape s{6, 5, 9, 2, 7};
    const Batch batch{.sequences = 1, .length = 45};
    const Inputs in(s, batch);
    const float *A = in.A.data(), *D = in.D.data();
    scans::check_parts_and_steps(
        s.inner(), reference(s, batch, in.scan(true)).y, in.initial,
        [&](std::int64_t first, std::int64_t n, float* state, float* y, bool keep) {
          const Batch part{.sequences = 1, .length = n};
          Floats states = zeros(ssd_states(s, part)), products = zeros(ssd_products(s, part));
          ssd(q, s, part, in.xbc.data() + first * s.row(), in.dt.data() + first * s.heads, A, D, state, y,
              keep ? states.data() : nullptr, products.data(), state);
        },
        [&](std::int64_t t, float* state, float* y) {
          ssd_step(q, s, in.xbc.data() + t * s.row(), in.dt.data() + t * s.heads, A, D, state, y);
        },
        [](const Floats& state) { return state; });
  });
}

TEST_CASE("step sizes are clamped softplus, and a clamped step passes no gradient") {
  on_every_cpu([](const Cpu& q) {
    const std::int64_t rows = 70, heads = 5, stride = 9;
    Floats raw = noise(rows * stride, 1), bias = noise(heads, 2), dt = filled(rows * heads, unwritten),
           dbias = zeros(heads);
    for (float& x : raw) x *= 12.f;
    const Floats ddt = noise(rows * heads, 3);
    Floats draw = zeros(rows * stride);
    const float low = 0.01f, high = 2.f;
    const auto step = [&](const Doubles& r, const Doubles& b) {
      Doubles y;
      for (std::size_t at = 0; at < rows; ++at)
        for (std::size_t h = 0; h < heads; ++h)
          y.push_back(std::clamp(std::log1p(std::exp(r[at * stride + h] + b[h])), static_cast<double>(low),
                                 static_cast<double>(high)));
      return y;
    };
    ssd_step_size(q, rows, heads, raw.data(), stride, bias.data(), low, high, dt.data());
    CHECK(difference(dt, step(doubles(raw), doubles(bias))) <= 1e-6);
    ssd_step_size_backward(q, rows, heads, raw.data(), stride, bias.data(), low, high, ddt.data(), draw.data(),
                           dbias.data());
    check_gradient([&](const Doubles& r) { return inner_product(step(r, doubles(bias)), ddt); }, raw, draw);
    check_gradient([&](const Doubles& b) { return inner_product(step(doubles(raw), b), ddt); }, bias, dbias);
  });
}

TEST_CASE("the scan is the same bits for every number of threads") {
  const SsdShape s{18, 4, 6, 2, 16};  // nine heads in a group: five blocks, the last with one head
  const Batch batch{.sequences = 2, .length = 75};
  const Inputs in(s, batch);
  const Floats dy = noise(batch.tokens() * s.inner(), 6), dlast = noise(2 * s.heads * s.matrix(), 7);
  same_on_every_cpu([&](const Cpu& q) { return Results(q, s, batch, in, true, dy, dlast).all(); });
}

TEST_CASE("decay rates and their gradient") {
  const Cpu q = cpu(detect_isa(), 1);
  const Floats a_log = noise(9, 1), da = noise(9, 2);
  Floats a = filled(9, unwritten), gradient = filled(9, 3.f);
  decay_rate(q, 9, a_log.data(), a.data());
  decay_rate_backward(q, 9, a.data(), da.data(), gradient.data());
  for (std::size_t i = 0; i < 9; ++i) {
    CHECK(a[i] == -std::exp(a_log[i]));
    CHECK(gradient[i] == 3.f + a[i] * da[i]);
  }
}
