// The loops of products with packed weights, written once for all levels. A level's header (base.hpp,
// avx2.hpp ...) defines
//
//   CHIMERA_LEVEL    the namespace of its code
//   CHIMERA_TARGET   the attribute of all its functions: a template's argument cannot choose that one
//   Ops              in that namespace: its instructions, see ops.hpp
//
// and includes this file, which therefore has no include guard, and which alone is empty.
//
// For one row of x the codes are taken apart as they come from memory. For several a part of the panel is taken apart
// once, into bytes that stay in the first cache, and multiplied with `Ops::tokens` rows at a time. Every sum has the
// same order in both: products of a run are added as integers, blocks as f32 one after another.
#if defined(CHIMERA_LEVEL)
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

using namespace packed_parts;

inline constexpr int W = Ops::lanes, parts = 16 / W;
/// Rows of x of a tile. f32 need no registers on the way from a product to its sum.
inline constexpr int tokens = Ops::tokens, float_tokens = tokens * 3 / 2;
using FVec = Vec<W>;
using IVec = Ints<W>;

/// n x parts registers, not set: constructors of an array run in a loop, behind which g++ 12 keeps it in memory.
template <class V, int n>
struct Registers {
  typename V::Native v[n][parts];

  CHIMERA_TARGET CHIMERA_INLINE V get(int t, int p) const { return V(v[t][p]); }
  CHIMERA_TARGET CHIMERA_INLINE void set(int t, int p, const V& x) { v[t][p] = x.v; }
  CHIMERA_TARGET CHIMERA_INLINE void clear() {
#pragma GCC unroll 16
    for (int t = 0; t < n; ++t)
#pragma GCC unroll 16
      for (int p = 0; p < parts; ++p) v[t][p] = V().v;
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
CHIMERA_TARGET CHIMERA_INLINE IVec broadcast(const void* p) {
  float x = 0;
  std::memcpy(&x, p, sizeof x);
  return bits_of<W>(FVec(x));
}

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

/// What multiplies the sub-blocks of a block: a byte for each row.
template <class L>
struct SubBlocks {
  const std::byte* scales = nullptr;  // [run][16]
  const std::byte* minima = nullptr;  // [32 numbers][16]
  alignas(64) std::byte unpacked[L::six_bits ? 256 : 1];

  CHIMERA_TARGET CHIMERA_INLINE explicit SubBlocks(const std::byte* block) {
    scales = block + L::scales_at;
    if constexpr (L::six_bits) {
      const std::byte* from = scales;
      scales = unpacked, minima = unpacked + 128;
      for (int at = 0; at < 64; at += 4 * W) {
        const IVec s = ints_at(from + at), m = ints_at(from + 64 + at), low = ints_at(from + 128 + at);
        store(unpacked + at, s & 0x3f3f3f3f);
        store(unpacked + 64 + at, (low & 0x0f0f0f0f) | ((s >> 2) & 0x30303030));
        store(unpacked + 128 + at, m & 0x3f3f3f3f);
        store(unpacked + 192 + at, ((low >> 4) & 0x0f0f0f0f) | ((m >> 2) & 0x30303030));
      }
    }
  }
  CHIMERA_TARGET CHIMERA_INLINE static void store(std::byte* p, const IVec& x) { std::memcpy(p, &x.v, sizeof x.v); }

  /// Of a run's products, and of the sums of a unit's inputs.
  CHIMERA_TARGET CHIMERA_INLINE IVec scale(int run, int part) const {
    if constexpr (L::six_bits)
      return Ops::multipliers(IVec::template load<std::uint8_t>(scales + run * L::run / 32 * 16 + part * W));
    else
      return Ops::multipliers(IVec::template load<std::int8_t>(scales + run * 16 + part * W));
  }
  CHIMERA_TARGET CHIMERA_INLINE IVec minimum(int unit, int part) const {
    return Ops::multipliers(IVec::template load<std::uint8_t>(minima + unit * 16 + part * W));
  }
};

/// What a run's sums start from, for one row of x.
template <class L, class Input>
CHIMERA_TARGET CHIMERA_INLINE IVec start(const Input& x, int run) {
  const std::int32_t* sums = x.sums16;
  if constexpr (L::run == 32) sums = x.sums32;
  if constexpr (L::run == 256) sums = x.sums256;
  if constexpr (L::wide)
    return Ops::wide_start(broadcast(sums + run));
  else if constexpr (L::zero >= 0)
    return Ops::start(broadcast(sums + run), L::zero);
  else
    return IVec();
}

template <class L>
CHIMERA_TARGET CHIMERA_INLINE IVec dot(const IVec& sum, const IVec& weights, const IVec& x) {
  if constexpr (L::wide)
    return Ops::wide_dot(sum, weights, x);
  else
    return Ops::dot(sum, weights, x);
}
template <class L>
CHIMERA_TARGET CHIMERA_INLINE IVec total(const IVec& sum) {
  if constexpr (L::wide)
    return sum;
  else
    return Ops::total(sum);
}

/// The end of a block: acc + d x.d total, and what the offsets add. `least` sums the offsets of sub-blocks.
template <class L, class Input>
CHIMERA_TARGET CHIMERA_INLINE FVec add_block(const FVec& acc, const IVec& sum, const IVec& least, const FVec& d,
                                             const FVec& minimum, const Input& x) {
  FVec y = fma<W>(as_floats<W>(sum), d * FVec(x.d), acc);
  if constexpr (L::minimum && L::scaled)
    y = fma<W>(as_floats<W>(least), minimum * FVec(x.d), y);
  else if constexpr (L::minimum)
    y = fma<W>(minimum, FVec(x.sum), y);
  return y;
}

/// How far ahead of its use a panel is fetched, past the caches that hold what is used again. Measured on Zen 3.
inline constexpr int prefetch_ahead = 1536;
CHIMERA_INLINE void fetch(const std::byte* p) { __builtin_prefetch(p, 0, 0); }

/// out [16] = blocks of a panel times one row of x.
template <class L, class Input>
CHIMERA_TARGET void multiply_row(const std::byte* w, const Input* x, std::int64_t blocks, float* out) {
  constexpr int runs = L::run < 32 ? 32 / L::run : 1;  // of a unit
  FVec acc[parts];
  for (std::int64_t b = 0; b < blocks; ++b, w += L::bytes, ++x) {
    const SubBlocks<L> sub(w);
    IVec totals[parts], least[parts], sums[runs][parts];
    for (int at = 0; at < L::codes_at; at += line) fetch(w + at + prefetch_ahead);
    for (int u = 0; u < L::units; ++u) {
#pragma GCC unroll 16
      for (int at = 0; at < L::unit_bytes; at += line) fetch(w + L::codes_at + u * L::unit_bytes + at + prefetch_ahead);
      if (L::run <= 32 || u == 0) {
#pragma GCC unroll 16
        for (int r = 0; r < runs; ++r)
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p) sums[r][p] = start<L>(*x, u * runs + r);
      }
#pragma GCC unroll(W > 4 ? 8 : 1)  // of 4 lanes the code would be three times that of all others
      for (int i = 0; i < 8; ++i) {
        const int g = i / 2 + i % 2 * 4, r = runs == 2 ? g / 4 : 0;  // both halves of a line at once
        const IVec v = broadcast(x->q + 32 * u + 4 * g);
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p)
          sums[r][p] = dot<L>(sums[r][p], codes<L::bits>(w + L::codes_at + u * L::unit_bytes + 4 * W * p, g), v);
      }
      if (L::run > 32 && u + 1 < L::units) continue;
#pragma GCC unroll 16
      for (int r = 0; r < runs; ++r)
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) {
          if constexpr (L::scaled)
            totals[p] = totals[p] + Ops::total(sums[r][p], sub.scale(u * runs + r, p));
          else
            totals[p] = totals[p] + total<L>(sums[r][p]);
        }
      if constexpr (L::minimum && L::scaled)
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) least[p] = least[p] + Ops::total(broadcast(x->sums32 + u), sub.minimum(u, p));
    }
#pragma GCC unroll 16
    for (int p = 0; p < parts; ++p)
      acc[p] = add_block<L>(acc[p], totals[p], least[p], Ops::halves(w + L::d_at + 2 * W * p),
                            L::minimum ? Ops::halves(w + L::minimum_at + 2 * W * p) : FVec(), *x);
  }
#pragma GCC unroll 16
  for (int p = 0; p < parts; ++p) acc[p].store(out + p * W);
}

/// A block taken apart: d, offsets, multipliers of the sub-blocks' scales and offsets, and a byte for each code.
template <class L>
struct Unpacked {
  static constexpr int runs = L::values / L::run;
  static constexpr int minimum_at = 64, scales_at = minimum_at + (L::minimum ? 64 : 0);
  static constexpr int minima_at = scales_at + (L::scaled ? runs * line : 0);
  static constexpr int codes_at = minima_at + (L::scaled && L::minimum ? L::units * line : 0);
  static constexpr int bytes = codes_at + L::units * 8 * line;

  CHIMERA_TARGET static void from(const std::byte* w, std::int64_t blocks, std::byte* to) {
    for (; blocks > 0; --blocks, w += L::bytes, to += bytes) {
      const SubBlocks<L> sub(w);
#pragma GCC unroll 16
      for (int p = 0; p < parts; ++p) {
        const int at = 4 * W * p;
        put(to + at, bits_of<W>(Ops::halves(w + L::d_at + 2 * W * p)));
        if constexpr (L::minimum) put(to + minimum_at + at, bits_of<W>(Ops::halves(w + L::minimum_at + 2 * W * p)));
        if constexpr (L::scaled)
#pragma GCC unroll 16
          for (int r = 0; r < runs; ++r) put(to + scales_at + r * line + at, sub.scale(r, p));
        if constexpr (L::scaled && L::minimum)
          for (int u = 0; u < L::units; ++u) put(to + minima_at + u * line + at, sub.minimum(u, p));
        for (int u = 0; u < L::units; ++u)
          for (int g = 0; g < 8; ++g)
            put(to + codes_at + (8 * u + g) * line + at, codes<L::bits>(w + L::codes_at + u * L::unit_bytes + at, g));
      }
    }
  }
  CHIMERA_TARGET CHIMERA_INLINE static void put(std::byte* p, const IVec& x) { std::memcpy(p, &x.v, sizeof x.v); }
};

/// acc [tokens][16] += blocks taken apart times rows of x.
template <class L, class Input>
CHIMERA_TARGET void multiply_tile(const std::byte* w, const Input* const (&rows)[tokens], std::int64_t blocks,
                                  float* acc) {
  using U = Unpacked<L>;
  const Input* x[tokens];  // copied one by one: as a whole g++ would keep them in memory
#pragma GCC unroll 16
  for (int t = 0; t < tokens; ++t) x[t] = rows[t];
  for (std::int64_t b = 0; b < blocks; ++b, w += U::bytes) {
    // Of 16 registers none is left for the results of the block before, which g++ would keep there and spill.
    if (W == 8) asm volatile("" ::: "memory");
    Registers<IVec, tokens> totals, least;
    totals.clear();
    least.clear();
    const std::byte* group = w + U::codes_at;
    for (int r = 0, k = 0; r < U::runs; ++r) {
      Registers<IVec, tokens> sums;
#pragma GCC unroll 16
      for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) sums.set(t, p, start<L>(*x[t], r));
#pragma GCC unroll 1
      for (int g = 0; g < L::run / 4; ++g, group += line, k += 4) {
        IVec c[parts];
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) c[p] = ints_at(group + 4 * W * p);
#pragma GCC unroll 16
        for (int t = 0; t < tokens; ++t) {
          const IVec v = broadcast(x[t]->q + k);
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p) sums.set(t, p, dot<L>(sums.get(t, p), c[p], v));
        }
      }
#pragma GCC unroll 16
      for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
        for (int p = 0; p < parts; ++p) {
          if constexpr (U::runs == 1)
            totals.set(t, p, total<L>(sums.get(t, p)));
          else if constexpr (L::scaled)
            totals.set(t, p,
                       totals.get(t, p) + Ops::total(sums.get(t, p), ints_at(w + U::scales_at + r * line + 4 * W * p)));
          else
            totals.set(t, p, totals.get(t, p) + total<L>(sums.get(t, p)));
        }
    }
    if constexpr (L::scaled && L::minimum)
      for (int u = 0; u < L::units; ++u)
#pragma GCC unroll 16
        for (int t = 0; t < tokens; ++t)
#pragma GCC unroll 16
          for (int p = 0; p < parts; ++p)
            least.set(t, p,
                      least.get(t, p) +
                          Ops::total(broadcast(x[t]->sums32 + u), ints_at(w + U::minima_at + u * line + 4 * W * p)));
#pragma GCC unroll 16
    for (int t = 0; t < tokens; ++t) {
#pragma GCC unroll 16
      for (int p = 0; p < parts; ++p) {
        float* a = acc + t * panel_rows + p * W;
        add_block<L>(FVec::load(a), totals.get(t, p), least.get(t, p), floats_at(w + 4 * W * p),
                     L::minimum ? floats_at(w + U::minimum_at + 4 * W * p) : FVec(), *x[t])
            .store(a);
      }
      ++x[t];
    }
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
        const FVec v(x[t][k]);
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

/// Numbers of each row that are taken apart at a time.
inline constexpr std::int64_t code_depth = 1024, float_depth = 256;
inline constexpr std::int64_t few_rows = 2;  // up to here row by row

/// f(sums) with room for the sums of `tile` rows [tile][16]: where they lie, or beside that if only `left` rows
/// are there.
template <int tile, class F>
CHIMERA_TARGET CHIMERA_INLINE void with_room(std::int64_t left, float* sums, F f) {
  if (left >= tile) return f(sums);
  alignas(64) float some[tile * panel_rows];
  std::copy_n(sums, left * panel_rows, some);
  std::fill(some + left * panel_rows, some + tile * panel_rows, 0.f);
  f(some);
  std::copy_n(some, left * panel_rows, sums);
}

template <class L>
CHIMERA_TARGET void multiply(const std::byte* w, const PackedInput& input, std::int64_t first, std::int64_t count,
                             float* scratch, float* out) {
  if constexpr (has_codes<L>) {
    const auto* x = input_blocks<L::values>(input);
    using Input = std::remove_cvref_t<decltype(*x)>;
    const std::int64_t blocks = input.cols / L::values;
    x += first * blocks;
    if (count <= few_rows) {
      for (std::int64_t t = 0; t < count; ++t) multiply_row<L>(w, x + t * blocks, blocks, out + t * panel_rows);
      return;
    }
    std::fill_n(out, count * panel_rows, 0.f);
    auto* unpacked = reinterpret_cast<std::byte*>(scratch);
    constexpr std::int64_t step = code_depth / L::values;
    for (std::int64_t b = 0; b < blocks; b += step) {
      const std::int64_t n = std::min(step, blocks - b);
      Unpacked<L>::from(w + b * L::bytes, n, unpacked);
      for (std::int64_t t = 0; t < count; t += tokens) {
        const Input* tile[tokens];
        for (int i = 0; i < tokens; ++i) tile[i] = x + std::min(t + i, count - 1) * blocks + b;
        with_room<tokens>(count - t, out + t * panel_rows,
                          [&](float* acc) CHIMERA_LAMBDA { multiply_tile<L>(unpacked, tile, n, acc); });
      }
    }
  } else {
    std::fill_n(out, count * panel_rows, 0.f);
    const std::int64_t stride = input.stride(), cols = input.cols;
    const float* x = input.floats + first * stride;
    if (count <= few_rows) {
      for (std::int64_t t = 0; t < count; ++t) {
        const float* row = x + t * stride;
        multiply_floats<L, 1>(w, &row, cols, out + t * panel_rows);
      }
      return;
    }
    for (std::int64_t k = 0; k < cols; k += float_depth) {
      const std::int64_t depth = std::min(float_depth, cols - k);
      for (std::int64_t i = 0; i < depth; ++i)
        for (int p = 0; p < parts; ++p)
          weights_at<L>(w + k / L::values * L::bytes, i, p).store(scratch + i * panel_rows + p * W);
      for (std::int64_t t = 0; t < count; t += float_tokens) {
        const float* tile[float_tokens];
        for (int i = 0; i < float_tokens; ++i) tile[i] = x + std::min(t + i, count - 1) * stride + k;
        with_room<float_tokens>(count - t, out + t * panel_rows, [&](float* acc) CHIMERA_LAMBDA {
          multiply_floats<LayoutF32, float_tokens>(reinterpret_cast<const std::byte*>(scratch), tile, depth, acc);
        });
      }
    }
  }
}

/// The largest magnitude of n numbers, n a multiple of W.
CHIMERA_TARGET CHIMERA_INLINE float largest_magnitude(const float* x, int n) {
  FVec most;
  for (int i = 0; i < n; i += W) {
    const FVec v = FVec::load(x + i);
    most = max<W>(most, max<W>(v, -v));
  }
  return largest_lane<W>(most);
}

/// x / d as signed bytes, d = the largest magnitude / 127, and sums of 16 of them.
template <class Input>
CHIMERA_TARGET CHIMERA_INLINE void quantize(const float* x, Input& to) {
  constexpr auto n = static_cast<int>(Input::values);
  const float most = largest_magnitude(x, n), inverse = most < 1e-30f ? 0.f : 127.f / most;
  to.d = most / 127.f;
  for (int k = 0; k < n; k += 32) {
    Ops::quantize(x + k, inverse, to.q + k);
    Ops::sums(to.q + k, to.sums16 + k / 16);
    to.sums32[k / 32] = Ops::add(to.sums16[k / 16], to.sums16[k / 16 + 1]);
  }
}

/// One row of x in every form.
CHIMERA_TARGET inline void pack_input(const PackedInput& to, std::int64_t row, const float* x) {
  if (contains(to.forms, InputForms::f32)) {
    float* copy = to.floats + row * to.stride();
    std::copy_n(x, to.cols, copy);
    std::fill(copy + to.cols, copy + to.stride(), 0.f);
  }
  if (contains(to.forms, InputForms::blocks_of_32)) {
    const std::int64_t blocks = to.cols / 32;
    for (std::int64_t b = 0; b < blocks; ++b) {
      InputBlock32& block = to.blocks_of_32[row * blocks + b];
      quantize(x + 32 * b, block);
      block.sum = -block.d * static_cast<float>(Ops::value(block.sums32[0]));
    }
  }
  if (contains(to.forms, InputForms::blocks_of_256)) {
    const std::int64_t blocks = to.cols / 256;
    for (std::int64_t b = 0; b < blocks; ++b) {
      InputBlock256& block = to.blocks_of_256[row * blocks + b];
      quantize(x + 256 * b, block);
      block.sums256[0] = block.sums32[0];
      for (int i = 1; i < 8; ++i) block.sums256[0] = Ops::add(block.sums256[0], block.sums32[i]);
    }
  }
}

template <class L, class FloatKernels>
constexpr auto multiply_of_level() {
  if constexpr (has_codes<L> || std::is_void_v<FloatKernels>)
    return &CHIMERA_LEVEL::multiply<L>;
  else
    return FloatKernels::template multiply<L>;
}

/// What a level is chosen by.
struct Kernels {
  static constexpr auto pack_input = &CHIMERA_LEVEL::pack_input;
  template <class L>
  static constexpr auto multiply = multiply_of_level<L, Ops::FloatKernels>();
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#endif
