// Products of BF16 weights by vdpbf16ps, which adds two products of BF16 to an f32: AVX-512 BF16. x is rounded to BF16,
// as llama.cpp rounds it for these weights. All other formats are multiplied by AVX-512 VNNI.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/kernels/packed/input.hpp>
#include <chimera/kernels/packed/layout.hpp>
#include <chimera/kernels/packed/vnni.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#if CHIMERA_BODIES
#if defined(__x86_64__)
#include <immintrin.h>

#define CHIMERA_TARGET __attribute__((__target__("avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma,f16c")))
namespace chimera::inline CHIMERA_ABI::packed_avx512_bf16 {

using namespace packed_parts;

/// Pairs of x that are rounded at a time, a multiple of 8, and whose products join the others together.
inline constexpr std::int64_t pair_run = 32;

/// out [n][16] = a panel times n rows of x.
template <int n>
CHIMERA_TARGET void multiply_rows(const std::byte* w, const PackedInput& input, std::int64_t first, float* out) {
  __m512 all[n];
#pragma GCC unroll 16
  for (int t = 0; t < n; ++t) all[t] = _mm512_setzero_ps();
  const float* x = input.floats + first * input.stride();
  for (std::int64_t k = 0; k < input.cols; k += 2 * pair_run) {
    const std::int64_t pairs = std::min(pair_run, (input.cols - k + 1) / 2);
    alignas(64) std::int32_t rounded[n][pair_run];
    for (int t = 0; t < n; ++t)
      for (std::int64_t i = 0; i < pairs; i += 8) {  // 16 numbers: rows of x are padded with zeros
        const __m512 numbers = _mm512_loadu_ps(x + t * input.stride() + k + 2 * i);
        _mm256_store_si256(reinterpret_cast<__m256i*>(rounded[t] + i),
                           reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(numbers)));
      }
    __m512 sums[n];
#pragma GCC unroll 16
    for (int t = 0; t < n; ++t) sums[t] = _mm512_setzero_ps();
    for (std::int64_t i = 0; i < pairs; ++i, w += line) {
      if (n == 1) packed_avx512_vnni::fetch(w + packed_avx512_vnni::prefetch_ahead);
      const __m512i weights = _mm512_loadu_si512(w);
#pragma GCC unroll 16
      for (int t = 0; t < n; ++t)  // clang 16 crashes on the intrinsic of a broadcast
        asm("vdpbf16ps %2, %1, %0" : "+v"(sums[t]) : "v"(weights), "v"(_mm512_set1_epi32(rounded[t][i])));
    }
#pragma GCC unroll 16
    for (int t = 0; t < n; ++t) all[t] = _mm512_add_ps(all[t], sums[t]);
  }
#pragma GCC unroll 16
  for (int t = 0; t < n; ++t) _mm512_storeu_ps(out + t * panel_rows, all[t]);
}

CHIMERA_TARGET inline void multiply(const std::byte* w, const PackedInput& input, std::int64_t first,
                                    std::int64_t count, float* out) {
  constexpr int tokens = 8;
  std::int64_t t = 0;
  for (; t + tokens <= count; t += tokens) multiply_rows<tokens>(w, input, first + t, out + t * panel_rows);
  for (; t + 4 <= count; t += 4) multiply_rows<4>(w, input, first + t, out + t * panel_rows);
  for (; t < count; ++t) multiply_rows<1>(w, input, first + t, out + t * panel_rows);
}

template <class L>
constexpr auto kernels_of_level() {
  auto k = packed_avx512_vnni::Kernels::of<L>;
  if constexpr (std::is_same_v<L, LayoutBF16>) k.whole = &packed_avx512_bf16::multiply;
  return k;
}

struct Kernels : packed_avx512_vnni::Kernels {
  template <class L>
  static constexpr auto of = kernels_of_level<L>();
};

}  // namespace chimera::inline CHIMERA_ABI::packed_avx512_bf16
#undef CHIMERA_TARGET
#endif
#endif
