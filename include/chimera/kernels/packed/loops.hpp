// The loops of products with packed weights, written once for all levels. A level's header (base.hpp,
// avx2.hpp ...) defines
//
//   CHIMERA_LEVEL    the namespace of its code
//   CHIMERA_TARGET   the attribute of all its functions: a template's argument cannot choose that one
//   Ops              in that namespace: its instructions, see ops.hpp
//
// and includes this file, which therefore has no include guard, and which alone is empty.
//
// For few rows of x the codes are taken apart in registers, as they come from memory. For many a part of some panels is
// taken apart once, into bytes and scales that stay in the first cache, and multiplied with `Ops::tokens` rows at a
// time. Every sum has the same order in both: products of a run are added as integers, runs as f32 one after another.
#if defined(CHIMERA_LEVEL)
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

using namespace packed_parts;

inline constexpr int W = Ops::lanes, parts = 16 / W;  // registers that hold a number of each row of a panel
/// A tile: rows of weights, registers that hold a number of each, panels. Rows of x; f32 need no registers on the way
/// from a product to its sum.
inline constexpr int tile_rows = std::max(16, 2 * W), vectors = tile_rows / W, tile_panels = tile_rows / 16;
inline constexpr int tokens = Ops::tokens, float_tokens = W == 16 ? 12 : tokens * 3 / 2;
using FVec = Vec<W>;
using IVec = Ints<W>;

/// n x m registers, not set: constructors of an array run in a loop, behind which g++ 12 keeps it in memory.
template <class V, int n, int m = parts>
struct Registers {
  typename V::Native v[n][m];

  CHIMERA_TARGET CHIMERA_INLINE V get(int t, int p) const { return V(v[t][p]); }
  CHIMERA_TARGET CHIMERA_INLINE void set(int t, int p, const V& x) { v[t][p] = x.v; }
  CHIMERA_TARGET CHIMERA_INLINE void clear() {
#pragma GCC unroll 16
    for (int t = 0; t < n; ++t)
#pragma GCC unroll 16
      for (int p = 0; p < m; ++p) v[t][p] = V().v;
  }
};

CHIMERA_TARGET CHIMERA_INLINE FVec floats_at(const void* p) {
  FVec r;
  std::memcpy(&r.v, p, sizeof r.v);
  return r;
}
CHIMERA_TARGET CHIMERA_INLINE IVec ints_at(const void* p) {
  IVec r;
  std::memcpy(&r.v, p, sizeof r.v);
  return r;
}
/// The same four bytes in every lane.
CHIMERA_TARGET CHIMERA_INLINE IVec broadcast(const void* p) { return Ops::broadcast(p); }

/// Group g of W rows of a unit; `at` is their place in its first line.
template <int bits>
CHIMERA_TARGET CHIMERA_INLINE IVec codes(const std::byte* at, int g) {
  const int half = g / 4, quarter = g % 4;
  if constexpr (bits == 8) {
    return ints_at(at + g * line);
  } else if constexpr (bits == 4) {
    return (ints_at(at + quarter * line) >> 4 * half) & 0x0f0f0f0f;
  } else if constexpr (bits == 2) {
    return (ints_at(at + half * line) >> 2 * quarter) & 0x03030303;
  } else {
    const IVec lower = (ints_at(at + quarter * line) >> 4 * half) & 0x0f0f0f0f, upper = ints_at(at + (4 + half) * line);
    return lower | ((quarter < 2 ? upper << (4 - 2 * quarter) : upper >> (2 * quarter - 4)) & 0x30303030);
  }
}

/// What scales a block, and what scales its sub-blocks: a byte for each row.
template <class L>
struct Scales {
  const std::byte* block = nullptr;
  const std::byte* scales = nullptr;  // [run][16]
  const std::byte* minima = nullptr;  // [32 numbers][16]
  alignas(64) std::byte unpacked[L::six_bits ? 256 : 1];

  CHIMERA_TARGET CHIMERA_INLINE explicit Scales(const std::byte* at) {
    block = at;
    scales = block + L::scales_at;
    if constexpr (L::six_bits) {
      const std::byte* from = scales;
      scales = unpacked, minima = unpacked + 128;
      for (int i = 0; i < 64; i += 4 * W) {
        const IVec s = ints_at(from + i), m = ints_at(from + 64 + i), low = ints_at(from + 128 + i);
        store(unpacked + i, s & 0x3f3f3f3f);
        store(unpacked + 64 + i, (low & 0x0f0f0f0f) | ((s >> 2) & 0x30303030));
        store(unpacked + 128 + i, m & 0x3f3f3f3f);
        store(unpacked + 192 + i, ((low >> 4) & 0x0f0f0f0f) | ((m >> 2) & 0x30303030));
      }
    }
  }
  CHIMERA_TARGET CHIMERA_INLINE static void store(std::byte* p, const IVec& x) { std::memcpy(p, &x.v, sizeof x.v); }

  CHIMERA_TARGET CHIMERA_INLINE FVec d(int part) const { return Ops::halves(block + L::d_at + 2 * W * part); }
  CHIMERA_TARGET CHIMERA_INLINE FVec offset(int part) const {
    if constexpr (L::minimum) return Ops::halves(block + L::minimum_at + 2 * W * part);
    return FVec();
  }
  CHIMERA_TARGET CHIMERA_INLINE IVec integer(int run, int part) const {
    return IVec::template load<std::int8_t>(scales + run * 16 + part * W);
  }
  CHIMERA_TARGET CHIMERA_INLINE IVec factors(int run, int part) const { return Ops::factors(integer(run, part)); }
  /// d of a run: exact, of at most 18 bits.
  CHIMERA_TARGET CHIMERA_INLINE FVec of_run(const FVec& d, int run, int part) const {
    const std::byte* s = scales + run * 16 + part * W;
    if constexpr (L::six_bits) return d * as_floats<W>(IVec::template load<std::uint8_t>(s));
    if constexpr (L::scaled && !L::six_bits) return d * as_floats<W>(integer(run, part));
    return d;
  }
  /// What is added to each number of a unit.
  CHIMERA_TARGET CHIMERA_INLINE FVec of_unit(const FVec& offset, int unit, int part) const {
    if constexpr (L::six_bits)
      return offset * -as_floats<W>(IVec::template load<std::uint8_t>(minima + unit * 16 + part * W));
    return offset;
  }
};

/// How products of numbers become sums. As many formats as can be have one of these in common.
struct Sum {
  int run;       // numbers whose sums are due together, as one f32
  int part;      // numbers whose products are added before their sum has to become 32 bits
  int zero;      // codes stand for code - 2^zero; -1: for themselves
  bool wide;     // codes are signed and take eight bits
  bool minimum;  // something is added to each number
  bool scaled;   // sums of parts are multiplied by integers
};

/// Of codes as they are in memory, and taken apart: where an instruction takes any bytes, all are code + 128 then.
template <class L>
inline constexpr bool scaled_parts = Ops::narrow && L::scale_run == 16;  // what makes 32 bits of 16 multiplies, too
template <class L>
inline constexpr Sum sum_of{.run = scaled_parts<L> ? 32 : L::scale_run,
                            .part = Ops::narrow ? L::run : L::scale_run,
                            .zero = Ops::any_bytes && L::wide ? 7 : L::zero,
                            .wide = L::wide && !Ops::any_bytes,
                            .minimum = L::minimum,
                            .scaled = scaled_parts<L>};
template <class L>
inline constexpr Sum sum_of_bytes{.run = sum_of<L>.run,
                                  .part = sum_of<L>.part,
                                  .zero = Ops::any_bytes && !L::minimum ? 7 : L::zero,
                                  .wide = sum_of<L>.wide,
                                  .minimum = L::minimum,
                                  .scaled = sum_of<L>.scaled};

template <class L>
CHIMERA_TARGET CHIMERA_INLINE IVec unsigned_codes(const IVec& codes) {
  if constexpr (Ops::any_bytes && L::wide) return IVec(codes.v ^ IVec(static_cast<std::int32_t>(0x80808080)).v);
  return codes;
}
template <class L>
CHIMERA_TARGET CHIMERA_INLINE IVec taken_apart(const IVec& codes) {
  if constexpr (Ops::any_bytes && L::zero >= 0) return codes + (128 - (1 << L::zero)) * 0x01010101;
  return unsigned_codes<L>(codes);
}

/// What the sums of four, eight or more groups start from. x: a row's words.
template <Sum S>
CHIMERA_TARGET CHIMERA_INLINE IVec start(const std::int32_t* x, int part) {
  if constexpr (S.zero < 0 || S.wide) return IVec();
  return Ops::start(broadcast(x + (S.part == 16 ? input_sums16 + part : input_sums)), S.zero);
}
template <Sum S>
CHIMERA_TARGET CHIMERA_INLINE IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
  return Ops::template dot<S.wide>(sum, codes, x);
}
template <Sum S>
CHIMERA_TARGET CHIMERA_INLINE IVec total(const IVec& sum) {
  if constexpr (S.wide) return sum;
  return Ops::total(sum);
}

/// How far ahead of its use a panel is fetched, past the caches that hold what is used again. Measured on Zen 3, and
/// with 16 lanes on Zen 5: 1536 bytes reach 66 to 93 % of its read bandwidth there, these 93 to 97.
inline constexpr int prefetch_ahead = W == 16 ? 6144 : 1536;
CHIMERA_INLINE void fetch(const std::byte* p) { __builtin_prefetch(p, 0, 0); }

/// out [n][16] = blocks of a panel times n rows of x.
template <class L, int n>
CHIMERA_TARGET void multiply_few(const std::byte* w, const std::int32_t* const* rows, std::int64_t blocks, float* out) {
  constexpr Sum S = sum_of<L>;
  constexpr int sums_of_unit = S.part < 32 ? 32 / S.part : 1, runs_of_unit = S.run < 32 ? 32 / S.run : 1;
  constexpr bool masked = L::bits == 2 && Ops::any_bytes;  // codes stay at their bits: four sums that are shifted once
  constexpr int chains = masked ? 4 : sums_of_unit;
  const std::int32_t* x[n];
#pragma GCC unroll 16
  for (int t = 0; t < n; ++t) x[t] = rows[t];
  Registers<IVec, 4, 1> masks;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) masks.set(i, 0, static_cast<std::int32_t>(0x03030303u << 2 * i));
  Registers<FVec, n> acc;
  acc.clear();
  for (std::int64_t b = 0; b < blocks; ++b, w += L::bytes) {
    const Scales<L> scales(w);
    FVec d[parts], offset[parts];
#pragma GCC unroll 16
    for (int p = 0; p < parts; ++p) d[p] = scales.d(p), offset[p] = scales.offset(p);
    for (int at = 0; at < L::codes_at; at += line) fetch(w + at + prefetch_ahead);
    Registers<IVec, chains * n> sums;
    for (int u = 0; u < L::units; ++u) {
      const std::byte* codes_of_unit = w + L::codes_at + u * L::unit_bytes;
#pragma GCC unroll 16
      for (int at = 0; at < L::unit_bytes; at += line) fetch(codes_of_unit + at + prefetch_ahead);
#pragma GCC unroll 16
      for (int t = 0; t < n; ++t)
#pragma GCC unroll 16
        for (int c = 0; c < chains; ++c)
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p)
            if (S.run <= 32 || u == 0) sums.set(t * chains + c, p, masked && c > 0 ? IVec() : start<S>(x[t], c));
#pragma GCC unroll(W > 4 ? 8 : 1)  // of 4 lanes the code would be three times that of all others
      for (int i = 0; i < 8; ++i) {
        const int g = i / 2 + i % 2 * 4;  // both halves of a line at once
        const int c = masked ? g % 4 : sums_of_unit == 2 ? g / 4 : 0;
        IVec code[parts];
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p)
          code[p] = masked ? ints_at(codes_of_unit + 4 * W * p + g / 4 * line) & masks.get(g % 4, 0)
                           : unsigned_codes<L>(codes<L::bits>(codes_of_unit + 4 * W * p, g));
#pragma GCC unroll 16
        for (int t = 0; t < n; ++t) {
          const IVec v = broadcast(x[t] + g);
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p) sums.set(t * chains + c, p, dot<S>(sums.get(t * chains + c, p), code[p], v));
        }
      }
      if (S.run <= 32 || u + 1 == L::units)
#pragma GCC unroll 16
        for (int r = 0; r < runs_of_unit; ++r)
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p) {
            const FVec scale = S.scaled ? d[p] : scales.of_run(d[p], u * runs_of_unit + r, p);
#pragma GCC unroll 16
            for (int t = 0; t < n; ++t) {
              IVec all;
              if constexpr (S.scaled)
                for (int c = 0; c < 2; ++c)
                  all = all + Ops::total(sums.get(t * chains + c, p), scales.factors(2 * u + c, p));
              else
                all = total<S>(sums.get(t * chains + r, p));
              if constexpr (masked)
                for (int c = 1; c < 4; ++c) all = all + (sums.get(t * chains + c, p) >> 2 * c);
              else if constexpr (sums_of_unit > runs_of_unit && !S.scaled)
                all = all + total<S>(sums.get(t * chains + 1, p));
              acc.set(t, p,
                      fma<W>(as_floats<W>(all), Ops::scaled(scale, broadcast(x[t] + input_scale)), acc.get(t, p)));
            }
          }
      if constexpr (L::minimum) {
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) {
          const FVec least = scales.of_unit(offset[p], u, p);
#pragma GCC unroll 16
          for (int t = 0; t < n; ++t)
            acc.set(t, p, fma<W>(least, from_bits<W>(broadcast(x[t] + input_sum)), acc.get(t, p)));
        }
      }
#pragma GCC unroll 16
      for (int t = 0; t < n; ++t) x[t] += input_words;
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < n; ++t)
#pragma GCC unroll 16
    for (int p = 0; p < parts; ++p) acc.get(t, p).store(out + t * panel_rows + p * W);
}

/// Units of a tile's panels taken apart: eight lines of codes, then of scales and offsets as f32.
template <Sum S>
struct Bytes {
  static constexpr int line = 4 * tile_rows, runs = S.run < 32 ? 32 / S.run : 1;
  static constexpr int scales_at = 8 * line, minima_at = scales_at + runs * line, integers_at = minima_at;
  static constexpr int unit = minima_at + (S.minimum ? line : 0) + (S.scaled ? 2 * line : 0);
};

/// Blocks of panel `panel` of a tile.
template <class L>
CHIMERA_TARGET void take_apart(const std::byte* w, std::int64_t blocks, int panel, std::byte* to) {
  using B = Bytes<sum_of_bytes<L>>;
  constexpr auto put = [](std::byte* p, const IVec& x) CHIMERA_LAMBDA { std::memcpy(p, &x.v, sizeof x.v); };
  to += panel * 64;
  for (; blocks > 0; --blocks, w += L::bytes) {
    const Scales<L> scales(w);
    for (int p = 0; p < parts; ++p) {
      std::byte* at = to + 4 * W * p;
      const FVec d = scales.d(p), offset = scales.offset(p);
      for (int u = 0; u < L::units; ++u, at += B::unit) {
#pragma GCC unroll(W == 4 ? 1 : 8)
        for (int g = 0; g < 8; ++g)
          put(at + g * B::line, taken_apart<L>(codes<L::bits>(w + L::codes_at + u * L::unit_bytes + 4 * W * p, g)));
        for (int r = 0; r < B::runs; ++r)
          put(at + B::scales_at + r * B::line, bits_of<W>(scaled_parts<L> ? d : scales.of_run(d, u * B::runs + r, p)));
        for (int i = 0; scaled_parts<L> && i < 2; ++i)
          put(at + B::integers_at + i * B::line, scales.factors(2 * u + i, p));
        if constexpr (L::minimum) put(at + B::minima_at, bits_of<W>(scales.of_unit(offset, u, p)));
      }
    }
    to += L::units * B::unit;
  }
}

/// See CodeKernels.
template <Sum S>
CHIMERA_TARGET void multiply_tile(const std::byte* w, const std::int32_t* x, std::int64_t units, float* acc,
                                  std::int64_t stride, const float* scales) {
  using B = Bytes<S>;
  constexpr int parts_of_run = S.run < 32 || S.part >= 32 ? 1 : 32 / S.part, units_of_run = S.run > 32 ? S.run / 32 : 1;
  constexpr int groups = std::min(S.part, 32) / 4;  // of a part
  constexpr bool in_registers = W == 16;            // whether there is room for the results, too
  const auto place = [&](int t, int v)
                         CHIMERA_LAMBDA { return acc + v * W / 16 * stride + t * panel_rows + v * W % 16; };
  Registers<FVec, tokens, vectors> results;
  if constexpr (in_registers)
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) results.set(t, v, FVec::load(place(t, v)));
  for (std::int64_t unit = 0; unit < units; unit += units_of_run) {
    // Of 16 registers none is left for the results of the unit before, which g++ would keep there and spill.
    if (W == 8) asm volatile("" ::: "memory");
#pragma GCC unroll 2
    for (int r = 0; r < B::runs; ++r) {
      Registers<IVec, tokens, vectors> totals, sums;
#pragma GCC unroll 2
      for (int part = 0; part < parts_of_run; ++part) {
#pragma GCC unroll 1
        for (int u = 0; u < units_of_run; ++u) {
          if (u == 0) {
#pragma GCC unroll 16
            for (int t = 0; t < tokens; ++t) {
              const IVec s = start<S>(x + t * input_words, r + part);
#pragma GCC unroll 16
              for (int v = 0; v < vectors; ++v) sums.set(t, v, s);
            }
          } else {
            w += B::unit, x += input_words * tokens;
          }
#pragma GCC unroll(W == 16 && Ops::any_bytes ? 8 : 1)
          for (int i = 0; i < groups; ++i) {
            const int g = (r + part) * groups + i;
            IVec code[vectors];
#pragma GCC unroll 16
            for (int v = 0; v < vectors; ++v) code[v] = ints_at(w + g * B::line + 4 * W * v);
#pragma GCC unroll 16
            for (int t = 0; t < tokens; ++t) {
              const IVec four = broadcast(x + t * input_words + g);
#pragma GCC unroll 16
              for (int v = 0; v < vectors; ++v) sums.set(t, v, dot<S>(sums.get(t, v), code[v], four));
            }
          }
        }
        if constexpr (parts_of_run > 1)
#pragma GCC unroll 16
          for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
            for (int v = 0; v < vectors; ++v) {
              IVec whole;
              if constexpr (S.scaled)
                whole = Ops::total(sums.get(t, v), ints_at(w + B::integers_at + part * B::line + 4 * W * v));
              else
                whole = total<S>(sums.get(t, v));
              totals.set(t, v, part == 0 ? whole : totals.get(t, v) + whole);
            }
      }
#pragma GCC unroll 16
      for (int t = 0; t < tokens; ++t) {
        const IVec scale = broadcast(x + t * input_words + input_scale);
#pragma GCC unroll 16
        for (int v = 0; v < vectors; ++v) {
          const IVec all = parts_of_run > 1 ? totals.get(t, v) : total<S>(sums.get(t, v));
          const FVec k = Ops::scaled(floats_at(w + B::scales_at + r * B::line + 4 * W * v), scale);
          FVec y = fma<W>(as_floats<W>(all), k, in_registers ? results.get(t, v) : FVec::load(place(t, v)));
          if constexpr (S.minimum)
            y = fma<W>(floats_at(w + B::minima_at + 4 * W * v),
                       from_bits<W>(broadcast(x + t * input_words + input_sum)), y);
          if constexpr (in_registers)
            results.set(t, v, y);
          else
            y.store(place(t, v));
        }
      }
    }
    w += B::unit, x += input_words * tokens;
  }
#pragma GCC unroll(in_registers ? 16 : 1)
  for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      const FVec y = in_registers ? results.get(t, v) : FVec::load(place(t, v));
      (scales ? y * FVec(scales[t]) : y).store(place(t, v));
    }
}

/// Numbers k of W rows.
template <class L>
CHIMERA_TARGET CHIMERA_INLINE FVec weights_at(const std::byte* panel, std::int64_t k, int part) {
  if constexpr (L::values == 2) {
    const IVec pair = ints_at(panel + k / 2 * line + 4 * W * part);
    return from_bits<W>(k % 2 == 0 ? pair << 16 : pair & static_cast<std::int32_t>(0xffff0000));
  } else if constexpr (L::bytes == 32) {
    return Ops::halves(panel + k * L::bytes + 2 * W * part);
  } else {
    return floats_at(panel + k * L::bytes + 4 * W * part);
  }
}

/// Products that are added before they join the others: short sums keep more digits.
inline constexpr std::int64_t float_run = 32;

/// acc [n][16] += `depth` numbers of a panel times n rows of x.
template <class L, int n>
CHIMERA_TARGET void multiply_floats(const std::byte* w, const float* const* x, std::int64_t depth, float* acc) {
  for (std::int64_t k0 = 0; k0 < depth; k0 += float_run) {
    Registers<FVec, n> sums;
    sums.clear();
    const std::int64_t end = std::min(k0 + float_run, depth);
    for (std::int64_t k = k0; k < end; ++k) {
      if (n == 1) fetch(w + k * L::bytes / L::values + prefetch_ahead);
      FVec c[parts];
#pragma GCC unroll 16
      for (int p = 0; p < parts; ++p) c[p] = weights_at<L>(w, k, p);
#pragma GCC unroll 16
      for (int t = 0; t < n; ++t) {
        const FVec v = from_bits<W>(broadcast(x[t] + k));
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) sums.set(t, p, fma<W>(c[p], v, sums.get(t, p)));
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < n; ++t)
#pragma GCC unroll 16
      for (int p = 0; p < parts; ++p) {
        float* a = acc + t * panel_rows + p * W;
        (FVec::load(a) + sums.get(t, p)).store(a);
      }
  }
}

/// to [depth][16] = numbers of a panel as f32.
template <class L>
CHIMERA_TARGET void load_numbers(const std::byte* w, std::int64_t depth, float* to) {
  for (std::int64_t k = 0; k < depth; ++k)
    for (int p = 0; p < parts; ++p) weights_at<L>(w, k, p).store(to + k * panel_rows + p * W);
}

/// f(x [128], unit, number of units) for four units of a row at a time; those that are not there are 0. Without a `rest`
/// they are a multiple of four.
template <bool rest, class F>
CHIMERA_TARGET CHIMERA_INLINE void by_four_units(const float* x, std::int64_t units, F f) {
  std::int64_t u = 0;
  for (; u + 4 <= units; u += 4) f(x + 32 * u, u, std::int64_t{4});
  if (!rest || u == units) return;
  float last[128] = {};
  std::copy_n(x + 32 * u, 32 * (units - u), last);
  f(last, u, units - u);
}

CHIMERA_TARGET CHIMERA_INLINE Ints<4> ints_of_four(const std::int32_t* p) {
  Ints<4> r;
  std::memcpy(&r.v, p, sizeof r.v);
  return r;
}
CHIMERA_TARGET CHIMERA_INLINE void transpose_four(Vec<4> (&r)[4]) {
  constexpr auto low = [](int i) { return i / 2 + i % 2 * 4; };
  constexpr auto high = [](int i) { return i / 2 + 2 + i % 2 * 4; };
  const Vec<4> a = shuffle<low, 4>(r[0], r[2]), b = shuffle<high, 4>(r[0], r[2]);
  const Vec<4> c = shuffle<low, 4>(r[1], r[3]), d = shuffle<high, 4>(r[1], r[3]);
  r[0] = shuffle<low, 4>(a, c), r[1] = shuffle<high, 4>(a, c);
  r[2] = shuffle<low, 4>(b, d), r[3] = shuffle<high, 4>(b, d);
}

/// The largest magnitudes of four units.
template <class Quantize>
CHIMERA_TARGET CHIMERA_INLINE Vec<4> largest_of_four(const float* x) {
  float most[4];
  Quantize::largest(x, most);
  return Vec<4>::load(most);
}

/// A row in units that lie `step` words apart: signed bytes, and for each unit, or for each eight, the least power of
/// two that holds them.
template <class Quantize, bool eight>
CHIMERA_TARGET void quantize_row(const float* x, std::int64_t units, float most, std::int64_t step, bool float_powers,
                                 std::int32_t* to) {
  const float inverse = most < 1e-30f ? 0.f : 127.f / most;
  Vec<4> largest;
  Ints<4> whole;
  by_four_units<!eight>(
      x, units, [&](const float* four, std::int64_t u, std::int64_t number) CHIMERA_LAMBDA CHIMERA_TARGET {
        const bool first = !eight || u % 8 == 0;
        if (!eight)
          largest = largest_of_four<Quantize>(four);
        else if (first)
          largest =
              Vec<4>(largest_lane<4>(max<4>(largest_of_four<Quantize>(four), largest_of_four<Quantize>(four + 128))));
        const Ints<4> e = input_exponent(largest * Vec<4>(inverse));
        float nearest[4];
        (Vec<4>(inverse) * from_bits<4>(power_of_two(Ints<4>(0) - e))).store(nearest);
        std::int32_t sums[2][4], rest[4 * input_words];
        Quantize::quantize(four, nearest, number == 4 ? step : input_words, number == 4 ? to + u * step : rest, sums);
        const Ints<4> a(ints_of_four(sums[0])), b(ints_of_four(sums[1])), both = Quantize::add(a, b);
        const Vec<4> power = float_powers ? as_floats<4>(e) : from_bits<4>(power_of_two(e));
        Vec<4> words[4] = {from_bits<4>(a), from_bits<4>(b), from_bits<4>(both), power};
        transpose_four(words);
        float values[4];
        (from_bits<4>(power_of_two(e)) * as_floats<4>(Quantize::value(both))).store(values);
        for (std::int64_t i = 0; i < number; ++i) {
          std::int32_t* const unit = to + (u + i) * step;
          if (number < 4) std::copy_n(rest + i * input_words, input_sums16, unit);
          std::memcpy(unit + input_sums16, &words[i].v, 16);
          std::memcpy(unit + input_sum, &values[i], 4);
        }
        if (!eight) return;
        whole = first ? both : Quantize::add(whole, both);
        if (first) return;
        whole = Quantize::add(whole, Ints<4>(__builtin_shufflevector(whole.v, whole.v, 2, 3, 0, 1)));
        to[(u - 4) * step + input_sums] =
            Quantize::add(whole, Ints<4>(__builtin_shufflevector(whole.v, whole.v, 1, 0, 3, 2))).v[0];
      });
}

/// One row of x in every form, for a level with tiles of so many rows and those words for powers of two.
template <class Quantize>
CHIMERA_TARGET void pack_input(const PackedInput& to, std::int64_t row, const float* x, int tile, bool float_powers) {
  if (contains(to.forms, InputForms::f32)) {
    float* copy = to.floats + row * to.stride();
    std::copy_n(x, to.cols, copy);
    std::fill(copy + to.cols, copy + to.stride(), 0.f);
  }
  if (to.scales == nullptr) return;
  const int rows = to.tiled() ? tile : 1;
  const std::int64_t units = to.cols / 32, at = (row / rows * rows * units + row % rows) * input_words,
                     step = rows * input_words;
  Vec<4> largest;
  by_four_units<true>(x, units, [&](const float* four, std::int64_t, std::int64_t) CHIMERA_LAMBDA CHIMERA_TARGET {
    largest = max<4>(largest, largest_of_four<Quantize>(four));
  });
  const float most = largest_lane<4>(largest);
  to.scales[row] = most / 127.f;
  if (to.blocks_of_32) quantize_row<Quantize, false>(x, units, most, step, float_powers, to.blocks_of_32 + at);
  if (to.blocks_of_256) quantize_row<Quantize, true>(x, units, most, step, float_powers, to.blocks_of_256 + at);
}

/// Whether blocks are taken apart to the same bytes on all levels of so many lanes.
template <class L>
inline constexpr bool apart_alike = L::zero < 0 && !L::wide && L::scale_run != 16;

template <class L, class FloatKernels>
constexpr auto take_apart_of_level() {
  if constexpr (!std::is_void_v<FloatKernels> && apart_alike<L>)
    return FloatKernels::template apart<L>;
  else
    return &CHIMERA_LEVEL::take_apart<L>;
}

template <class L, class FloatKernels>
constexpr auto kernels_of_level() {
  if constexpr (has_codes<L>) {
    using B = Bytes<sum_of_bytes<L>>;
    static_assert(code_depth / tile_panels / 32 * B::unit <= panel_scratch_floats * 4);
    CodeKernels k{.form = L::scale_run == 256 ? InputForms::blocks_of_256 : InputForms::blocks_of_32,
                  .values = L::values,
                  .bytes = L::bytes,
                  .tile_panels = tile_panels,
                  .tokens = tokens,
                  .unit_bytes = B::unit,
                  .one = &multiply_few<L, 1>,
                  .few = nullptr,
                  .take_apart = take_apart_of_level<L, FloatKernels>(),
                  .multiply = &multiply_tile<sum_of_bytes<L>>};
    if constexpr (Ops::has_few) k.few = &multiply_few<L, few_rows>;
    return k;
  } else if constexpr (!std::is_void_v<FloatKernels>) {
    return FloatKernels::template of<L>;
  } else {
    return NumberKernels{.values = L::values,
                         .bytes = L::bytes,
                         .tokens = float_tokens,
                         .one = &multiply_floats<L, 1>,
                         .load = &load_numbers<L>,
                         .multiply = &multiply_floats<LayoutF32, float_tokens>};
  }
}

/// What a level is chosen by.
struct Kernels {
  template <class L>
  static constexpr auto apart = &CHIMERA_LEVEL::take_apart<L>;
  template <class Quantize>
  static constexpr auto pack = &CHIMERA_LEVEL::pack_input<Quantize>;
  static void pack_input(const PackedInput& to, std::int64_t row, const float* x) {
    using Level = std::conditional_t<std::is_void_v<Ops::InputKernels>, Kernels, Ops::InputKernels>;
    Level::template pack<Ops::Quantize>(to, row, x, tokens, Ops::float_powers);
  }
  template <class L>
  static constexpr auto of = kernels_of_level<L, Ops::FloatKernels>();
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#endif
