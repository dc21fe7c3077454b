// NF4 with double quantization (Dettmers et al., "QLoRA", 2305.14314), as bitsandbytes has it: what a base of training
// is stored in. No file of models has it.
//
// Numbers stand in blocks of 64, whatever the rows are. x = level[code] scale, where the scale of a block was its largest
// magnitude, and two codes make a byte, the first in its high half. A scale is itself a code of 8 bits: in runs of 256
// blocks scale = scale_level[code] step + mean, where the mean is that of all scales. 4.127 bits for a number.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/formats/integers.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace chimera::inline CHIMERA_ABI {

inline constexpr std::int64_t nf4_block = 64, nf4_run = 256;  // numbers, and blocks

/// Quantiles of the normal distribution, with a zero (appendix E).
inline constexpr std::array<float, 16> nf4_levels = {-1.f,
                                                     -0.6961928009986877f,
                                                     -0.5250730514526367f,
                                                     -0.39491748809814453f,
                                                     -0.28444138169288635f,
                                                     -0.18477343022823334f,
                                                     -0.09105003625154495f,
                                                     0.f,
                                                     0.07958029955625534f,
                                                     0.16093020141124725f,
                                                     0.24611230194568634f,
                                                     0.33791524171829224f,
                                                     0.44070982933044434f,
                                                     0.5626170039176941f,
                                                     0.7229568362236023f,
                                                     1.f};

/// Of scales, "dynamic tree" numbers (Dettmers, 1511.04561): 0 and 1, and for each of seven powers of ten, from 10^-6 to
/// 1, the midpoints of 2^i equal parts between a tenth of it and it, with both signs.
inline constexpr std::array<float, 256> nf4_scale_levels = [] {
  std::array<float, 256> all{};
  std::size_t n = 1;  // after a zero
  all[n++] = 1.f;
  constexpr double powers[] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
  for (int i = 0; i < 7; ++i) {
    const int parts = 1 << i;
    const auto edge = [&](int part) { return part == parts ? 1.0 : 0.9 / parts * part + 0.1; };
    for (int part = 0; part < parts; ++part) {
      const auto middle = static_cast<float>((edge(part) + edge(part + 1)) / 2 * powers[i]);
      all[n++] = middle, all[n++] = -middle;
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}();

/// n numbers in NF4.
struct Nf4 {
  const float* steps = nullptr;          // of runs, and then the mean
  const std::uint8_t* scales = nullptr;  // of blocks
  const std::uint8_t* codes = nullptr;   // of pairs of numbers
  std::int64_t n = 0;

  constexpr std::int64_t blocks() const { return (n + nf4_block - 1) / nf4_block; }
  constexpr std::int64_t runs() const { return (blocks() + nf4_run - 1) / nf4_run; }

  /// Bytes that n numbers take; and the numbers that lie in such bytes, which begin on 64.
  static constexpr std::size_t bytes(std::int64_t n) {
    const Nf4 w{.n = n};
    return w.scales_at() + aligned_bytes(static_cast<std::size_t>(w.blocks())) +
           aligned_bytes(static_cast<std::size_t>((n + 1) / 2));
  }
  static Nf4 at(const std::byte* data, std::int64_t n) {
    Nf4 w{.n = n};
    const auto* numbers = reinterpret_cast<const std::uint8_t*>(data) + w.scales_at();
    w.steps = reinterpret_cast<const float*>(data);
    w.scales = numbers;
    w.codes = numbers + aligned_bytes(static_cast<std::size_t>(w.blocks()));
    return w;
  }

 private:
  constexpr std::size_t scales_at() const {
    return sizeof(float) * aligned_floats(static_cast<std::size_t>(runs()) + 1);
  }
};

/// Writes n numbers as they come, into Nf4::bytes(n) that begin on 64.
class Nf4Writer {
 public:
  static Result<Nf4Writer> create(std::int64_t n, std::byte* to);

  /// The next numbers: whole blocks, but for the last. Such that are none are an error, as in `encode`.
  Result<void> append(const Cpu& q, const float* from, std::int64_t count);
  /// After the last, which no scale can do without.
  void finish();

 private:
  Nf4 w_;
  std::int64_t written_ = 0;
  Buffer magnitudes_;  // the largest of each block
};

/// All at once.
Result<void> encode_nf4(const Cpu& q, const float* from, std::int64_t n, std::byte* to);

/// Numbers first ... first + n - 1 become f32, on the calling thread.
void decode_nf4(Isa isa, const Nf4& w, std::int64_t first, std::int64_t n, float* to);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace nf4_parts {

/// What lies between neighbours; x is nearest to the level of as many as are below it, of two equally near the lower.
template <std::size_t n>
constexpr auto middles(const std::array<float, n>& levels) {
  std::array<double, n - 1> all{};
  for (std::size_t i = 0; i + 1 < n; ++i) all[i] = (double{levels[i]} + double{levels[i + 1]}) / 2;
  return all;
}
template <std::size_t n>
std::uint8_t nearest(const std::array<double, n>& middles, float x) {
  return static_cast<std::uint8_t>(std::lower_bound(middles.begin(), middles.end(), double{x}) - middles.begin());
}
inline constexpr auto level_middles = middles(nf4_levels);
inline constexpr auto scale_middles = middles(nf4_scale_levels);

inline float largest_magnitude(Isa isa, const float* x, std::int64_t n) {
  std::int32_t bits = 0;
  dispatch<format_parts::LargestMagnitude>(isa, x, n, &bits);
  float most = 0;
  std::memcpy(&most, &bits, sizeof most);
  return most;
}

inline float scale_of(const Nf4& w, std::int64_t block) {
  return rounded<1>(Vec<1>(nf4_scale_levels[w.scales[block]]) * Vec<1>(w.steps[block / nf4_run])).v[0] +
         w.steps[w.runs()];
}

/// The two numbers that each byte of codes stands for.
inline constexpr auto level_pairs = [] {
  std::array<std::array<float, 2>, 256> all{};
  for (std::size_t byte = 0; byte < all.size(); ++byte) all[byte] = {nf4_levels[byte >> 4], nf4_levels[byte & 15]};
  return all;
}();

/// The levels of W codes in W / 2 bytes.
template <int W>
CHIMERA_INLINE Vec<W> levels_of(const std::uint8_t* p) {
  if constexpr (W > 4) {
    return joined<W>(levels_of<W / 2>(p), levels_of<W / 2>(p + W / 4));
  } else {
    typedef double Pairs __attribute__((__vector_size__(16)));
    double low = 0, high = 0;  // bits of two f32 each
    std::memcpy(&low, level_pairs[p[0]].data(), sizeof low);
    std::memcpy(&high, level_pairs[p[1]].data(), sizeof high);
    const Pairs both{low, high};
    typename Vec<W>::Native levels;
    std::memcpy(&levels, &both, sizeof levels);
    return Vec<W>(levels);
  }
}

/// A whole block.
struct Decode {
  template <int W>
  CHIMERA_INLINE static void run(const std::uint8_t* from, float scale, float* to) {
    for (std::int64_t i = 0; i < nf4_block; i += W) (levels_of<W>(from + i / 2) * Vec<W>(scale)).store(to + i);
  }
};

}  // namespace nf4_parts

CHIMERA_FUNCTION Result<Nf4Writer> Nf4Writer::create(std::int64_t n, std::byte* to) {
  Nf4Writer writer;
  writer.w_ = Nf4::at(to, n);
  auto magnitudes = Buffer::create(static_cast<std::size_t>(writer.w_.blocks()));
  if (!magnitudes) return magnitudes.error();
  writer.magnitudes_ = std::move(*magnitudes);
  return writer;
}

CHIMERA_FUNCTION Result<void> Nf4Writer::append(const Cpu& q, const float* from, std::int64_t count) {
  using namespace nf4_parts;
  const std::int64_t blocks = (count + nf4_block - 1) / nf4_block;
  float* const magnitudes = magnitudes_.data() + written_ / nf4_block;
  auto* const codes = const_cast<std::uint8_t*>(w_.codes) + written_ / 2;
  parallel(q, blocks, [&](std::int64_t b, int) {
    const float* x = from + b * nf4_block;
    const std::int64_t numbers = std::min(nf4_block, count - b * nf4_block);
    magnitudes[b] = largest_magnitude(q.isa(), x, numbers);
    const float most = magnitudes[b] > 0 ? magnitudes[b] : 1.f;
    for (std::int64_t i = 0; i < numbers; i += 2) {
      const std::uint8_t second = i + 1 < numbers ? nearest(level_middles, x[i + 1] / most) : 0;
      codes[(b * nf4_block + i) / 2] = static_cast<std::uint8_t>(nearest(level_middles, x[i] / most) << 4 | second);
    }
  });
  for (std::int64_t b = 0; b < blocks; ++b)
    if (!(magnitudes[b] <= largest_of(Format::f32))) {
      const std::int64_t first = b * nf4_block, numbers = std::min(nf4_block, count - first);
      const std::int64_t at = first + format_parts::first_unfit(q.isa(), Format::f32, from + first, numbers);
      return format_parts::unfit(Format::f32, written_ + at, from[at]);
    }
  written_ += count;
  return {};
}

CHIMERA_FUNCTION void Nf4Writer::finish() {
  using namespace nf4_parts;
  auto* const steps = const_cast<float*>(w_.steps);
  auto* const scales = const_cast<std::uint8_t*>(w_.scales);
  const float* const magnitudes = magnitudes_.data();
  const std::int64_t blocks = w_.blocks(), runs = w_.runs();
  double sum = 0;
  for (std::int64_t b = 0; b < blocks; ++b) sum += double{magnitudes[b]};
  const float mean = static_cast<float>(sum / static_cast<double>(std::max<std::int64_t>(blocks, 1)));
  for (std::int64_t run = 0; run < runs; ++run) {
    const std::int64_t first = run * nf4_run, count = std::min(nf4_run, blocks - first);
    float most = 0;
    for (std::int64_t b = first; b < first + count; ++b) most = std::max(most, std::fabs(magnitudes[b] - mean));
    steps[run] = most;
    for (std::int64_t b = first; b < first + count; ++b)
      scales[b] = nearest(scale_middles, (magnitudes[b] - mean) / (most > 0 ? most : 1.f));
  }
  steps[runs] = mean;
}

CHIMERA_FUNCTION Result<void> encode_nf4(const Cpu& q, const float* from, std::int64_t n, std::byte* to) {
  auto writer = Nf4Writer::create(n, to);
  if (!writer) return writer.error();
  if (Result<void> s = writer->append(q, from, n); !s) return s;
  writer->finish();
  return {};
}

CHIMERA_FUNCTION void decode_nf4(Isa isa, const Nf4& w, std::int64_t first, std::int64_t n, float* to) {
  using namespace nf4_parts;
  for (const std::int64_t end = first + n; first < end;) {
    const std::int64_t block = first / nf4_block, skipped = first % nf4_block;
    const std::int64_t count = std::min(nf4_block - skipped, end - first);
    const std::uint8_t* from = w.codes + block * (nf4_block / 2);
    if (count == nf4_block) {
      dispatch<Decode>(isa, from, scale_of(w, block), to);
    } else {
      float all[nf4_block];
      dispatch<Decode>(isa, from, scale_of(w, block), all);
      std::copy_n(all + skipped, count, to);
    }
    first += count, to += count;
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
