#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/kernels/packed/matrix.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "numeric.hpp"

#if defined(__x86_64__)

// The loops on 16 lanes, which few processors have: vectors are split by the compiler, and products are plain.
#define CHIMERA_LEVEL packed_16_lanes
#define CHIMERA_TARGET CHIMERA_AVX2
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

struct Ops : packed_parts::UnsignedOps<16> {
  static constexpr int tokens = 8;

  /// For unsigned codes, as vpdpbusd.
  CHIMERA_TARGET static IVec dot(const IVec& sum, const IVec& codes, const IVec& x) {
    std::uint8_t a[64];
    std::int8_t b[64];
    std::memcpy(a, &codes.v, sizeof a);
    std::memcpy(b, &x.v, sizeof b);
    IVec r = sum;
    for (int i = 0; i < 64; ++i) r.v[i / 4] += a[i] * b[i];
    return r;
  }
  CHIMERA_TARGET static IVec wide_dot(const IVec& sum, const IVec& codes, const IVec& x) {
    return dot(sum, unsigned_codes(codes), x);
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
      Kernels::template multiply<Layout>(panel, input, rows - count, count, aligned(scratch), out.data());
      all.insert(all.end(), out.begin(), out.begin() + count * panel_rows);
    }
    return all;
  }
};

/// Whether a panel of a format gives the same bits on 16 lanes and on 8.
template <class Layout>
bool same(Format format) {
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
  return wide.template times<Layout>(panel) == narrow.template times<Layout>(panel);
}

}  // namespace

TEST_CASE("16 lanes give the bits that 8 give") {
  using namespace packed_parts;
  if (!runs(Isa::avx2)) return;
  CHECK(same<LayoutF16>(Format::f16));
  CHECK(same<LayoutQ4_0>(Format::q4_0));
  CHECK(same<LayoutQ5_1>(Format::q5_1));
  CHECK(same<LayoutQ8_0>(Format::q8_0));
  CHECK(same<LayoutQ4_K>(Format::q4_k));
  CHECK(same<LayoutQ6_K>(Format::q6_k));
  CHECK(same<LayoutTQ2_0>(Format::tq2_0));
}

#endif
