// Which vector instructions this processor can run; asked once, when a Cpu device is made.
#pragma once

#include <cstdlib>
#include <string_view>

namespace chimera {

/// Levels of vector code, weakest first. Every kernel exists at every level.
enum class Isa { base, avx2, avx512 };

/// f32 lanes of one vector at that level.
constexpr int lanes(Isa isa) { return isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4; }

constexpr std::string_view name(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "base"; }

/// The best level this processor has. The environment variable CHIMERA_CPU (base, avx2, avx512) lowers it.
inline Isa detect_isa() {
  Isa best = Isa::base;
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    best = Isa::avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq"))
      best = Isa::avx512;
  }
#endif
  if (const char* cap = std::getenv("CHIMERA_CPU"))
    for (Isa isa : {Isa::base, Isa::avx2, Isa::avx512})
      if (name(isa) == cap && isa < best) return isa;
  return best;
}

}  // namespace chimera
