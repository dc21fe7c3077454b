// What holds for every layer, checked for any of them.
#pragma once

#include "numeric.hpp"

#include <chimera/layers/layer.hpp>

namespace checks {

using namespace chimera;

/// Random weights; those of matrices get smaller with their width.
template <class L>
Floats weights_of(std::uint64_t seed) {
  Floats w = zeros(static_cast<std::int64_t>(offsets<L>.back()));
  for (std::size_t p = 0; p < L::params.size(); ++p) {
    const Tensor& t = L::params[p];
    const Floats values = noise(t.size(), seed + p);
    const float scale = t.rows > 1 ? 2.f / std::sqrt(static_cast<float>(t.cols)) : 1.f;
    for (std::size_t i = 0; i < values.size(); ++i) w[offsets<L>[p] + i] = scale * values[i];
  }
  return w;
}

/// Working memory that is NaN at first and knows when something is written behind its end.
struct Memory {
  explicit Memory(std::int64_t bytes) : floats(room(bytes)) { floats.resize(floats.size() + 64, 12345.f); }
  ~Memory() { CHECK(std::count(floats.end() - 64, floats.end(), 12345.f) == 64); }
  Bump bump() { return Bump{floats.data()}; }

  Floats floats;
};

template <class L>
std::int64_t activation_bytes(const Batch& batch) {
  Bump count;
  L::bind(count, batch);
  return static_cast<std::int64_t>(count.used);
}

template <class L>
Floats forward(const Cpu& q, const Floats& w, const Batch& batch, const Floats& x) {
  Memory kept(activation_bytes<L>(batch)), temp(L::temp_bytes(batch));
  Bump memory = kept.bump();
  auto a = L::bind(memory, batch);
  Floats y = zeros(batch.tokens() * L::width);
  L::forward(q, {w.data()}, batch, x.data(), 1.f, y.data(), a, temp.bump());
  return y;
}

struct Results {
  Floats y, dx, dw;

  Floats all() const {
    Floats x = y;
    x.insert(x.end(), dx.begin(), dx.end());
    x.insert(x.end(), dw.begin(), dw.end());
    return x;
  }
};

/// Forward and backward of scale * layer; y and dw start at the values given.
template <class L>
Results run(const Cpu& q, const Floats& w, const Batch& batch, const Floats& x, const Floats& dy, float scale = 1.f,
            float y0 = 0.f, float dw0 = 0.f) {
  Memory kept(activation_bytes<L>(batch)), temp(L::temp_bytes(batch));
  Bump memory = kept.bump();
  auto a = L::bind(memory, batch);
  Results r{filled(batch.tokens() * L::width, y0), filled(batch.tokens() * L::width, unwritten),
            filled(static_cast<std::int64_t>(w.size()), dw0)};
  L::forward(q, {w.data()}, batch, x.data(), scale, r.y.data(), a, temp.bump());
  L::backward(q, {w.data()}, {r.dw.data()}, batch, x.data(), dy.data(), scale, r.dx.data(), a, temp.bump());
  return r;
}

/// Gradients against differences of fourth order in f32.
template <class L>
void gradients(std::int64_t T, const Floats& w = weights_of<L>(1)) {
  const Cpu q = cpu(detect_isa(), 2);
  const Batch batch{.sequences = 2, .length = T};
  const Floats x = noise(batch.tokens() * L::width, 2), dy = noise(batch.tokens() * L::width, 3);
  const Results r = run<L>(q, w, batch, x, dy);
  const auto check = [&](const std::string& what, const Floats& at, const Floats& gradient, std::size_t first,
                         std::size_t count, auto loss) {
    CAPTURE(what);
    for (std::uint64_t seed = 1; seed <= 2; ++seed) {
      const float h = 0.01f;
      const Floats direction = noise(static_cast<std::int64_t>(count), 77 * seed);
      const auto moved = [&](float distance) {
        Floats v = at;
        for (std::size_t i = 0; i < count; ++i) v[first + i] += distance * direction[i];
        return loss(v);
      };
      double slope = 0, size = 1e-4;
      for (std::size_t i = 0; i < count; ++i) {
        const double g = static_cast<double>(gradient[first + i]);
        slope += g * static_cast<double>(direction[i]), size += g * g;
      }
      const double difference =
          (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * static_cast<double>(h));
      CHECK(std::abs(difference - slope) <= 1e-3 * std::sqrt(size));
    }
  };
  check("x", x, r.dx, 0, x.size(), [&](const Floats& v) { return inner_product(forward<L>(q, w, batch, v), dy); });
  for (std::size_t p = 0; p < L::params.size(); ++p)
    if (L::params[p].role != Role::balance)
      check(std::string(L::params[p].name), w, r.dw, offsets<L>[p], static_cast<std::size_t>(L::params[p].size()),
            [&](const Floats& v) { return inner_product(forward<L>(q, v, batch, x), dy); });
}

/// y += scale f(x), dx = scale df . dy, dw += scale ...
template <class L>
void accumulation() {
  const Cpu q = cpu(detect_isa(), 1);
  const Batch batch{.sequences = 1, .length = 20};
  const Floats w = weights_of<L>(1), x = noise(20 * L::width, 2), dy = noise(20 * L::width, 3);
  const Results one = run<L>(q, w, batch, x, dy), half = run<L>(q, w, batch, x, dy, 0.5f, 3.f, 5.f);
  Floats y = one.y, dx = one.dx, dw = one.dw;
  for (float& v : y) v = 3.f + 0.5f * v;
  for (float& v : dx) v *= 0.5f;
  CHECK(difference(half.y, y) <= 1e-6);
  CHECK(difference(half.dx, dx) <= 1e-5);
  for (std::size_t p = 0; p < L::params.size(); ++p)
    for (std::size_t i = offsets<L>[p];
         L::params[p].role != Role::balance && i < offsets<L>[p] + static_cast<std::size_t>(L::params[p].size()); ++i)
      CHECK(std::abs(half.dw[i] - (5.f + 0.5f * dw[i])) <= 1e-5f * (10.f + std::abs(dw[i])));
}

/// Documents packed in a row are what each of them is alone, in value and in gradient.
template <class L>
void packed_documents(std::int64_t T) {
  on_every_cpu([&](const Cpu& q) {
    const std::vector<std::int32_t> start = documents(T, {{1, 30, 40, 1, 2}, {100}});
    const Batch batch{.sequences = 2, .length = T, .document_start = start.data()};
    const Floats w = weights_of<L>(1), x = noise(2 * T * L::width, 2), dy = noise(2 * T * L::width, 3);
    const Results packed = run<L>(q, w, batch, x, dy);
    Results alone{{}, {}, zeros(static_cast<std::int64_t>(w.size()))};
    for (std::int64_t first = 0, end = 0; first < 2 * T; first = end) {
      for (end = first + 1; end < 2 * T && end % T != 0 &&
                            start[static_cast<std::size_t>(end)] == start[static_cast<std::size_t>(first)];)
        ++end;
      const auto part = [&](const Floats& v) {
        return Floats(v.begin() + first * L::width, v.begin() + end * L::width);
      };
      const Results r = run<L>(q, w, {.sequences = 1, .length = end - first}, part(x), part(dy));
      alone.y.insert(alone.y.end(), r.y.begin(), r.y.end());
      alone.dx.insert(alone.dx.end(), r.dx.begin(), r.dx.end());
      for (std::size_t i = 0; i < r.dw.size(); ++i) alone.dw[i] += r.dw[i];
    }
    CHECK(difference(packed.y, alone.y) <= 5e-6);
    CHECK(difference(packed.dx, alone.dx) <= 5e-6);
    CHECK(difference(packed.dw, alone.dw) <= 5e-6);
  });
}

/// The same bits for every number of threads; nearly the same at every level.
template <class L>
void determinism(std::int64_t T) {
  const std::vector<std::int32_t> start = documents(T, {{1, 30, 40, 1, 2}, {100}});
  const Batch batch{.sequences = 2, .length = T, .document_start = start.data()};
  const Floats w = weights_of<L>(1), x = noise(2 * T * L::width, 2), dy = noise(2 * T * L::width, 3);
  same_on_every_cpu([&](const Cpu& q) { return run<L>(q, w, batch, x, dy).all(); });
}

/// Four times the tokens need at most four times the memory, in what is kept and in what is not.
template <class L>
void memory_is_linear() {
  for (const std::int64_t T : {256, 4096}) {
    const Batch one{.sequences = 1, .length = T}, four{.sequences = 1, .length = 4 * T};
    CHECK(activation_bytes<L>(four) <= 4 * activation_bytes<L>(one));
    CHECK(L::temp_bytes(four) <= 4 * L::temp_bytes(one));
  }
}

}  // namespace checks
