// Vectors of W integers beside Vec<W>: what formats of packed numbers are read and written with.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

/// W i32. A class with its own copy constructor for the reason Vec has one.
template <int W>
struct Ints {
  using Native = typename Vec<W>::Bits;
  Native v{};

  CHIMERA_INLINE Ints() {}
  CHIMERA_INLINE Ints(std::int32_t x) : v(Native{} + x) {}
  CHIMERA_INLINE explicit Ints(const Native& x) : v(x) {}
  CHIMERA_INLINE Ints(const Ints& x) : v(x.v) {}
  CHIMERA_INLINE Ints& operator=(const Ints& x) {
    v = x.v;
    return *this;
  }

  /// W integers of type T, widened.
  template <class T>
  CHIMERA_INLINE static Ints load(const std::byte* p) {
#if !defined(__clang__) && (defined(__x86_64__) || defined(__i386__))
    // g++ 12 takes vectors of bytes apart.
    if constexpr (W == 8 && sizeof(T) == 1) {
      Ints r;
      const auto& narrow = *reinterpret_cast<const std::byte(*)[W]>(p);
      if constexpr (std::is_signed_v<T>)
        asm("vpmovsxbd %1, %0" : "=v"(r.v) : "m"(narrow));
      else
        asm("vpmovzxbd %1, %0" : "=v"(r.v) : "m"(narrow));
      return r;
    } else if constexpr (W == 16 && sizeof(T) == 1) {
      const Ints<8> a = Ints<8>::load<T>(p), b = Ints<8>::load<T>(p + 8);
      return Ints(__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    }
#endif
    typedef T Narrow __attribute__((__vector_size__(W * sizeof(T))));
    Narrow narrow;
    std::memcpy(&narrow, p, sizeof narrow);
    return Ints(__builtin_convertvector(narrow, Native));
  }
  /// The low bits of each.
  template <class T>
  CHIMERA_INLINE void store(std::byte* p) const {
    typedef T Narrow __attribute__((__vector_size__(W * sizeof(T))));
    const Narrow narrow = __builtin_convertvector(v, Narrow);
    std::memcpy(p, &narrow, sizeof narrow);
  }

  CHIMERA_INLINE friend Ints operator+(const Ints& a, const Ints& b) { return Ints(a.v + b.v); }
  CHIMERA_INLINE friend Ints operator-(const Ints& a, const Ints& b) { return Ints(a.v - b.v); }
  CHIMERA_INLINE friend Ints operator*(const Ints& a, const Ints& b) { return Ints(a.v * b.v); }
  CHIMERA_INLINE friend Ints operator&(const Ints& a, const Ints& b) { return Ints(a.v & b.v); }
  CHIMERA_INLINE friend Ints operator|(const Ints& a, const Ints& b) { return Ints(a.v | b.v); }
  CHIMERA_INLINE friend Ints operator>>(const Ints& a, int bits) { return Ints(a.v >> bits); }
  CHIMERA_INLINE friend Ints operator<<(const Ints& a, int bits) { return Ints(a.v << bits); }
  CHIMERA_INLINE friend Ints min(const Ints& a, const Ints& b) { return Ints(a.v < b.v ? a.v : b.v); }
  CHIMERA_INLINE friend Ints max(const Ints& a, const Ints& b) { return Ints(a.v > b.v ? a.v : b.v); }
};

template <int W>
CHIMERA_INLINE Vec<W> as_floats(const Ints<W>& x) {
  return Vec<W>(__builtin_convertvector(x.v, typename Vec<W>::Native));
}
/// Towards zero; |x| < 2^31.
template <int W>
CHIMERA_INLINE Ints<W> truncated(const Vec<W>& x) {
  return Ints<W>(__builtin_convertvector(x.v, typename Ints<W>::Native));
}
template <int W>
CHIMERA_INLINE Ints<W> bits_of(const Vec<W>& x) {
  return Ints<W>(reinterpret_cast<typename Ints<W>::Native>(x.v));
}
template <int W>
CHIMERA_INLINE Vec<W> from_bits(const Ints<W>& x) {
  return Vec<W>(reinterpret_cast<typename Vec<W>::Native>(x.v));
}

/// a b, rounded before it is used. A product that the compiler fuses with the sum behind it is not, at levels that have
/// an instruction for both.
template <int W>
CHIMERA_INLINE Vec<W> product(const Vec<W>& a, const Vec<W>& b) {
#if defined(__clang__)
#pragma clang fp contract(off) reassociate(off)
  return Vec<W>(a.v * b.v);
#elif defined(__x86_64__) || defined(__i386__)
  // g++ 12 takes 16 lanes apart for __builtin_assoc_barrier.
  Vec<W> r(a.v * b.v);
  asm("" : "+v"(r.v));
  return r;
#else
  return Vec<W>(__builtin_assoc_barrier(a.v * b.v));
#endif
}

/// The largest lane, and the least.
template <int W>
CHIMERA_INLINE float largest_lane(const Vec<W>& x) {
  if constexpr (W == 1) {
    return x.v[0];
  } else {
    float half[W];
    x.store(half);
    return largest_lane<W / 2>(max<W / 2>(Vec<W / 2>::load(half), Vec<W / 2>::load(half + W / 2)));
  }
}
template <int W>
CHIMERA_INLINE float least_lane(const Vec<W>& x) {
  return -largest_lane<W>(-x);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
