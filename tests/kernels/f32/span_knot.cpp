#include "kernels/scan.hpp"

#include <chimera/kernels/f32/span_knot.hpp>

using namespace chimera;

namespace {

/// What a pass reads, in double.
struct Inputs {
  Doubles heads, rows, tie, gain, distance;
};

/// Token after token, span after span: [B,T,heads*head_dim].
Doubles reference(const SpanKnotShape& s, const Batch& batch, const Inputs& in) {
  const std::int64_t D = s.head_dim, S = s.span;
  const auto scale = static_cast<double>(s.scale);
  Doubles out;
  for (std::int64_t at = 0; at < batch.tokens(); ++at)
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const std::int64_t t = at % batch.length, start = batch.document_start ? batch.document_start[at] : 0;
      const std::int64_t c = (t - start) / S, document = at - (t - start),
                         local = std::max<std::int64_t>(0, c - s.window);
      const auto q = [&](std::int64_t token) { return in.heads.data() + token * s.row() + h * D; };
      const auto k = [&](std::int64_t token) { return q(token) + s.heads * D; };
      const auto v = [&](std::int64_t token) { return in.rows.data() + token * s.row() + (2 * s.heads + h) * D; };
      const auto product = [&](const double* x, const double* y) {
        double sum = 0;
        for (std::int64_t i = 0; i < D; ++i) sum += x[i] * y[i];
        return sum * scale;
      };
      Doubles scores, values;
      for (std::int64_t j = 0; j < local; ++j) {
        Doubles weights, knot(static_cast<std::size_t>(2 * D));
        double all = 0;
        for (std::int64_t i = 0; i < S; ++i) {
          weights.push_back(std::exp(product(in.tie.data() + h * D, k(document + j * S + i))));
          all += weights.back();
        }
        for (std::int64_t i = 0; i < S; ++i)
          for (std::int64_t d = 0; d < D; ++d) {
            const double a = weights[static_cast<std::size_t>(i)] / all;
            knot[static_cast<std::size_t>(d)] += a * k(document + j * S + i)[d];
            knot[static_cast<std::size_t>(D + d)] += a * v(document + j * S + i)[d];
          }
        const auto bucket =
            std::min<std::int64_t>(15, static_cast<std::int64_t>(std::log2(static_cast<double>(c - j))));
        scores.push_back(product(q(at), knot.data()) + in.gain[static_cast<std::size_t>(h)] +
                         in.distance[static_cast<std::size_t>(h * 16 + bucket)]);
        values.insert(values.end(), knot.begin() + D, knot.end());
      }
      if (s.top > 0 && local > s.top) {
        Doubles ranked = scores;
        std::sort(ranked.rbegin(), ranked.rend());
        for (double& x : scores)
          if (x < ranked[static_cast<std::size_t>(s.top - 1)]) x = -1e30;
      }
      for (std::int64_t i = document + local * S; i <= at; ++i) {
        scores.push_back(product(q(at) + 2 * s.heads * D, k(i) + 2 * s.heads * D));
        values.insert(values.end(), v(i), v(i) + D);
      }
      const double top = *std::max_element(scores.begin(), scores.end());
      double all = 0;
      for (double& x : scores) all += x = std::exp(x - top);
      for (std::int64_t d = 0; d < D; ++d) {
        double sum = 0;
        for (std::size_t i = 0; i < scores.size(); ++i)
          sum += scores[i] * values[i * static_cast<std::size_t>(D) + static_cast<std::size_t>(d)];
        out.push_back(sum / all);
      }
    }
  return out;
}

struct Values {
  Floats heads, rows, tie, gain, distance;

  Values(const SpanKnotShape& s, const Batch& batch)
      : heads(noise(batch.tokens() * s.row(), 1)),
        rows(noise(batch.tokens() * s.row(), 2)),
        tie(noise(s.inner(), 3)),
        gain(noise(s.heads, 4)),
        distance(noise(s.heads * SpanKnotShape::buckets, 5)) {
    for (float& x : heads) x *= 2.f;
    for (float& x : tie) x *= 2.f;
  }
  Inputs inputs() const { return {doubles(heads), doubles(rows), doubles(tie), doubles(gain), doubles(distance)}; }
  SpanKnotInput of() const { return {heads.data(), rows.data(), tie.data(), gain.data(), distance.data()}; }
};

/// What is given and every gradient, each in its place.
struct Results {
  Floats out, dheads, drows, dtie, dgain, ddistance;

  Results(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const Values& in, const Floats& dout)
      : out(filled(batch.tokens() * s.inner(), unwritten)),
        dheads(filled(batch.tokens() * s.row(), unwritten)),
        drows(zeros(batch.tokens() * s.row())),
        dtie(zeros(s.inner())),
        dgain(zeros(s.heads)),
        ddistance(zeros(s.heads * SpanKnotShape::buckets)) {
    Floats knots = filled(batch.sequences * s.heads * s.slot_count(batch.length) * s.knot(), unwritten);
    Floats lse = filled(batch.tokens() * s.heads, unwritten), least = lse,
           temp = room(span_knot_backward_bytes(s, batch));
    for (std::int64_t t = 0; t < batch.tokens(); ++t)
      std::fill_n(drows.data() + t * s.row() + s.values(), s.inner(), unwritten);
    span_knot(q, s, batch, in.of(), knots.data(), out.data(), lse.data(), least.data());
    span_knot_backward(q, s, batch, in.of(), knots.data(), out.data(), lse.data(), least.data(), dout.data(),
                       {dheads.data(), drows.data(), dtie.data(), dgain.data(), ddistance.data()}, Bump{temp.data()});
  }
  Floats all() const {
    Floats x;
    for (const Floats* part : {&out, &dheads, &drows, &dtie, &dgain, &ddistance})
      x.insert(x.end(), part->begin(), part->end());
    return x;
  }
};

Floats forward(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const Values& in) {
  return Results(q, s, batch, in, zeros(batch.tokens() * s.inner())).out;
}

constexpr SpanKnotShape shape_of(std::int64_t heads, std::int64_t head_dim, std::int64_t span, std::int64_t window) {
  return {heads, head_dim, span, window, 0.4f};
}

/// The library's attention over q and k (turned, if asked for) and v, without a window.
Floats full_attention(const Cpu& q, const SpanKnotShape& s, const Batch& batch, const Values& in, bool turned) {
  const AttentionShape full{s.heads, s.heads, s.head_dim, batch.length, s.scale};
  Floats qkv, out = zeros(batch.tokens() * s.inner()), lse = zeros(batch.tokens() * s.heads);
  for (std::int64_t t = 0; t < batch.tokens(); ++t) {
    const float *qk = in.heads.data() + t * s.row() + (turned ? s.turned() : 0),
                *v = in.rows.data() + t * s.row() + s.values();
    qkv.insert(qkv.end(), qk, qk + 2 * s.inner());
    qkv.insert(qkv.end(), v, v + s.inner());
  }
  attention(q, full, batch, qkv.data(), out.data(), lse.data());
  return out;
}

}  // namespace

TEST_CASE("what spans and their knots give, and the gradients, with documents") {
  struct Case {
    std::int64_t T, heads, head_dim, span, window, top = 0;
  };
  on_every_cpu([](const Cpu& q) {
    if (q.threads() == 2) return;  // one and three threads are enough here: the bits are compared below
    for (const Case& c : {Case{1, 1, 2, 4, 1}, Case{3, 2, 6, 4, 0}, Case{4, 1, 18, 4, 0}, Case{5, 2, 4, 4, 0},
                          Case{75, 1, 6, 1, 0}, Case{75, 3, 10, 7, 1}, Case{130, 2, 4, 3, 5}, Case{200, 1, 34, 32, 1},
                          Case{130, 2, 4, 3, 1, 4}, Case{75, 1, 6, 1, 0, 1}}) {
      SpanKnotShape s = shape_of(c.heads, c.head_dim, c.span, c.window);
      s.top = c.top;
      scans::with_documents(c.T, [&](const Batch& batch) {
        CAPTURE(c.span);
        const Values in(s, batch);
        const Inputs inputs = in.inputs();
        const Floats dout = noise(batch.tokens() * s.inner(), 6);
        const Results r(q, s, batch, in, dout);
        CHECK(difference(r.out, reference(s, batch, inputs)) <= 2e-6);
        scans::check_gradients(inputs, [&](const Inputs& x) { return inner_product(reference(s, batch, x), dout); },
                               {{&Inputs::heads, &r.dheads},
                                {&Inputs::rows, &r.drows},
                                {&Inputs::tie, &r.dtie},
                                {&Inputs::gain, &r.dgain},
                                {&Inputs::distance, &r.ddistance}});
      });
    }
  });
}

TEST_CASE("a text as long as the window is seen as attention sees it") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t window : {0, 1, 3}) {
      const SpanKnotShape s = shape_of(2, 6, 24, window);
      const Batch batch{.sequences = 2, .length = 24 * (window + 1)};
      const Values in(s, batch);
      CHECK(difference(forward(q, s, batch, in), full_attention(q, s, batch, in, true)) <= 1e-6);
    }
  });
}

TEST_CASE("knots of spans whose tokens are equal count as their tokens do") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t span : {1, 8, 20}) {
      const SpanKnotShape s = shape_of(2, 6, span, 1);
      const Batch batch{.sequences = 2, .length = 150};
      Values in(s, batch);
      for (std::int64_t t = 0; t < batch.tokens(); ++t) {
        float* row = in.heads.data() + t * s.row();
        const std::int64_t first = t - t % batch.length % span;
        std::copy_n(in.heads.data() + first * s.row() + s.inner(), s.inner(), row + s.inner());
        std::copy_n(in.rows.data() + first * s.row(), s.row(), in.rows.data() + t * s.row());
        std::copy_n(row, 2 * s.inner(), row + s.turned());
      }
      std::fill(in.gain.begin(), in.gain.end(), std::log(static_cast<float>(span)));
      std::fill(in.distance.begin(), in.distance.end(), 0.f);
      CHECK(difference(forward(q, s, batch, in), full_attention(q, s, batch, in, false)) <= 2e-6);
    }
  });
}

TEST_CASE("keys that are all the same give the mean of what is seen") {
  on_every_cpu([](const Cpu& q) {
    const SpanKnotShape s = shape_of(1, 6, 8, 1);
    const Batch batch{.sequences = 1, .length = 100};
    Values in(s, batch);
    for (std::int64_t t = 0; t < batch.length; ++t)
      for (std::int64_t i = 0; i < 4 * s.inner(); ++i) in.heads[static_cast<std::size_t>(t * s.row() + i)] = 3.f;
    in.gain[0] = std::log(8.f);
    std::fill(in.distance.begin(), in.distance.end(), 0.f);
    Floats want;
    Doubles sums(6);
    for (std::int64_t t = 0; t < batch.length; ++t)
      for (std::size_t d = 0; d < 6; ++d) {
        sums[d] += static_cast<double>(in.rows[static_cast<std::size_t>(t * s.row() + s.values()) + d]);
        want.push_back(static_cast<float>(sums[d] / static_cast<double>(t + 1)));
      }
    CHECK(difference(forward(q, s, batch, in), want) <= 1e-6);
  });
}

TEST_CASE("a knot is seen when its span is whole and out of the window, to the bit") {
  on_every_cpu([](const Cpu& q) {
    for (const std::int64_t window : {0, 1, 2}) {
      const SpanKnotShape s = shape_of(2, 6, 16, window);
      const Batch batch{.sequences = 1, .length = 100};
      const Values in(s, batch);
      const Floats before = forward(q, s, batch, in);
      for (const std::int64_t moved : {17, 31, 40}) {
        Values other = in;
        for (std::int64_t i = 0; i < s.inner(); ++i) {
          const auto at = static_cast<std::size_t>(moved * s.row() + i);
          other.heads[at + static_cast<std::size_t>(s.inner())] += 1.f;  // its knot alone
        }
        const Floats after = forward(q, s, batch, other);
        const std::int64_t first = (moved / 16 + 1 + window) * 16;
        const auto bits = [&](const Floats& x, std::int64_t from, std::int64_t to) {
          return Floats(x.begin() + from * s.inner(), x.begin() + to * s.inner());
        };
        CHECK(bits(after, 0, first) == bits(before, 0, first));
        for (std::int64_t t = first; t < batch.length; ++t) CHECK(bits(after, t, t + 1) != bits(before, t, t + 1));
      }
    }
  });
}

TEST_CASE("spans and knots are the same bits for every number of threads") {
  const SpanKnotShape s = shape_of(3, 18, 8, 1);
  const Batch batch{.sequences = 2, .length = 150};
  const Values in(s, batch);
  const Floats dout = noise(batch.tokens() * s.inner(), 6);
  same_on_every_cpu([&](const Cpu& q) { return Results(q, s, batch, in, dout).all(); });
}

TEST_CASE("large scores give finite numbers") {
  on_every_cpu([](const Cpu& q) {
    const SpanKnotShape s = shape_of(2, 6, 8, 1);
    const Batch batch{.sequences = 1, .length = 100};
    Values in(s, batch);
    for (float& x : in.heads) x *= 50.f;
    for (float& x : in.tie) x *= 50.f;
    for (float& x : in.gain) x = x > 0 ? 50.f : -50.f;
    const Floats all = Results(q, s, batch, in, noise(batch.tokens() * s.inner(), 6)).all();
    CHECK(std::all_of(all.begin(), all.end(), [](float x) { return std::isfinite(x); }));
  });
}
