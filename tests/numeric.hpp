// What tests of kernels and layers share: values, every way a kernel can run, and comparisons.
#pragma once

#include <doctest/doctest.h>

#include <chimera/core/device.hpp>
#include <chimera/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline constexpr float unwritten = std::numeric_limits<float>::quiet_NaN();

/// n values in [-1, 1), the same for the same seed.
inline Floats noise(std::int64_t n, std::uint64_t seed) {
  Floats x(static_cast<std::size_t>(n));
  for (float& v : x) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    v = static_cast<float>(static_cast<std::int32_t>(seed >> 32)) / 2147483648.f;
  }
  return x;
}

inline Floats filled(std::int64_t n, float value) { return Floats(static_cast<std::size_t>(n), value); }
inline Floats zeros(std::int64_t n) { return filled(n, 0.f); }

template <class T>
Doubles doubles(const std::vector<T>& x) {
  return {x.begin(), x.end()};
}

inline chimera::Cpu cpu(chimera::Isa isa, int threads) {
  auto q = chimera::Cpu::create(threads);
  REQUIRE(q.ok());
  q->limit(isa);
  return std::move(*q);
}

/// Every level this processor runs: for kernels of integers. Those of floats differ by their lanes alone.
inline std::vector<chimera::Isa> every_level() {
#if defined(CHIMERA_ISA)
  return {chimera::Isa::CHIMERA_ISA};  // the only one that is compiled
#endif
  std::vector<chimera::Isa> levels;
  for (const chimera::Isa isa : chimera::all_levels)
    if (chimera::runs(isa)) levels.push_back(isa);
  return levels;
}

/// Calls f(q) for every number of lanes that this processor has, with one, two and three threads.
template <class F>
void on_every_cpu(F f) {
  for (const chimera::Isa isa : {chimera::Isa::base, chimera::Isa::avx2, chimera::Isa::avx512}) {
    if (!chimera::runs(isa)) continue;
    for (const int threads : {1, 2, 3}) {
      CAPTURE(chimera::name(isa));
      CAPTURE(threads);
      const chimera::Cpu q = cpu(isa, threads);
      f(q);
    }
  }
}

/// Calls f(q) with one, two and three threads at every level; what it returns must be the same bits for each number of
/// threads, and nearly the same at each level.
template <class F>
void same_on_every_cpu(F f, double tolerance = 1e-5);

/// Largest difference, over the largest value.
template <class A, class B>
double difference(const A& got, const B& want) {
  REQUIRE(got.size() == want.size());
  double worst = 0, largest = 1e-3;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i]));
    worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : std::max(worst, d);
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
  }
  return worst / largest;
}

template <class F>
void same_on_every_cpu(F f, double tolerance) {
  Floats first;
  for (const chimera::Isa isa : {chimera::Isa::base, chimera::Isa::avx2, chimera::Isa::avx512}) {
    if (!chimera::runs(isa)) continue;
    CAPTURE(chimera::name(isa));
    const Floats one = f(cpu(isa, 1));
    CHECK(f(cpu(isa, 2)) == one);
    CHECK(f(cpu(isa, 3)) == one);
    if (first.empty()) first = one;
    CHECK(difference(one, first) <= tolerance);
  }
}

/// Compares `gradient` with central differences of a scalar function in double, along three random directions.
inline void check_gradient(const std::function<double(const Doubles&)>& f, const Floats& x, const Floats& gradient,
                           double tolerance = 1e-4) {
  REQUIRE(x.size() == gradient.size());
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    constexpr double h = 1e-5;
    const Floats direction = noise(static_cast<std::int64_t>(x.size()), 77 * seed);
    Doubles up = doubles(x), down = up;
    double slope = 0, size = 1e-3;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double d = static_cast<double>(direction[i]), g = static_cast<double>(gradient[i]);
      up[i] += h * d, down[i] -= h * d;
      slope += g * d, size += g * g;
    }
    CHECK(std::abs((f(up) - f(down)) / (2 * h) - slope) <= tolerance * std::sqrt(size));
  }
}

template <class A, class B>
double inner_product(const A& a, const B& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

/// So many bytes of working memory, NaN at first.
inline Floats room(std::int64_t bytes) { return filled(bytes / static_cast<std::int64_t>(sizeof(float)), unwritten); }

/// document_start of rows of `length` tokens: row b's documents have the lengths given, and one more ends the row.
inline std::vector<std::int32_t> documents(std::int64_t length, const std::vector<std::vector<std::int32_t>>& rows) {
  std::vector<std::int32_t> start;
  for (const auto& lengths : rows) {
    std::int32_t begin = 0, end = 0;
    std::size_t next = 0;
    for (std::int32_t t = 0; t < length; ++t) {
      if (t == end) {
        begin = t;
        end = next < lengths.size() ? t + lengths[next++] : static_cast<std::int32_t>(length);
      }
      start.push_back(begin);
    }
  }
  return start;
}
