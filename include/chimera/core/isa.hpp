// Which vector instructions this processor can run; asked once, when a Cpu device is made.
#pragma once

#include <chimera/core/platform/platform.hpp>

#include <cstdlib>
#include <iterator>
#include <string_view>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace chimera {

/// Levels of vector code, weakest first. `base` is what the host compiles for (SSE2, NEON), `dotprod` is of AArch64,
/// all others are of x86. A processor of one level may lack another before it: avx512 does not imply avx_vnni.
enum class Isa { base, dotprod, avx2, avx_vnni, avx512, avx512_vnni, avx512_bf16 };

inline constexpr Isa all_levels[] = {Isa::base,   Isa::dotprod,     Isa::avx2,       Isa::avx_vnni,
                                     Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16};

/// f32 lanes of one vector at that level.
constexpr int lanes(Isa isa) { return isa >= Isa::avx512 ? 16 : isa >= Isa::avx2 ? 8 : 4; }

constexpr std::string_view name(Isa isa) {
  constexpr std::string_view names[] = {"base", "dotprod", "avx2", "avx_vnni", "avx512", "avx512_vnni", "avx512_bf16"};
  static_assert(std::size(names) == std::size(all_levels));
  return names[static_cast<int>(isa)];
}

/// Whether this processor has the instructions, and its operating system keeps their registers.
inline bool runs(Isa isa) {
#if defined(__x86_64__) || defined(__i386__)
  unsigned a = 0, b = 0, c = 0, d = 0;  // for what clang 16 has no word for
  __builtin_cpu_init();
  switch (isa) {
    case Isa::base: return true;
    case Isa::dotprod: return false;
    case Isa::avx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
             (c & bit_F16C) != 0;
    case Isa::avx_vnni: return runs(Isa::avx2) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVXVNNI) != 0;
    case Isa::avx512:
      return runs(Isa::avx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    case Isa::avx512_vnni: return runs(Isa::avx512) && __builtin_cpu_supports("avx512vnni");
    case Isa::avx512_bf16: return runs(Isa::avx512_vnni) && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::base || (isa == Isa::dotprod && platform::has_arm_dotprod());
#endif
}

/// The best level up to `most` that this processor runs.
inline Isa best_isa(Isa most) {
  Isa best = Isa::base;
  for (const Isa isa : all_levels)
    if (isa <= most && runs(isa)) best = isa;
  return best;
}

/// The best level this processor has. The environment variable CHIMERA_CPU, a level's name, lowers it.
inline Isa detect_isa() {
  if (const char* most = std::getenv("CHIMERA_CPU"))
    for (const Isa isa : all_levels)
      if (name(isa) == most) return best_isa(isa);
  return best_isa(Isa::avx512_bf16);
}

}  // namespace chimera
