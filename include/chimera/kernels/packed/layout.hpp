// How weights lie in panels of 16 rows, and the way there from the file's blocks and back.
//
// Quantized formats. A line is 64 bytes: 16 rows x 4 bytes, row after row. In 8 bits a line holds a group, 4 codes of
// each row; 32 numbers of each row are a unit of 8 groups:
//
//   8 bits   8 lines: group g in line g
//   4 bits   4 lines: group g in line g % 4, in the low nibbles for g < 4 and in the high ones else
//   2 bits   2 lines: group g in line g / 4 at bit 2 (g % 4)
//   6 bits   4 lines of the lower four bits, then 2 of the upper two
//
// A block holds what its sub-blocks are scaled by, then the units' codes, then 16 f16 scales d, then 16 f16 offsets: in
// the order of their use, which is what a processor fetches ahead. All panels but those of Q4_1, Q5_0, Q5_1, Q5_K and
// TQ1_0 take as many bytes as the file's rows.
//
// F32, F16: number k of 16 rows, then number k + 1. BF16: numbers k and k + 1 of each row side by side.
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/kernels/formats/half_formats.hpp>
#include <chimera/kernels/formats/k_formats.hpp>
#include <chimera/kernels/formats/simple_formats.hpp>
#include <chimera/kernels/formats/ternary_formats.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace chimera {

inline constexpr std::int64_t panel_rows = 16;

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace packed_parts {

inline constexpr int line = 64;

/// What multiplies the codes of a sub-block, besides d.
enum class SubScales {
  none,
  signed_bytes,  // Q6_K: one for each 16 numbers; [16][16 rows]
  six_bits,      // Q4_K, Q5_K: a scale and an offset for each 32 numbers; the file's 12 bytes, [12][16 rows]
};

struct LayoutShape {
  int values;            // numbers of a block
  int bits;              // of a code in memory
  int run;               // numbers whose products fit sums of 16 bits
  int zero = -1;         // codes stand for code - 2^zero; -1: for themselves
  bool wide = false;     // codes are signed and take eight bits
  bool minimum = false;  // there are offsets: of a block, or of its sub-blocks
  SubScales scales = SubScales::none;
};

template <LayoutShape S>
struct Layout {
  static constexpr int values = S.values, bits = S.bits, run = S.run, zero = S.zero;
  static constexpr bool wide = S.wide, minimum = S.minimum, scaled = S.scales != SubScales::none;
  static constexpr bool six_bits = S.scales == SubScales::six_bits;
  static constexpr int scale_run = S.scales == SubScales::signed_bytes ? 16 : six_bits ? 32 : values;
  static constexpr int units = values / 32, unit_bytes = 32 * 16 * bits / 8;
  static constexpr int scales_at = 0, codes_at = six_bits ? 192 : scaled ? 256 : 0;
  static constexpr int d_at = codes_at + units * unit_bytes, minimum_at = d_at + 32;
  static constexpr int bytes = minimum_at + (minimum ? 32 : 0);
};

using LayoutQ4_0 = Layout<LayoutShape{.values = 32, .bits = 4, .run = 32, .zero = 3}>;
using LayoutQ5_1 = Layout<LayoutShape{.values = 32, .bits = 6, .run = 16, .minimum = true}>;
using LayoutQ8_0 = Layout<LayoutShape{.values = 32, .bits = 8, .run = 32, .wide = true}>;
using LayoutQ4_K =
    Layout<LayoutShape{.values = 256, .bits = 4, .run = 32, .minimum = true, .scales = SubScales::six_bits}>;
using LayoutQ5_K =
    Layout<LayoutShape{.values = 256, .bits = 6, .run = 16, .minimum = true, .scales = SubScales::six_bits}>;
using LayoutQ6_K =
    Layout<LayoutShape{.values = 256, .bits = 6, .run = 16, .zero = 5, .scales = SubScales::signed_bytes}>;
using LayoutTQ2_0 = Layout<LayoutShape{.values = 256, .bits = 2, .run = 256, .zero = 0}>;

static_assert(LayoutQ4_0::bytes == 16 * format_parts::Q4_0::bytes &&
              LayoutQ8_0::bytes == 16 * format_parts::Q8_0::bytes);
static_assert(LayoutQ4_K::bytes == 16 * format_parts::Q4_K::bytes &&
              LayoutQ6_K::bytes == 16 * format_parts::Q6_K::bytes);
static_assert(LayoutTQ2_0::bytes == 16 * format_parts::TQ2_0::bytes);

/// Panels of numbers as they are. `values` numbers of 16 rows take `bytes`.
struct LayoutF32 {
  static constexpr int values = 1, bytes = 64;
};
struct LayoutF16 {
  static constexpr int values = 1, bytes = 32;
};
struct LayoutBF16 {
  static constexpr int values = 2, bytes = 64;
};

template <class L>
inline constexpr bool has_codes = requires { L::bits; };

/// f(layout) with the layout of that format's panels. Q5_0 becomes Q8_0, Q4_1 becomes Q5_1, TQ1_0 becomes TQ2_0.
template <class F>
CHIMERA_INLINE decltype(auto) with_layout(Format format, F&& f) {
  switch (format) {
    case Format::f16: return f(LayoutF16{});
    case Format::bf16: return f(LayoutBF16{});
    case Format::q4_0: return f(LayoutQ4_0{});
    case Format::q4_1:
    case Format::q5_1: return f(LayoutQ5_1{});
    case Format::q5_0:
    case Format::q8_0: return f(LayoutQ8_0{});
    case Format::q4_k: return f(LayoutQ4_K{});
    case Format::q5_k: return f(LayoutQ5_K{});
    case Format::q6_k: return f(LayoutQ6_K{});
    case Format::tq1_0:
    case Format::tq2_0: return f(LayoutTQ2_0{});
    default: return f(LayoutF32{});
  }
}

/// Four codes, number after number from the lowest byte.
using Group = std::uint32_t;

CHIMERA_INLINE Group load_group(const std::byte* p) {
  Group g = 0;
  std::memcpy(&g, p, sizeof g);
  return g;
}
CHIMERA_INLINE void store_group(std::byte* p, Group g) { std::memcpy(p, &g, sizeof g); }

/// One row's eight groups of a unit, to and from its lines. `at` is the row's first byte in the first line.
template <int bits>
CHIMERA_INLINE void store_unit(const Group* g, std::byte* at) {
  constexpr Group nibble = 0x0f0f0f0f, crumb = 0x03030303;
  if constexpr (bits == 8)
    for (int i = 0; i < 8; ++i) store_group(at + i * line, g[i]);
  if constexpr (bits == 4 || bits == 6)
    for (int i = 0; i < 4; ++i) store_group(at + i * line, (g[i] & nibble) | (g[i + 4] & nibble) << 4);
  if constexpr (bits == 6 || bits == 2) {
    constexpr int shift = bits == 6 ? 4 : 0;
    for (int i = 0; i < 2; ++i) {
      Group upper = 0;
      for (int n = 0; n < 4; ++n) upper |= (g[4 * i + n] >> shift & crumb) << 2 * n;
      store_group(at + (shift + i) * line, upper);
    }
  }
}
template <int bits>
CHIMERA_INLINE void load_unit(const std::byte* at, Group* g) {
  constexpr Group nibble = 0x0f0f0f0f, crumb = 0x03030303;
  for (int i = 0; i < 8; ++i) {
    const int half = i / 4, quarter = i % 4;
    if constexpr (bits == 8) g[i] = load_group(at + i * line);
    if constexpr (bits == 2) g[i] = load_group(at + half * line) >> 2 * quarter & crumb;
    if constexpr (bits == 4 || bits == 6) g[i] = load_group(at + quarter * line) >> 4 * half & nibble;
    if constexpr (bits == 6) g[i] |= (load_group(at + (4 + half) * line) >> 2 * quarter & crumb) << 4;
  }
}

/// The groups of one block of a file.
inline void load_groups(Format format, const std::byte* block, Group* g) {
  constexpr Group nibble = 0x0f0f0f0f, crumb = 0x03030303;
  switch (format) {
    case Format::q4_0:
    case Format::q4_1:
      block += format == Format::q4_0 ? 2 : 4;
      for (int i = 0; i < 4; ++i) {
        const Group both = load_group(block + 4 * i);
        g[i] = both & nibble;
        g[i + 4] = both >> 4 & nibble;
      }
      return;
    case Format::q5_0:
    case Format::q5_1: {
      const int at = format == Format::q5_0 ? 2 : 4;
      const Group fifth = load_group(block + at);
      for (int i = 0; i < 8; ++i) {
        g[i] = load_group(block + at + 4 + i % 4 * 4) >> i / 4 * 4 & nibble;
        for (int n = 0; n < 4; ++n) g[i] |= (fifth >> (4 * i + n) & 1) << (8 * n + 4);
        if (format == Format::q5_0)  // signed bytes: code - 16
          g[i] = ((g[i] | 0x80808080) - 0x10101010) ^ 0x80808080;
      }
      return;
    }
    case Format::q8_0:
      for (int i = 0; i < 8; ++i) g[i] = load_group(block + 2 + 4 * i);
      return;
    case Format::q4_k:
    case Format::q5_k: {
      const std::byte* low = block + (format == Format::q4_k ? 16 : 48);
      for (int j = 0; j < 8; ++j)
        for (int i = 0; i < 8; ++i) {
          Group q = load_group(low + j / 2 * 32 + 4 * i) >> j % 2 * 4 & nibble;
          if (format == Format::q5_k) q |= (load_group(block + 16 + 4 * i) >> j & 0x01010101) << 4;
          g[8 * j + i] = q;
        }
      return;
    }
    case Format::q6_k:
      for (int j = 0; j < 8; ++j)
        for (int i = 0; i < 8; ++i) {
          const int half = j / 4, k = j % 4;
          const Group low = load_group(block + 64 * half + 32 * (k % 2) + 4 * i) >> 4 * (k / 2);
          const Group high = load_group(block + 128 + 32 * half + 4 * i) >> 2 * k;
          g[8 * j + i] = (low & nibble) | (high & crumb) << 4;
        }
      return;
    case Format::tq2_0:
      for (int j = 0; j < 8; ++j)
        for (int i = 0; i < 8; ++i) g[8 * j + i] = load_group(block + 32 * (j / 4) + 4 * i) >> 2 * (j % 4) & crumb;
      return;
    case Format::tq1_0: {
      float x[256];
      std::byte unscaled[54];  // with d = 1 the numbers are the codes less one
      std::memcpy(unscaled, block, 52);
      store_f16(unscaled + 52, 1.f);
      format_parts::TQ1_0::decode<4>(unscaled, x);
      for (int i = 0; i < 64; ++i) {
        g[i] = 0;
        for (int n = 0; n < 4; ++n) g[i] |= static_cast<Group>(x[4 * i + n] + 1.f) << 8 * n;
      }
      return;
    }
    default: return;
  }
}

/// Places of what scales a block, in bytes from its start; -1: not there.
struct ScaleFields {
  int d = 0, minimum = -1, sub = -1, sub_bytes = 0;
};
constexpr ScaleFields scale_fields(Format format) {
  switch (format) {
    case Format::q4_1:
    case Format::q5_1: return {.d = 0, .minimum = 2};
    case Format::q4_k:
    case Format::q5_k: return {.d = 0, .minimum = 2, .sub = 4, .sub_bytes = 12};
    case Format::q6_k: return {.d = 208, .sub = 192, .sub_bytes = 16};
    case Format::tq1_0: return {.d = 52};
    case Format::tq2_0: return {.d = 64};
    default: return {};
  }
}

/// One row's blocks into a panel.
template <class L>
void pack_row(Format format, std::int64_t cols, const std::byte* from, std::int64_t row, std::byte* panel) {
  const std::int64_t file_bytes = format_info(format)->bytes;
  if constexpr (has_codes<L>) {
    const ScaleFields fields = scale_fields(format);
    for (std::int64_t k = 0; k < cols; k += L::values, from += file_bytes, panel += L::bytes) {
      Group g[L::values / 4];
      load_groups(format, from, g);
      for (int u = 0; u < L::units; ++u)
        store_unit<L::bits>(g + 8 * u, panel + L::codes_at + u * L::unit_bytes + 4 * row);
      for (int i = 0; i < fields.sub_bytes; ++i) panel[L::scales_at + 16 * i + row] = from[fields.sub + i];
      std::memcpy(panel + L::d_at + 2 * row, from + fields.d, 2);
      if (L::minimum) std::memcpy(panel + L::minimum_at + 2 * row, from + fields.minimum, 2);
    }
  } else {
    constexpr std::size_t size = L::bytes / 16;  // of `values` numbers, which lie side by side
    const std::int64_t blocks = cols / L::values;
    for (std::int64_t b = 0; b < blocks; ++b, from += size, panel += L::bytes)
      std::memcpy(panel + static_cast<std::size_t>(row) * size, from, size);
    if (cols % L::values != 0) std::memcpy(panel + static_cast<std::size_t>(row) * size, from, size / L::values);
  }
}

/// y [cols] = scale * one row.
template <class L>
void unpack_row(const std::byte* panel, std::int64_t cols, std::int64_t row, float scale, float* y) {
  if constexpr (has_codes<L>) {
    for (std::int64_t k = 0; k < cols; k += L::values, panel += L::bytes) {
      const float d = load_f16(panel + L::d_at + 2 * row);
      const float minimum = L::minimum ? load_f16(panel + L::minimum_at + 2 * row) : 0.f;
      std::byte sub[16];
      for (int i = 0; i < (L::six_bits ? 12 : L::scaled ? 16 : 0); ++i) sub[i] = panel[L::scales_at + 16 * i + row];
      const format_parts::SixBitPairs pairs =
          L::six_bits ? format_parts::SixBitPairs::load(sub) : format_parts::SixBitPairs{};
      for (int u = 0; u < L::units; ++u) {
        Group g[8];
        load_unit<L::bits>(panel + L::codes_at + u * L::unit_bytes + 4 * row, g);
        for (int i = 0; i < 8; ++i, y += 4) {
          float unit = d, offset = minimum;
          if constexpr (L::six_bits) {
            unit = d * pairs.s[u];
            offset = -(minimum * pairs.m[u]);
          } else if constexpr (L::scaled) {
            unit = d * static_cast<float>(static_cast<std::int8_t>(sub[2 * u + i / 4]));
          }
          for (int n = 0; n < 4; ++n) {
            const auto code = static_cast<std::uint8_t>(g[i] >> 8 * n);
            const int q = L::wide        ? static_cast<std::int8_t>(code)
                          : L::zero >= 0 ? code - (1 << std::max(L::zero, 0))
                                         : code;
            const float x = unit * static_cast<float>(q);
            y[n] = scale * (L::minimum ? x + offset : x);
          }
        }
      }
    }
  } else {
    constexpr int size = L::bytes / 16 / L::values;
    for (std::int64_t k = 0; k < cols; ++k) {
      const std::byte* p = panel + k / L::values * L::bytes + (L::values * row + k % L::values) * size;
      float x = 0;
      if constexpr (size == 4)
        std::memcpy(&x, p, sizeof x);
      else if constexpr (L::values == 1)
        x = load_f16(p);
      else
        x = from_bf16<1>(Ints<1>::load<std::uint16_t>(p)).v[0];
      y[k] = scale * x;
    }
  }
}

}  // namespace packed_parts
}  // namespace chimera::inline CHIMERA_ABI
#endif
