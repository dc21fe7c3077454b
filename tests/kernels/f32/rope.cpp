#include "numeric.hpp"

#include <chimera/kernels/f32/rope.hpp>

#include <complex>

using namespace chimera;

namespace {

Floats frequencies(const Rope& r, int dims, int context, int length, float* factor = nullptr) {
  Floats inverse = filled(dims / 2, unwritten);
  const float f = rope_frequencies(r, dims, context, length, inverse.data());
  if (factor) *factor = f;
  return inverse;
}

/// Turns every pair as a complex number.
Doubles reference(RopeShape s, const std::vector<std::int64_t>& position, const Floats& inverse, const Floats& x) {
  Doubles y = doubles(x);
  for (std::size_t t = 0; t < position.size(); ++t)
    for (std::int64_t h = 0; h < s.heads; ++h)
      for (std::int64_t i = 0; i < s.dims / 2; ++i) {
        const auto base = t * static_cast<std::size_t>(s.stride) + static_cast<std::size_t>(h * s.head_dim);
        const auto a = base + static_cast<std::size_t>(s.layout == RopeLayout::halves ? i : 2 * i);
        const auto b = a + static_cast<std::size_t>(s.layout == RopeLayout::halves ? s.dims / 2 : 1);
        const double angle =
            static_cast<double>(position[t]) * static_cast<double>(inverse[static_cast<std::size_t>(i)]);
        const std::complex<double> z = std::complex(y[a], y[b]) * std::polar(1.0, angle);
        y[a] = z.real(), y[b] = z.imag();
      }
  return y;
}

}  // namespace

TEST_CASE("rotation turns pairs of both layouts; positions count from the document's start; -1 turns back") {
  on_every_cpu([](const Cpu& q) {
    for (const RopeLayout layout : {RopeLayout::adjacent, RopeLayout::halves})
      for (const std::int64_t dims : {4, 10, 22}) {
        CAPTURE(dims);
        const std::int64_t B = 2, T = 37, heads = 3, head_dim = 23, stride = heads * head_dim + 2, first = 5;
        const RopeShape s{heads, head_dim, dims, stride, layout};
        const Floats inverse = frequencies({}, static_cast<int>(dims), 64, 64);
        RopeTurns turns;
        std::copy(inverse.begin(), inverse.end(), turns.inverse.begin());
        Floats table = filled(T * rope_row(dims, layout), unwritten);
        rope_table(q, turns, dims, layout, first, T, table.data());
        const std::vector<std::int32_t> start = documents(T, {{1, 9, 20}, {30}});
        for (const std::int32_t* documents_of : {static_cast<const std::int32_t*>(nullptr), start.data()}) {
          const Batch batch{.sequences = B, .length = T, .document_start = documents_of, .position = first};
          std::vector<std::int64_t> position;
          for (std::int64_t t = 0; t < B * T; ++t)
            position.push_back(first + t % T - (documents_of ? documents_of[t] : 0));
          const Floats x = noise(B * T * stride, 1);
          Floats y = x;
          rope(q, s, batch, 1.f, table.data(), y.data());
          CHECK(difference(y, reference(s, position, inverse, x)) <= 1e-6);
          rope(q, s, batch, -1.f, table.data(), y.data());
          CHECK(difference(y, x) <= 1e-6);
        }
      }
  });
}

TEST_CASE("every extension leaves the frequencies alone at a factor of 1") {
  const Floats plain = frequencies({}, 32, 1024, 1024);
  CHECK(plain[0] == 1.f);
  CHECK(std::abs(static_cast<double>(plain[8]) - 0.01) < 1e-8);
  for (const RopeScaling scaling :
       {RopeScaling::linear, RopeScaling::ntk, RopeScaling::dynamic_ntk, RopeScaling::yarn, RopeScaling::llama3}) {
    Rope r;
    r.scaling = scaling;
    float factor = 0;
    CHECK(difference(frequencies(r, 32, 1024, 1024, &factor), plain) <= 1e-7);
    CHECK(factor == 1.f);
  }
}

TEST_CASE("extensions stretch what they say") {
  const Floats plain = frequencies({}, 32, 1024, 1024);
  Rope r{.scaling = RopeScaling::linear, .factor = 4.f};
  Floats stretched = frequencies(r, 32, 1024, 4096);
  for (std::size_t i = 0; i < plain.size(); ++i) CHECK(stretched[i] == doctest::Approx(plain[i] / 4));

  // NTK-aware: the fastest pair is kept, the slowest is stretched by the whole factor.
  r.scaling = RopeScaling::ntk;
  stretched = frequencies(r, 32, 1024, 4096);
  CHECK(stretched[0] == plain[0]);
  CHECK(stretched[15] == doctest::Approx(plain[15] / 4));

  // The dynamic form does nothing within the trained context.
  r.scaling = RopeScaling::dynamic_ntk;
  CHECK(frequencies(r, 32, 1024, 1024) == plain);
  CHECK(frequencies(r, 32, 1024, 2048)[15] < plain[15]);

  // YaRN: fast pairs are kept, slow ones stretched, between them a ramp that never rises; scores get 0.1 ln f + 1.
  r.scaling = RopeScaling::yarn;
  float factor = 0;
  stretched = frequencies(r, 32, 1024, 4096, &factor);
  CHECK(factor == doctest::Approx(0.1 * std::log(4.0) + 1));
  CHECK(stretched[0] == plain[0]);
  CHECK(stretched[15] == doctest::Approx(plain[15] / 4));
  for (std::size_t i = 1; i < plain.size(); ++i)
    CHECK(stretched[i] / plain[i] <= stretched[i - 1] / plain[i - 1] + 1e-6f);
  r.attention_factor = 0.5f;
  frequencies(r, 32, 1024, 4096, &factor);
  CHECK(factor == 0.5f);

  // LongRoPE: one set of factors up to the trained context, the other beyond it.
  r = Rope{.scaling = RopeScaling::longrope, .factor = 4.f};
  r.short_factor.fill(1.f), r.long_factor.fill(8.f);
  CHECK(difference(frequencies(r, 32, 1024, 1024, &factor), plain) <= 1e-7);
  CHECK(factor == doctest::Approx(std::sqrt(1 + std::log(4.0) / std::log(1024.0))));
  CHECK(frequencies(r, 32, 1024, 1025)[3] == doctest::Approx(plain[3] / 8));
}

TEST_CASE("angles are exact far from the start") {
  on_every_cpu([](const Cpu& q) {
    for (const RopeLayout layout : {RopeLayout::adjacent, RopeLayout::halves})
      for (const std::int64_t position : {0, 1, 8191, 131'071, 1 << 30}) {
        CAPTURE(position);
        const std::int64_t dims = 70;
        const Floats inverse = frequencies({}, 70, 1024, 1024);
        RopeTurns turns{.factor = 1.5f};
        std::copy(inverse.begin(), inverse.end(), turns.inverse.begin());
        Floats angles = filled(rope_row(dims, layout), unwritten), want = angles;
        rope_angles(q.isa(), turns, dims, layout, position, angles.data());
        for (std::size_t i = 0; i < 35; ++i) {
          const double angle = static_cast<double>(position) * static_cast<double>(inverse[i]);
          const auto c = static_cast<float>(1.5 * std::cos(angle)), s = static_cast<float>(1.5 * std::sin(angle));
          if (layout == RopeLayout::halves)
            want[i] = c, want[35 + i] = s;
          else
            want[2 * i] = want[2 * i + 1] = c, want[70 + 2 * i] = -s, want[70 + 2 * i + 1] = s;
        }
        CHECK(difference(angles, want) <= 2e-7);
      }
  });
}

TEST_CASE("LongRoPE leaves the first positions as they were, if it is told to") {
  on_every_cpu([](const Cpu& q) {
    Rope r{.scaling = RopeScaling::longrope, .factor = 4.f, .original_context = 64, .attention_factor = 1.f, .kept = 3};
    r.short_factor.fill(4.f), r.long_factor.fill(4.f);
    const RopeTurns kept = rope_turns(r, 16, 256), plain = rope_turns({}, 16, 256);
    const std::int64_t row = rope_row(16, RopeLayout::halves);
    Floats a = filled(8 * row, unwritten), b = a, scaled = a;
    rope_table(q, kept, 16, RopeLayout::halves, 0, 8, a.data());
    rope_table(q, plain, 16, RopeLayout::halves, 0, 8, b.data());
    RopeTurns all = kept;
    all.kept = 0;
    rope_table(q, all, 16, RopeLayout::halves, 0, 8, scaled.data());
    std::copy(scaled.begin() + 3 * row, scaled.end(), b.begin() + 3 * row);
    CHECK(a == b);
    CHECK(a != scaled);
  });
}

TEST_CASE("frequencies are constants of a config") {
  constexpr float third = [] {
    float inverse[8] = {};
    rope_frequencies({.scaling = RopeScaling::yarn, .factor = 4.f}, 16, 1024, 4096, inverse);
    return inverse[3];
  }();
  CHECK(frequencies({.scaling = RopeScaling::yarn, .factor = 4.f}, 16, 1024, 4096)[3] == third);
}
