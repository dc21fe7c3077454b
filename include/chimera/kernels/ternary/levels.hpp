// What each level multiplies bytes with, and its tile of a ternary product.
#pragma once

#include <chimera/core/isa.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/f32/panels.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {
namespace ternary_parts {

/// y [rows, cols] = x^ W^T + beta y of a panel of x and one of W (product.hpp), rows of y ldy apart. `results` are the
/// caller's: a tile's sums, of groups before the last.
struct TileTask {
  std::int64_t groups, words;  // words of a group
  const float *x, *w;
  std::int64_t rows, cols;
  float beta;
  float* y;
  std::int64_t ldy;
  float* results;
};

/// By portable vectors.
template <int W>
struct TileOps {
  static constexpr int lanes = W;
  using Native = typename Ints<W>::Native;

  /// A word in all lanes.
  CHIMERA_INLINE static void broadcast(const float* word, Native& to) { to = bits_of<W>(Vec<W>(*word)).v; }
  /// sum += x codes, four products a lane: x are unsigned bytes, codes -1, 0 and 1.
  CHIMERA_INLINE static void add(Native& sum, const Native& x, const Native& codes) {
#pragma GCC unroll 4
    for (int b = 0; b < 32; b += 8) sum += ((x >> b) & 255) * ((codes << (24 - b)) >> 24);
  }
};

}  // namespace ternary_parts
}  // namespace chimera::inline CHIMERA_ABI

#define CHIMERA_LEVEL ternary_base
#define CHIMERA_TARGET
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {
using Ops = ternary_parts::TileOps<4>;
}
#include <chimera/kernels/ternary/tile.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#if defined(__x86_64__)
// Instructions as words: g++ 12 makes other ones of what it knows (kernels/packed/avx512.hpp).
#define CHIMERA_LEVEL ternary_avx2
#define CHIMERA_TARGET CHIMERA_AVX2
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {
struct Ops : ternary_parts::TileOps<8> {
  CHIMERA_TARGET CHIMERA_INLINE static void add(Native& sum, const Native& x, const Native& codes) {
    const Native ones = Ints<8>(0x00010001).v;
    Native pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(pairs)
        : "x"(x), "x"(codes), "x"(ones));
  }
};
}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/ternary/tile.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#define CHIMERA_LEVEL ternary_avx_vnni
#define CHIMERA_TARGET __attribute__((__target__("avx2,fma,f16c,avxvnni")))
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {
struct Ops : ternary_parts::TileOps<8> {
  CHIMERA_TARGET CHIMERA_INLINE static void add(Native& sum, const Native& x, const Native& codes) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(x), "x"(codes));
  }
};
}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/ternary/tile.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#define CHIMERA_LEVEL ternary_avx512
#define CHIMERA_TARGET CHIMERA_AVX512
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {
struct Ops : ternary_parts::TileOps<16> {
  /// By an instruction that takes no turn of those that multiply.
  CHIMERA_TARGET CHIMERA_INLINE static void broadcast(const float* word, Native& to) {
    asm("vpbroadcastd %1, %0" : "=v"(to) : "m"(*word));
  }
  CHIMERA_TARGET CHIMERA_INLINE static void add(Native& sum, const Native& x, const Native& codes) {
    const Native ones = Ints<16>(0x00010001).v;
    Native pairs;
    asm("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"
        : "+v"(sum), "=&v"(pairs)
        : "v"(x), "v"(codes), "v"(ones));
  }
};
}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/ternary/tile.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

#define CHIMERA_LEVEL ternary_avx512_vnni
#define CHIMERA_TARGET __attribute__((__target__("avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma,f16c")))
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {
struct Ops : ternary_avx512::Ops {
  CHIMERA_TARGET CHIMERA_INLINE static void add(Native& sum, const Native& x, const Native& codes) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(codes));
  }
};
}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/ternary/tile.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET
#endif

namespace chimera::inline CHIMERA_ABI {
namespace ternary_parts {

using TileFunction = void (*)(const TileTask&);

inline TileFunction tile_of([[maybe_unused]] Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::avx512_bf16:
    case Isa::avx512_vnni: return ternary_avx512_vnni::tile;
    case Isa::avx512: return ternary_avx512::tile;
    case Isa::avx_vnni: return ternary_avx_vnni::tile;
    case Isa::avx2: return ternary_avx2::tile;
    default: break;
  }
#endif
  return ternary_base::tile;
}

}  // namespace ternary_parts
}  // namespace chimera::inline CHIMERA_ABI
#endif
