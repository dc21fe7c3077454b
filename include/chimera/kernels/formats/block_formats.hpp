// Numbers of a tensor in any Format: `decode` makes them f32, `encode` the reverse.
//
//   F16, BF16                       half_formats.hpp
//   Q4_0, Q4_1, Q5_0, Q5_1, Q8_0    simple_formats.hpp
//   Q4_K, Q5_K, Q6_K                k_formats.hpp
//   TQ1_0, TQ2_0                    ternary_formats.hpp
//
// Decoding gives the reference's numbers bit for bit. Encoding gives the same bytes at every instruction level and for
// every number of threads.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/k_formats.hpp>
#include <chimera/kernels/formats/simple_formats.hpp>
#include <chimera/kernels/formats/ternary_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// Whether `decode` and `encode` know it; the formats of integers and F64 are no formats of weights.
constexpr bool holds_weights(Format format) {
  switch (format) {
    case Format::f32:
    case Format::f16:
    case Format::bf16:
    case Format::q4_0:
    case Format::q4_1:
    case Format::q5_0:
    case Format::q5_1:
    case Format::q8_0:
    case Format::q4_k:
    case Format::q5_k:
    case Format::q6_k:
    case Format::tq1_0:
    case Format::tq2_0: return true;
    default: return false;
  }
}

/// The largest magnitude a format takes: what rounds to infinity is left out. The scale of a block is an F16.
constexpr float largest_of(Format format) {
  return format == Format::f32 ? 3.40282347e38f : format == Format::bf16 ? 3.38953139e38f : 65504.f;
}

namespace format_parts {

/// Numbers that one task treats: whole blocks of every format, and few enough for the caches.
inline constexpr std::int64_t run = 8192;

}  // namespace format_parts

/// n numbers in whole blocks become f32, on the calling thread.
Result<void> decode(Isa isa, Format format, const std::byte* from, std::int64_t n, float* to);

/// The same on all threads.
Result<void> decode(const Cpu& q, Format format, const std::byte* from, std::int64_t n, float* to);

/// n f32 in whole blocks, on the calling thread. NaN, infinity and numbers beyond `largest_of(format)` are an error,
/// and what `to` holds after an error is not defined. The error counts numbers from `first`.
Result<void> encode(Isa isa, Format format, const float* from, std::int64_t n, std::byte* to, std::int64_t first = 0);
/// The same for TQ2_0, Q8_0 and F32 alone, which hold ternary weights: a program that runs models compiles no other.
Result<void> encode_ternary(Isa isa, Format format, const float* from, std::int64_t n, std::byte* to);

/// The same on all threads.
Result<void> encode(const Cpu& q, Format format, const float* from, std::int64_t n, std::byte* to);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace format_parts {

template <class Block>
struct DecodeBlocks {
  template <int W>
  CHIMERA_INLINE static void run(const std::byte* from, std::int64_t n, float* to) {
    for (; n > 0; n -= Block::values, from += Block::bytes, to += Block::values) Block::template decode<W>(from, to);
  }
};

template <class Block>
struct EncodeBlocks {
  template <int W>
  CHIMERA_INLINE static void run(const float* from, std::int64_t n, std::byte* to) {
    for (; n > 0; n -= Block::values, from += Block::values, to += Block::bytes) Block::template encode<W>(from, to);
  }
};

/// The largest |x| as its bits: those of infinity are above all numbers', those of NaN above both.
struct LargestMagnitude {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, std::int32_t* result) {
    Ints<W> most;
    lanes<W>(
        n, [&](std::int64_t i, auto io) CHIMERA_LAMBDA { most = max(most, bits_of<W>(io.load(x + i)) & 0x7fffffff); });
    *result = 0;
    for (int i = 0; i < W; ++i) *result = std::max(*result, most.v[i]);
  }
};

inline Result<void> whole_blocks(Format format, std::int64_t n) {
  const FormatInfo* info = format_info(format);
  if (!holds_weights(format))
    return Error{"expected a format of weights, found " +
                 (info ? std::string(info->name) : "type " + std::to_string(static_cast<std::uint32_t>(format)))};
  if (n % info->values != 0)
    return Error{std::string(info->name) + " holds blocks of " + std::to_string(info->values) + " numbers, found " +
                 std::to_string(n)};
  return {};
}

inline void decode_blocks(Isa isa, Format format, const std::byte* from, std::int64_t n, float* to) {
  switch (format) {
    case Format::f16: return dispatch<DecodeHalves<F16>>(isa, from, n, to);
    case Format::bf16: return dispatch<DecodeHalves<Bf16>>(isa, from, n, to);
    case Format::q4_0: return dispatch<DecodeBlocks<Q4_0>>(isa, from, n, to);
    case Format::q4_1: return dispatch<DecodeBlocks<Q4_1>>(isa, from, n, to);
    case Format::q5_0: return dispatch<DecodeBlocks<Q5_0>>(isa, from, n, to);
    case Format::q5_1: return dispatch<DecodeBlocks<Q5_1>>(isa, from, n, to);
    case Format::q8_0: return dispatch<DecodeBlocks<Q8_0>>(isa, from, n, to);
    case Format::q4_k: return dispatch<DecodeBlocks<Q4_K>>(isa, from, n, to);
    case Format::q5_k: return dispatch<DecodeBlocks<Q5_K>>(isa, from, n, to);
    case Format::q6_k: return dispatch<DecodeBlocks<Q6_K>>(isa, from, n, to);
    case Format::tq1_0: return dispatch<DecodeBlocks<TQ1_0>>(isa, from, n, to);
    case Format::tq2_0: return dispatch<DecodeBlocks<TQ2_0>>(isa, from, n, to);
    default: std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  }
}

inline void encode_blocks(Isa isa, Format format, const float* from, std::int64_t n, std::byte* to) {
  switch (format) {
    case Format::f16: return dispatch<EncodeHalves<F16>>(isa, from, n, to);
    case Format::bf16: return dispatch<EncodeHalves<Bf16>>(isa, from, n, to);
    case Format::q4_0: return dispatch<EncodeBlocks<Q4_0>>(isa, from, n, to);
    case Format::q4_1: return dispatch<EncodeBlocks<Q4_1>>(isa, from, n, to);
    case Format::q5_0: return dispatch<EncodeBlocks<Q5_0>>(isa, from, n, to);
    case Format::q5_1: return dispatch<EncodeBlocks<Q5_1>>(isa, from, n, to);
    case Format::q8_0: return dispatch<EncodeBlocks<Q8_0>>(isa, from, n, to);
    case Format::q4_k: return dispatch<EncodeBlocks<Q4_K>>(isa, from, n, to);
    case Format::q5_k: return dispatch<EncodeBlocks<Q5_K>>(isa, from, n, to);
    case Format::q6_k: return dispatch<EncodeBlocks<Q6_K>>(isa, from, n, to);
    case Format::tq1_0: return dispatch<EncodeBlocks<TQ1_0>>(isa, from, n, to);
    case Format::tq2_0: return dispatch<EncodeBlocks<TQ2_0>>(isa, from, n, to);
    default: std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  }
}

/// The first of n numbers that the format does not take, or n.
inline std::int64_t first_unfit(Isa isa, Format format, const float* x, std::int64_t n) {
  const float limit = largest_of(format);
  std::int32_t found = 0, most = 0;
  dispatch<LargestMagnitude>(isa, x, n, &found);
  std::memcpy(&most, &limit, sizeof most);
  if (found <= most) return n;
  return std::find_if(x, x + n, [&](float v) { return !(std::fabs(v) <= limit); }) - x;
}

inline Error unfit(Format format, std::int64_t index, float x) {
  char text[128];
  std::snprintf(text, sizeof text, "number %lld is %g, and %s takes magnitudes up to %g", static_cast<long long>(index),
                static_cast<double>(x), format_info(format)->name.data(), static_cast<double>(largest_of(format)));
  return {text};
}

}  // namespace format_parts

CHIMERA_FUNCTION Result<void> decode(Isa isa, Format format, const std::byte* from, std::int64_t n, float* to) {
  if (Result<void> s = format_parts::whole_blocks(format, n); !s) return s;
  format_parts::decode_blocks(isa, format, from, n, to);
  return {};
}

CHIMERA_FUNCTION Result<void> decode(const Cpu& q, Format format, const std::byte* from, std::int64_t n, float* to) {
  using namespace format_parts;
  if (Result<void> s = whole_blocks(format, n); !s) return s;
  parallel(q, (n + run - 1) / run, [&](std::int64_t i, int) {
    decode_blocks(q.isa(), format, from + format_bytes(format, i * run), std::min(run, n - i * run), to + i * run);
  });
  return {};
}

CHIMERA_FUNCTION Result<void> encode(Isa isa, Format format, const float* from, std::int64_t n, std::byte* to,
                                     std::int64_t first) {
  using namespace format_parts;
  if (Result<void> s = whole_blocks(format, n); !s) return s;
  if (const std::int64_t at = first_unfit(isa, format, from, n); at < n) return unfit(format, first + at, from[at]);
  encode_blocks(isa, format, from, n, to);
  return {};
}

CHIMERA_FUNCTION Result<void> encode_ternary(Isa isa, Format format, const float* from, std::int64_t n, std::byte* to) {
  using namespace format_parts;
  if (Result<void> s = whole_blocks(format, n); !s) return s;
  if (const std::int64_t at = first_unfit(isa, format, from, n); at < n) return unfit(format, at, from[at]);
  switch (format) {
    case Format::tq2_0: dispatch<EncodeBlocks<TQ2_0>>(isa, from, n, to); break;
    case Format::q8_0: dispatch<EncodeBlocks<Q8_0>>(isa, from, n, to); break;
    default: std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  }
  return {};
}

CHIMERA_FUNCTION Result<void> encode(const Cpu& q, Format format, const float* from, std::int64_t n, std::byte* to) {
  using namespace format_parts;
  if (Result<void> s = whole_blocks(format, n); !s) return s;
  std::atomic<std::int64_t> first{n};
  parallel(q, (n + run - 1) / run, [&](std::int64_t i, int) {
    const std::int64_t count = std::min(run, n - i * run);
    const float* x = from + i * run;
    if (const std::int64_t at = first_unfit(q.isa(), format, x, count); at == count) {
      encode_blocks(q.isa(), format, x, count, to + format_bytes(format, i * run));
    } else {
      std::int64_t known = first.load(std::memory_order_relaxed);
      while (i * run + at < known && !first.compare_exchange_weak(known, i * run + at, std::memory_order_relaxed)) {
      }
    }
  });
  if (const std::int64_t at = first.load(std::memory_order_relaxed); at < n) return unfit(format, at, from[at]);
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
