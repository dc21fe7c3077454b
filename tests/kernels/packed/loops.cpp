#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/matrix.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "numeric.hpp"

#if defined(__x86_64__)

// The loops on 16 lanes, which few processors have: vectors are split by the compiler, and products are plain.
#define CHIMERA_LEVEL packed_16_lanes
#define CHIMERA_TARGET CHIMERA_AVX2
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::UnsignedOps<16> {
  static constexpr int tokens = 6;
  using Quantize = packed_avx2::FourUnits<false>;

  /// For unsigned codes, as vpdpbusd.
  template <bool>
  CHIMERA_TARGET static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    std::uint8_t a[64];
    std::int8_t b[64];
    std::memcpy(a, &codes.v, sizeof a);
    std::memcpy(b, &x.v, sizeof b);
    IVec r = sum;
    for (int i = 0; i < 64; ++i) r.v[i / 4] += a[i] * b[i];
    return r;
  }
};

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#include <chimera/kernels/packed/loops.hpp>
#undef CHIMERA_LEVEL
#undef CHIMERA_TARGET

using namespace chimera;

namespace {

constexpr std::int64_t cols = 768, rows = 19;

template <class T>
T* aligned(std::vector<T>& x) {
  return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(x.data()) + 63) / 64 * 64);
}

/// x packed by a level's kernels, and its products with a panel, 1 to 19 rows at a time.
template <class Kernels>
struct Packed {
  Floats memory;
  PackedInput input;

  Packed(InputForms forms, const Floats& x) {
    Bump count;
    bind_packed_input(count, forms, rows, cols);
    memory = room(static_cast<std::int64_t>(count.used));
    Bump take{memory.data()};
    input = bind_packed_input(take, forms, rows, cols);
    for (std::int64_t t = 0; t < rows; ++t) Kernels::pack_input(input, t, x.data() + t * cols);
  }

  template <class Layout>
  Floats times(const std::byte* panel) const {
    Floats all, scratch = zeros(panel_scratch_floats + 16), out = zeros(rows * panel_rows);
    for (const std::int64_t count : {1, 2, 3, 8, 9, 19}) {
      packed_parts::multiply(Kernels::template of<Layout>, panel, 0, 1, input, rows - count, count, aligned(scratch),
                             out.data());
      all.insert(all.end(), out.begin(), out.begin() + count * panel_rows);
    }
    return all;
  }
};

/// How far results of a panel on 16 lanes are from those on 8, of the largest.
template <class Layout>
float difference(Format format) {
  const Floats x = noise(rows * cols, 1), values = noise(panel_rows * cols, 2);
  const std::int64_t row_bytes = format_bytes(format, cols);
  std::vector<std::byte> file(static_cast<std::size_t>(panel_rows * row_bytes)), memory(panel_bytes(format, cols) + 64);
  REQUIRE(encode(Isa::base, format, values.data(), panel_rows * cols, file.data()).ok());
  const std::byte* lines[panel_rows];
  for (std::int64_t r = 0; r < panel_rows; ++r) lines[r] = file.data() + r * row_bytes;
  std::byte* const panel = aligned(memory);
  pack_panel(format, cols, lines, panel_rows, panel);
  const Packed<packed_avx2::Kernels> narrow(input_forms(format), x);
  const Packed<packed_16_lanes::Kernels> wide(input_forms(format), x);
  const Floats a = wide.template times<Layout>(panel), b = narrow.template times<Layout>(panel);
  float most = 0, largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::fabs(a[i] - b[i])), largest = std::max(largest, std::fabs(b[i]));
  return most / largest;
}

}  // namespace

TEST_CASE("16 lanes give the bits that 8 give") {
  using namespace packed_parts;
  if (!runs(Isa::avx2)) return;
  CHECK(difference<LayoutF16>(Format::f16) == 0);
  CHECK(difference<LayoutQ4_0>(Format::q4_0) == 0);
  CHECK(difference<LayoutQ5_1>(Format::q5_1) == 0);
  CHECK(difference<LayoutQ8_0>(Format::q8_0) == 0);
  CHECK(difference<LayoutQ4_K>(Format::q4_k) == 0);
  CHECK(difference<LayoutQ6_K>(Format::q6_k) < 1e-6f);  // on 8, sub-blocks are scaled as integers
  CHECK(difference<LayoutTQ2_0>(Format::tq2_0) == 0);
}

#endif
