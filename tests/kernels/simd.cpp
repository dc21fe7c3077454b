#include <doctest/doctest.h>

#include <algorithm>
#include <chimera/core/isa.hpp>
#include <chimera/kernels/simd.hpp>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>
#include <xsimd/xsimd.hpp>

using namespace chimera;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

std::vector<Isa> levels() {
#if defined(CHIMERA_ISA)
  return {Isa::CHIMERA_ISA};  // the only one that is compiled
#endif
  std::vector<Isa> have;
  for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512})
    if (runs(isa)) have.push_back(isa);
  return have;
}

// The functions under test, with the same function in double and in xsimd beside each.
struct Exp {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return exp<W>(x);
  }
  static double exact(double x) { return std::exp(x); }
  template <class B>
  static B peer(const B& x) {
    return xsimd::exp(x);
  }
};
struct Log {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return log<W>(x);
  }
  static double exact(double x) { return std::log(x); }
  template <class B>
  static B peer(const B& x) {
    return xsimd::log(x);
  }
};
struct Sigmoid {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return sigmoid<W>(x);
  }
  static double exact(double x) { return 1 / (1 + std::exp(-x)); }
  template <class B>
  static B peer(const B& x) {
    return B(1.f) / (B(1.f) + xsimd::exp(-x));
  }
};
struct Softplus {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return softplus<W>(x);
  }
  static double exact(double x) { return std::max(x, 0.) + std::log1p(std::exp(-std::abs(x))); }
  template <class B>
  static B peer(const B& x) {
    return xsimd::max(x, B(0.f)) + xsimd::log1p(xsimd::exp(-xsimd::abs(x)));
  }
};
struct Tanh {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return tanh<W>(x);
  }
  static double exact(double x) { return std::tanh(x); }
  template <class B>
  static B peer(const B& x) {
    return xsimd::tanh(x);
  }
};
struct Sqrt {
  template <int W>
  CHIMERA_INLINE static Vec<W> of(const Vec<W>& x) {
    return sqrt<W>(x);
  }
  static double exact(double x) { return std::sqrt(x); }
  template <class B>
  static B peer(const B& x) {
    return xsimd::sqrt(x);
  }
};

template <class F>
struct Map {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, float* y, std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += W) F::template of<W>(Vec<W>::load(x + i)).store(y + i);
  }
};

/// The body for wider vectors than the level has, which the compiler splits: AVX-512's on AVX2.
template <class Kernel, class Run = decltype(&Kernel::template run<4>)>
struct Doubled;
template <class Kernel, class... P>
struct Doubled<Kernel, void (*)(P...)> {
  template <int W>
  CHIMERA_INLINE static void run(P... a) {
    Kernel::template run<2 * W>(a...);
  }
};

template <class F>
std::vector<float> map(Isa isa, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  dispatch<Map<F>>(isa, x.data(), y.data(), static_cast<std::int64_t>(x.size()));
  return y;
}

template <class F>
std::vector<float> map_peer(const std::vector<float>& x) {
  using Batch = xsimd::batch<float>;
  std::vector<float> y(x.size());
  for (std::size_t i = 0; i < x.size(); i += Batch::size) F::peer(Batch::load_unaligned(&x[i])).store_unaligned(&y[i]);
  return y;
}

/// Every 2999th bit pattern whose value lies in [low, high]; a multiple of 16 of them.
std::vector<float> sweep(float low, float high) {
  std::vector<float> x;
  for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 2999) {
    const auto word = static_cast<std::uint32_t>(bits);
    float v;
    std::memcpy(&v, &word, sizeof v);
    if (v >= low && v <= high) x.push_back(v);
  }
  x.resize(x.size() / 16 * 16);
  return x;
}

/// Largest |y - exact| / (|exact| + floor).
template <class F>
double error(const std::vector<float>& x, const std::vector<float>& y, double floor) {
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double exact = F::exact(double{x[i]});
    const double e = std::abs(double{y[i]} - exact) / (std::abs(exact) + floor);
    if (!(e <= worst)) worst = e;
  }
  return worst;
}

/// Both this function and xsimd's against double; xsimd's where it is in its own range.
template <class F>
void check(float low, float high, double limit, double floor = 0) {
  const std::vector<float> x = sweep(low, high), peer = map_peer<F>(x);
  REQUIRE(x.size() > 1000);
  CHECK(error<F>(x, peer, floor) < 3e-7);
  for (Isa isa : levels()) {
    CAPTURE(name(isa));
    const std::vector<float> y = map<F>(isa, x);
    CHECK(error<F>(x, y, floor) < limit);
    double worst = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
      worst = std::max(worst, std::abs(double{y[i]} - double{peer[i]}) / (std::abs(double{peer[i]}) + floor));
    CHECK(worst < limit + 3e-7);
    if (isa == Isa::avx512) continue;
    std::vector<float> doubled(x.size());
    dispatch<Doubled<Map<F>>>(isa, x.data(), doubled.data(), static_cast<std::int64_t>(x.size()));
    CHECK(doubled == y);
  }
}

/// y for one x, at every level.
template <class F>
std::vector<float> at(float x) {
  std::vector<float> y;
  for (Isa isa : levels()) y.push_back(map<F>(isa, std::vector<float>(16, x))[7]);
  return y;
}

bool all(const std::vector<float>& y, float value) {
  return std::all_of(y.begin(), y.end(), [&](float v) { return std::isnan(value) ? std::isnan(v) : v == value; });
}

}  // namespace

TEST_CASE("exp") {
  check<Exp>(-87.f, 88.3f, 2e-7);
  for (Isa isa : levels()) {
    const std::vector<float> beyond = sweep(88.3f, 88.7228f), below = sweep(-150.f, -87.f);
    CHECK(error<Exp>(beyond, map<Exp>(isa, beyond), 0) < 2e-7);
    CHECK(error<Exp>(below, map<Exp>(isa, below), 1.2e-38) < 2e-7);  // denormal results: within their own step
  }
  for (float x : {88.8f, 1e30f, infinity}) CHECK(all(at<Exp>(x), infinity));
  for (float x : {-104.f, -1e30f, -infinity}) CHECK(all(at<Exp>(x), 0));
  for (float x : {0.f, -0.f, 1e-45f, -1e-39f}) CHECK(all(at<Exp>(x), 1));
  CHECK(all(at<Exp>(not_a_number), not_a_number));
}

TEST_CASE("log") {
  check<Log>(std::numeric_limits<float>::min(), std::numeric_limits<float>::max(), 2e-7);
  CHECK(all(at<Log>(1.f), 0));
}

TEST_CASE("sigmoid") {
  check<Sigmoid>(-87.f, std::numeric_limits<float>::max(), 2.5e-7);
  for (float x : {-1e30f, -infinity}) CHECK(all(at<Sigmoid>(x), 0));
  CHECK(all(at<Sigmoid>(infinity), 1));
  CHECK(all(at<Sigmoid>(0), 0.5f));
  CHECK(all(at<Sigmoid>(not_a_number), not_a_number));
}

TEST_CASE("softplus") {
  check<Softplus>(-87.f, std::numeric_limits<float>::max(), 3e-7);
  for (Isa isa : levels()) {
    const std::vector<float> x = sweep(-infinity, -87.f);
    CHECK(error<Softplus>(x, map<Softplus>(isa, x), 1.2e-38) < 3e-7);
  }
  CHECK(all(at<Softplus>(-infinity), 0));
  CHECK(all(at<Softplus>(infinity), infinity));
  CHECK(all(at<Softplus>(not_a_number), not_a_number));
}

TEST_CASE("tanh") {
  check<Tanh>(-infinity, infinity, 4e-7, 1e-44);
  CHECK(all(at<Tanh>(infinity), 1));
  CHECK(all(at<Tanh>(-infinity), -1));
  CHECK(all(at<Tanh>(1e-42f), 1e-42f));
  CHECK(all(at<Tanh>(not_a_number), not_a_number));
}

TEST_CASE("sqrt") {
  check<Sqrt>(1.2e-38f, 3e38f, 3e-7, 1e-30);
  CHECK(all(at<Sqrt>(0), 0));
  CHECK(all(at<Sqrt>(not_a_number), not_a_number));
}

namespace {

/// All the operations on two vectors, one result after another.
struct Lanes {
  template <int W>
  CHIMERA_INLINE static void run(const float* a, const float* b, float* out) {
    using V = Vec<W>;
    const V x = V::load(a), y = V::load(b);
    V sum_in_place = x, product_in_place = x;
    sum_in_place += y;
    product_in_place *= y;
    const V results[] = {x + y,
                         x - y,
                         x * y,
                         x / y,
                         -x,
                         fma<W>(x, y, V(2.f)),
                         max<W>(x, y),
                         min<W>(x, y),
                         less<W>(x, y, V(1.f), V(-1.f)),
                         sum_in_place,
                         product_in_place};
    for (const V& r : results) {
      r.store(out);
      out += W;
    }
    out[0] = sum<W>(x);
    out[1] = largest<W>(x);
  }
};

/// Lanes moved about: two vectors in reverse order; pairs swapped; two halves, one behind the other.
struct Moved {
  template <int W>
  CHIMERA_INLINE static void run(const float* a, const float* b, float* out) {
    constexpr auto reverse = [](int i) { return 2 * W - 1 - 2 * i; };
    shuffle<reverse, W>(Vec<W>::load(a), Vec<W>::load(b)).store(out);
    swap_pairs<W>(Vec<W>::load(a)).store(out + W);
    joined<W>(Vec<W / 2>::load(a), Vec<W / 2>::load(b)).store(out + 2 * W);
  }
};

struct Partial {
  template <int W>
  CHIMERA_INLINE static void run(const float* from, float* to, std::int64_t n) {
    const Vec<W> x = Vec<W>::load(from, n);
    x.store(to);
    x.store(to + W, n);
  }
};

}  // namespace

TEST_CASE("arithmetic, comparisons and reductions, lane by lane") {
  const std::vector<float> a = {3, -4, 0.5f, 8, -1, 16, 7, -2, 9, 1, 5, -8, 2, 6, -3, 4};
  const std::vector<float> b = {2, -4, 4, -1, 0.25f, 8, -7, 1, 3, 9, -2, 2, 16, 1, 1, 32};
  for (Isa isa : levels()) {
    CAPTURE(name(isa));
    const auto w = static_cast<std::size_t>(lanes(isa));
    std::vector<float> out(11 * w + 2);
    dispatch<Lanes>(isa, a.data(), b.data(), out.data());
    float total = 0, most = a[0];
    for (std::size_t i = 0; i < w; ++i) {
      CAPTURE(i);
      const float x = a[i], y = b[i];
      const float want[] = {
          x + y, x - y, x * y, x / y, -x, x * y + 2, std::max(x, y), std::min(x, y), x < y ? 1.f : -1.f, x + y, x * y};
      for (std::size_t r = 0; r < 11; ++r) CHECK(out[r * w + i] == want[r]);
      total += x;
      most = std::max(most, x);
    }
    CHECK(out[11 * w] == total);
    CHECK(out[11 * w + 1] == most);
  }
}

TEST_CASE("lanes go where they are sent") {
  const std::vector<float> a = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const std::vector<float> b = {50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65};
  for (Isa isa : levels()) {
    CAPTURE(name(isa));
    const auto w = static_cast<std::size_t>(lanes(isa));
    std::vector<float> out(3 * w);
    dispatch<Moved>(isa, a.data(), b.data(), out.data());
    for (std::size_t i = 0; i < w; ++i) {
      CAPTURE(i);
      const std::size_t from = 2 * w - 1 - 2 * i;
      CHECK(out[i] == (from < w ? a[from] : b[from - w]));
      CHECK(out[w + i] == a[i ^ 1]);
      CHECK(out[2 * w + i] == (i < w / 2 ? a[i] : b[i - w / 2]));
    }
  }
}

TEST_CASE("partial loads give zeros behind, partial stores touch nothing behind") {
  for (Isa isa : levels())
    for (std::int64_t n = 0; n < lanes(isa); ++n) {
      const auto w = static_cast<std::size_t>(lanes(isa)), count = static_cast<std::size_t>(n);
      const std::vector<float> from(w, 5.f);
      std::vector<float> to(2 * w, -1.f);
      dispatch<Partial>(isa, from.data() + w - n, to.data(), n);  // nothing behind: a sanitizer sees a load of more
      for (std::size_t i = 0; i < w; ++i) {
        CHECK(to[i] == (i < count ? 5.f : 0.f));
        CHECK(to[w + i] == (i < count ? 5.f : -1.f));
      }
    }
}
