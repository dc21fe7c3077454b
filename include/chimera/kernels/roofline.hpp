// What this machine can do at most: the rates other programs quote their share of.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <numeric>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace roofline {

/// Seconds of the fastest run of f, which is repeated for `budget` seconds.
template <class F>
double best_seconds(double budget, F&& f) {
  const auto now = [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
  const double start = now();
  double best = 1e30, t = start;
  do {
    f();
    const double end = now();
    best = std::min(best, end - t);
    t = end;
  } while (t - start < budget);
  return best;
}

/// Steps a second of all threads of q together, `chunk` steps at a time for 0.1 s: the sum of each thread's best, so
/// that other programs disturb little.
template <class F>
double steps_per_second(const Cpu& q, std::int64_t chunk, F&& run) {
  std::vector<double> rates(static_cast<std::size_t>(q.threads()));
  parallel(q, q.threads(), [&](std::int64_t i, int worker) {
    rates[static_cast<std::size_t>(i)] = static_cast<double>(chunk) / best_seconds(0.1, [&] { run(chunk, worker); });
  });
  return std::accumulate(rates.begin(), rates.end(), 0.);
}

/// f32 operations a second of all threads of q together; a multiply-add counts two. Takes 0.1 s.
double measure_peak_f32(const Cpu& q);

/// Bytes read from memory a second by all threads of q together, from a buffer far larger than the caches. Takes 1 s.
Result<double> measure_read_bandwidth(const Cpu& q);

/// The fastest way this processor has to multiply bytes and add the products in 32 bits.
struct Int8 {
  const char* name = "none";
  int products = 0;  // a step
  void (*run)(std::int64_t steps) = nullptr;
};

/// int8 operations a second of all threads of q together, a multiply-add counts two; 0 without such instructions.
double measure_peak_int8(const Cpu& q);

/// Operations a second on pairs of BF16 with f32 sums (vdpbf16ps) of all threads of q together, a multiply-add counts
/// two; 0 without the instruction.
double measure_peak_bf16(const Cpu& q);

}  // namespace roofline

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace roofline {

/// s = a s + b in as many independent chains as the instruction's latency needs. The chains start apart, or a compiler
/// would see that they are all the same.
struct MultiplyAdd {
  static constexpr int chains = 12;
  template <int W>
  CHIMERA_INLINE static void run(std::int64_t steps, float* out) {
    using V = Vec<W>;
    V s[chains];
    const V a = out[0], b = out[1];
#pragma GCC unroll 12
    for (int c = 0; c < chains; ++c) s[c] = V(static_cast<float>(c));
    for (std::int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 12
      for (int c = 0; c < chains; ++c) s[c] = fma<W>(s[c], a, b);
    }
#pragma GCC unroll 12
    for (int c = 1; c < chains; ++c) s[0] += s[c];
    s[0].store(out);
  }
};

CHIMERA_FUNCTION double measure_peak_f32(const Cpu& q) {
  const double steps = steps_per_second(q, 50'000, [&](std::int64_t n, int worker) {
    float* const out = q.scratch(worker);
    out[0] = 0.5f, out[1] = 1.f;
    dispatch<MultiplyAdd>(q.isa(), n, out);
  });
  return 2. * MultiplyAdd::chains * lanes(q.isa()) * steps;
}

/// Sum of n floats, n a multiple of 128: nothing but loads and adds.
struct Read {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, float* out) {
    Vec<W> s[8];
    for (std::int64_t i = 0; i < n; i += 8 * W) {
#pragma GCC unroll 8
      for (int c = 0; c < 8; ++c) s[c] += Vec<W>::load(x + i + c * W);
    }
#pragma GCC unroll 8
    for (int c = 1; c < 8; ++c) s[0] += s[c];
    s[0].store(out);
  }
};

CHIMERA_FUNCTION Result<double> measure_read_bandwidth(const Cpu& q) {
  constexpr std::int64_t floats = std::int64_t{128} << 20, part = std::int64_t{1} << 19;
  auto buffer = Buffer::create(floats);
  if (!buffer) return buffer.error();
  // Pages that were never written are all the same one, which stays in the caches.
  parallel(q, floats / part, [&](std::int64_t i, int) { std::fill_n(buffer->data() + i * part, part, 1.f); });
  const double seconds = best_seconds(1, [&] {
    parallel(q, floats / part, [&](std::int64_t i, int worker) {
      dispatch<Read>(q.isa(), buffer->data() + i * part, part, q.scratch(worker));
    });
  });
  return sizeof(float) * static_cast<double>(floats) / seconds;
}

#if defined(__x86_64__)
template <int bytes>
struct DotChains {
  typedef std::int32_t Lanes __attribute__((__vector_size__(bytes)));
  static constexpr int count = 10;
};

CHIMERA_AVX2 inline void int8_avx2(std::int64_t steps) {
  using C = DotChains<32>;
  C::Lanes s[C::count] = {}, a = {}, ones = {}, t;
  for (std::int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 10
    for (int c = 0; c < C::count; ++c)
      __asm__ volatile("vpmaddubsw %2, %2, %1\n\tvpmaddwd %3, %1, %1\n\tvpaddd %1, %0, %0"
                       : "+x"(s[c]), "=&x"(t)
                       : "x"(a), "x"(ones));
  }
}

__attribute__((__target__("avx2,avxvnni"))) inline void int8_avx_vnni(std::int64_t steps) {
  using C = DotChains<32>;
  C::Lanes s[C::count] = {}, a = {};
  for (std::int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 10
    for (int c = 0; c < C::count; ++c) __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(s[c]) : "x"(a));
  }
}

__attribute__((__target__("avx512f,avx512vnni"))) inline void int8_avx512_vnni(std::int64_t steps) {
  using C = DotChains<64>;
  C::Lanes s[C::count] = {}, a = {};
  for (std::int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 10
    for (int c = 0; c < C::count; ++c) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(s[c]) : "v"(a));
  }
}

__attribute__((__target__("avx512f,avx512bf16"))) inline void bf16_avx512(std::int64_t steps) {
  using C = DotChains<64>;
  C::Lanes s[C::count] = {}, a = {};
  for (std::int64_t i = 0; i < steps; ++i) {
#pragma GCC unroll 10
    for (int c = 0; c < C::count; ++c) __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(s[c]) : "v"(a));
  }
}

inline Int8 best_int8(Isa isa) {
  if (isa >= Isa::avx512_vnni) return {"vpdpbusd", 64 * DotChains<64>::count, int8_avx512_vnni};
  if (isa == Isa::avx_vnni) return {"vpdpbusd", 32 * DotChains<32>::count, int8_avx_vnni};
  if (isa >= Isa::avx2) return {"vpmaddubsw, vpmaddwd, vpaddd", 32 * DotChains<32>::count, int8_avx2};
  return {};
}
#else
inline Int8 best_int8(Isa) { return {}; }
#endif

CHIMERA_FUNCTION double measure_peak_int8(const Cpu& q) {
  const Int8 kernel = best_int8(q.isa());
  if (!kernel.run) return 0;
  return 2. * kernel.products * steps_per_second(q, 50'000, [&](std::int64_t n, int) { kernel.run(n); });
}

CHIMERA_FUNCTION double measure_peak_bf16([[maybe_unused]] const Cpu& q) {
#if defined(__x86_64__)
  constexpr int products = 32 * DotChains<64>::count;  // a step
  if (q.isa() >= Isa::avx512_bf16)
    return 2. * products * steps_per_second(q, 50'000, [](std::int64_t n, int) { bf16_avx512(n); });
#endif
  return 0;
}

}  // namespace roofline

}  // namespace chimera::inline CHIMERA_ABI
#endif
