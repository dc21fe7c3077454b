// Vectors of W floats, and the one place that selects an instruction set.
//
// A kernel is a struct with `template <int W> CHIMERA_INLINE static void run(args...)`; `dispatch<Kernel>(isa,
// args...)` runs it with W = 16 (AVX-512), 8 (AVX2 + FMA) or 4 (whatever the host compiles for: SSE2, NEON). Nothing
// outside the attributed entries at the foot of this file uses wider instructions, so a binary built with plain -O2
// runs anywhere.
#pragma once

#include <chimera/core/isa.hpp>
#include <chimera/core/namespace.hpp>

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define CHIMERA_INLINE __attribute__((__always_inline__)) inline
#define CHIMERA_LAMBDA __attribute__((__always_inline__))
/// Operations of this block are done as they are written. clang has no macros for parts of -ffast-math; g++ has
/// (core/version.hpp).
#if defined(__clang__)
#define CHIMERA_IN_ORDER _Pragma("clang fp reassociate(off)")
#else
#define CHIMERA_IN_ORDER
#endif
#if defined(__x86_64__) || defined(__i386__)
#define CHIMERA_AVX2 __attribute__((__target__("avx2,fma,f16c")))
#define CHIMERA_AVX512 __attribute__((__target__("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")))
#endif

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// W f32 in one register, or in several where the processor's are narrower. A class with its own copy constructor, so
/// that the compiler never asks which registers would carry it between functions (-Wpsabi).
template <int W>
struct Vec {
  typedef float Native __attribute__((__vector_size__(W * 4)));
  typedef std::int32_t Bits __attribute__((__vector_size__(W * 4)));
  Native v{};

  CHIMERA_INLINE Vec() {}
  /// Through memory: g++ 12 takes `x - Native{}` apart before it knows the target, this it sees as one broadcast.
  CHIMERA_INLINE Vec(float x) {
    float all[W];
    for (int i = 0; i < W; ++i) all[i] = x;
    std::memcpy(&v, all, sizeof v);
  }
  CHIMERA_INLINE explicit Vec(const Native& x) : v(x) {}
  CHIMERA_INLINE Vec(const Vec& x) : v(x.v) {}
  CHIMERA_INLINE Vec& operator=(const Vec& x) {
    v = x.v;
    return *this;
  }

  CHIMERA_INLINE static Vec load(const float* p) {
    Vec r;
    std::memcpy(&r.v, p, sizeof r.v);
    return r;
  }
  /// The first n floats, n < W, and zeros behind them.
  CHIMERA_INLINE static Vec load(const float* p, std::int64_t n) {
    Vec r;
    std::memcpy(&r.v, p, static_cast<std::size_t>(n) * sizeof(float));
    return r;
  }
  CHIMERA_INLINE void store(float* p) const { std::memcpy(p, &v, sizeof v); }
  CHIMERA_INLINE void store(float* p, std::int64_t n) const {
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
  }

  CHIMERA_INLINE friend Vec operator+(const Vec& a, const Vec& b) {
    CHIMERA_IN_ORDER
    return Vec(a.v + b.v);
  }
  CHIMERA_INLINE friend Vec operator-(const Vec& a, const Vec& b) {
    CHIMERA_IN_ORDER
    return Vec(a.v - b.v);
  }
  CHIMERA_INLINE friend Vec operator*(const Vec& a, const Vec& b) {
    CHIMERA_IN_ORDER
    return Vec(a.v * b.v);
  }
  CHIMERA_INLINE friend Vec operator/(const Vec& a, const Vec& b) {
    CHIMERA_IN_ORDER
    return Vec(a.v / b.v);
  }
  CHIMERA_INLINE friend Vec operator-(const Vec& a) { return Vec(-a.v); }
  CHIMERA_INLINE Vec& operator+=(const Vec& b) {
    CHIMERA_IN_ORDER
    v += b.v;
    return *this;
  }
  CHIMERA_INLINE Vec& operator*=(const Vec& b) {
    CHIMERA_IN_ORDER
    v *= b.v;
    return *this;
  }
};

/// x, rounded: what is done with it cannot be joined with what made it, whatever the host's flags and pragmas allow. In
/// clang no operator above can be.
template <int W>
CHIMERA_INLINE Vec<W> rounded(Vec<W> x) {
#if !defined(__clang__) && !defined(__CUDACC__)  // nvcc's front end does not know the builtin
  if constexpr (W < 16) {
    x.v = __builtin_assoc_barrier(x.v);
  } else {  // g++ 12 takes 16 lanes apart for it
    std::int32_t zero = 0;
    asm("" : "+r"(zero));
    x.v = reinterpret_cast<typename Vec<W>::Native>(reinterpret_cast<typename Vec<W>::Bits>(x.v) ^ zero);
  }
#endif
  return x;
}

/// a b + c in one instruction where there is one.
template <int W>
CHIMERA_INLINE Vec<W> fma(const Vec<W>& a, const Vec<W>& b, const Vec<W>& c) {
  CHIMERA_IN_ORDER
  return Vec<W>(a.v * b.v + c.v);
}

/// x < y ? a : b, lane by lane.
template <int W>
CHIMERA_INLINE Vec<W> less(const Vec<W>& x, const Vec<W>& y, const Vec<W>& a, const Vec<W>& b) {
  return Vec<W>(x.v < y.v ? a.v : b.v);
}

template <int W>
CHIMERA_INLINE Vec<W> max(const Vec<W>& a, const Vec<W>& b) {
  return Vec<W>(a.v > b.v ? a.v : b.v);
}

template <int W>
CHIMERA_INLINE Vec<W> min(const Vec<W>& a, const Vec<W>& b) {
  return Vec<W>(a.v < b.v ? a.v : b.v);
}

/// The square root of 0 and of normal positive x, relative error below 3e-7: three steps of Newton's method for
/// 1/sqrt(x) from a guess in the exponent's bits. (The square root of <cmath> sets errno, which keeps compilers from
/// using vectors.)
template <int W>
CHIMERA_INLINE Vec<W> sqrt(const Vec<W>& x) {
  using V = Vec<W>;
  using Bits = typename V::Bits;
  V y(reinterpret_cast<typename V::Native>(0x5F3759DF - (reinterpret_cast<Bits>(x.v) >> 1)));
  const V half = V(-0.5f) * x;
  for (int step = 0; step < 3; ++step) y = y * fma<W>(half * y, y, V(1.5f));
  return x * y;
}

/// Lane i of the result is lane pick(i) of a's lanes with b's behind them. Widths are written out, for nvcc takes no
/// pack there; wider ones than any register go lane by lane.
template <auto pick, int W, int N>
CHIMERA_INLINE Vec<W> shuffle(const Vec<N>& a, const Vec<N>& b) {
  if constexpr (W == 4) {
    return Vec<W>(__builtin_shufflevector(a.v, b.v, pick(0), pick(1), pick(2), pick(3)));
  } else if constexpr (W == 8) {
    return Vec<W>(__builtin_shufflevector(a.v, b.v, pick(0), pick(1), pick(2), pick(3),  //
                                          pick(4), pick(5), pick(6), pick(7)));
  } else if constexpr (W == 16) {
    return Vec<W>(__builtin_shufflevector(a.v, b.v, pick(0), pick(1), pick(2), pick(3),  //
                                          pick(4), pick(5), pick(6), pick(7),            //
                                          pick(8), pick(9), pick(10), pick(11),          //
                                          pick(12), pick(13), pick(14), pick(15)));
  } else {
    Vec<W> r;
    for (int i = 0; i < W; ++i) r.v[i] = pick(i) < N ? a.v[pick(i)] : b.v[pick(i) - N];
    return r;
  }
}

/// x1 x0 x3 x2 ...
template <int W>
CHIMERA_INLINE Vec<W> swap_pairs(const Vec<W>& x) {
  constexpr auto other = [](int i) { return i ^ 1; };
  return shuffle<other, W>(x, x);
}

/// The lanes of two vectors of half the width.
template <int W>
CHIMERA_INLINE Vec<W> joined(const Vec<W / 2>& low, const Vec<W / 2>& high) {
  constexpr auto same = [](int i) { return i; };
  return shuffle<same, W>(low, high);
}

/// Sum of the lanes: halves are added until one is left.
template <int W>
CHIMERA_INLINE float sum(const Vec<W>& x) {
  if constexpr (W == 1) {
    return x.v[0];
  } else {
    float half[W];
    x.store(half);
    return sum<W / 2>(Vec<W / 2>::load(half) + Vec<W / 2>::load(half + W / 2));
  }
}

template <int W>
CHIMERA_INLINE float largest(const Vec<W>& x) {
  float m = x.v[0];
  for (int i = 1; i < W; ++i) m = x.v[i] > m ? x.v[i] : m;
  return m;
}

/// e^x, relative error below 2e-7; NaN stays NaN, results below the smallest f32 are 0, above the largest infinite.
/// x = n ln 2 + r with ln 2 in two parts (Cody and Waite), then a polynomial of degree 6 on |r| <= ln 2 / 2.
template <int W>
CHIMERA_INLINE Vec<W> exp(const Vec<W>& x) {
  using V = Vec<W>;
  const V clamped = min<W>(max<W>(V(-104.f), x), V(89.f));
  const V magic = 12582912.f;  // 1.5 * 2^23: adding it rounds to the nearest integer
  const V n = rounded<W>(fma<W>(clamped, V(1.44269504088896341f), magic)) - magic;
  const V r = fma<W>(n, V(2.12194440e-4f), rounded<W>(fma<W>(n, V(-0.693359375f), clamped)));
  V p = fma<W>(r, V(1.9875691500e-4f), V(1.3981999507e-3f));
  p = fma<W>(p, r, V(8.3334519073e-3f));
  p = fma<W>(p, r, V(4.1665795894e-2f));
  p = fma<W>(p, r, V(1.6666665459e-1f));
  p = fma<W>(p, r, V(5.0000001201e-1f));
  p = fma<W>(p, r * r, r + V(1.f));
  // 2^n in two halves, so that underflow and infinity come out by themselves.
  using Bits = typename V::Bits;
  const Bits whole = __builtin_convertvector(n.v, Bits);
  const Bits half = whole >> 1;
  const V low(reinterpret_cast<typename V::Native>((half + 127) << 23));
  const V high(reinterpret_cast<typename V::Native>((whole - half + 127) << 23));
  const V y = p * low * high;
  return V((reinterpret_cast<Bits>(x.v) & 0x7fffffff) > 0x7f800000 ? x.v : y.v);
}

/// ln x for normal positive x, relative error below 2e-7 (near x = 1: absolute).
template <int W>
CHIMERA_INLINE Vec<W> log(const Vec<W>& x) {
  using V = Vec<W>;
  using Bits = typename V::Bits;
  const Bits bits = reinterpret_cast<Bits>(x.v);
  V m(reinterpret_cast<typename V::Native>((bits & 0x007fffff) | 0x3f000000));  // in [0.5, 1)
  const Bits below = m.v < 0.707106781f;                                        // -1 where true
  const V n(__builtin_convertvector(((bits >> 23) & 255) - 126 + below, typename V::Native));
  m = V(below ? m.v + m.v : m.v) - V(1.f);
  V p = fma<W>(m, V(7.0376836292e-2f), V(-1.1514610310e-1f));
  p = fma<W>(p, m, V(1.1676998740e-1f));
  p = fma<W>(p, m, V(-1.2420140846e-1f));
  p = fma<W>(p, m, V(1.4249322787e-1f));
  p = fma<W>(p, m, V(-1.6668057665e-1f));
  p = fma<W>(p, m, V(2.0000714765e-1f));
  p = fma<W>(p, m, V(-2.4999993993e-1f));
  p = fma<W>(p, m, V(3.3333331174e-1f));
  const V z = m * m;
  const V tail = fma<W>(p, m * z, fma<W>(n, V(-2.12194440e-4f), z * V(-0.5f)));
  return fma<W>(n, V(0.693359375f), m + tail);
}

template <int W>
CHIMERA_INLINE Vec<W> sigmoid(const Vec<W>& x) {
  return Vec<W>(1.f) / (Vec<W>(1.f) + exp<W>(-x));
}

/// ln(1 + e^x), without overflow for large x and without loss for very negative x.
template <int W>
CHIMERA_INLINE Vec<W> softplus(const Vec<W>& x) {
  using V = Vec<W>;
  const V u = exp<W>(less<W>(V(0.f), x, -x, x));  // in (0, 1]
  const V w = rounded<W>(V(1.f) + u), d = w - V(1.f);
  // ln(1 + u) = ln(w) u / (w - 1): the rounding of w cancels (Goldberg 1991, theorem 4).
  const V ratio = u / V(d.v == 0.f ? V(1.f).v : d.v);
  const V l(d.v == 0.f ? u.v : (log<W>(w) * ratio).v);
  return max<W>(x, V(0.f)) + l;
}

template <int W>
CHIMERA_INLINE Vec<W> tanh(const Vec<W>& x) {
  using V = Vec<W>;
  const V a = max<W>(x, -x);
  const V e = exp<W>(a * V(-2.f));
  const V outer = (V(1.f) - e) / (V(1.f) + e);
  // Near zero 1 - e loses digits; the odd series to x^9 is exact to 1e-7 there.
  const V z = x * x;
  V inner = fma<W>(z, V(62.f / 2835), V(-17.f / 315));
  inner = fma<W>(fma<W>(inner, z, V(2.f / 15)), z, V(-1.f / 3));
  inner = fma<W>(x * z, inner, x);
  return less<W>(a, V(0.25f), inner, less<W>(x, V(0.f), -outer, outer));
}

/// x sigmoid(x), and its derivative.
template <int W>
CHIMERA_INLINE Vec<W> silu(const Vec<W>& x) {
  return x * sigmoid<W>(x);
}
template <int W>
CHIMERA_INLINE Vec<W> silu_slope(const Vec<W>& x) {
  const Vec<W> s = sigmoid<W>(x);
  return s * fma<W>(x, Vec<W>(1.f) - s, Vec<W>(1.f));
}

/// Whole vectors, and the last n % W lanes: how `lanes` below hands out a row.
template <int W>
struct Whole {
  CHIMERA_INLINE Vec<W> load(const float* p) const { return Vec<W>::load(p); }
  CHIMERA_INLINE void store(float* p, const Vec<W>& x) const { x.store(p); }
};
template <int W>
struct Part {
  std::int64_t n;
  CHIMERA_INLINE Vec<W> load(const float* p) const { return Vec<W>::load(p, n); }
  CHIMERA_INLINE void store(float* p, const Vec<W>& x) const { x.store(p, n); }
};

/// One or the other.
template <int W>
struct WholeOrPart {
  std::int64_t n;
  CHIMERA_INLINE Vec<W> load(const float* p) const { return n < W ? Vec<W>::load(p, n) : Vec<W>::load(p); }
  CHIMERA_INLINE void store(float* p, const Vec<W>& x) const { n < W ? x.store(p, n) : x.store(p); }
};

/// Fetches a line that is to be written, so that no other core holds it then. g++ has the instruction behind a flag.
CHIMERA_INLINE void prefetch_to_write(const void* p) {
#if defined(__x86_64__)
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

/// Calls f(i, io) for i = 0, W, 2W ... below n; io.load(p + i) and io.store(p + i, x) stay inside the row.
/// f must be a CHIMERA_LAMBDA: a plain lambda is a function of its own and would not share the caller's target.
template <int W, class F>
CHIMERA_INLINE void lanes(std::int64_t n, F f) {
  std::int64_t i = 0;
  for (; i + W <= n; i += W) f(i, Whole<W>{});
  if (i < n) f(i, Part<W>{n - i});
}

/// The same with one copy of f instead of two, which costs a branch at each load: for long f and short rows.
template <int W, class F>
CHIMERA_INLINE void lanes_of_one_copy(std::int64_t n, F f) {
  for (std::int64_t i = 0; i < n; i += W) f(i, WholeOrPart<W>{n - i});
}

#if defined(__x86_64__) || defined(__i386__)
template <class Kernel, class... P>
CHIMERA_AVX512 inline void run_lanes(std::integral_constant<int, 16>, P... a) {
  Kernel::template run<16>(a...);
}
template <class Kernel, class... P>
CHIMERA_AVX2 inline void run_lanes(std::integral_constant<int, 8>, P... a) {
  Kernel::template run<8>(a...);
}
#endif
/// Never inlined, as the other two cannot be: a copy for each call costs a compiler more than the call costs a program.
template <class Kernel, class... P>
__attribute__((noinline)) inline void run_lanes(std::integral_constant<int, 4>, P... a) {
  Kernel::template run<4>(a...);
}

/// `dispatch`, told the parameters of the kernel's `run`.
template <class Kernel, class... P>
void dispatch_as(void (*)(P...), [[maybe_unused]] Isa isa, std::type_identity_t<P>... a) {
#if defined(CHIMERA_ISA)
  run_lanes<Kernel, P...>(std::integral_constant<int, lanes(Isa::CHIMERA_ISA)>{}, a...);
#elif defined(__x86_64__) || defined(__i386__)
  switch (lanes(isa)) {
    case 16: return run_lanes<Kernel, P...>(std::integral_constant<int, 16>{}, a...);
    case 8: return run_lanes<Kernel, P...>(std::integral_constant<int, 8>{}, a...);
    default: return run_lanes<Kernel, P...>(std::integral_constant<int, 4>{}, a...);
  }
#else
  run_lanes<Kernel, P...>(std::integral_constant<int, 4>{}, a...);
#endif
}

/// Runs the kernel's variant for that level; arguments pass by value, as the types that `run` names: every kernel is
/// compiled once for each width. CHIMERA_ISA, if defined (a level's name), is the only level that is compiled: a
/// program for one machine alone compiles in two thirds of the time.
template <class Kernel, class... A>
void dispatch(Isa isa, A&&... a) {
  using Run = decltype(&Kernel::template run<4>);
  dispatch_as<Kernel>(Run{}, isa, std::forward<A>(a)...);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
