// A tile of a ternary product, written once for all levels. levels.hpp defines for each of them
//
//   CHIMERA_LEVEL    the namespace of its code
//   CHIMERA_TARGET   the attribute of all its functions: a template's argument cannot choose that one
//   Ops              in that namespace: its instructions, as TileOps
//
// and includes this file, which therefore has no include guard, and which alone is empty.
#if defined(CHIMERA_LEVEL)
namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL {

inline constexpr int W = Ops::lanes, tile_rows = gemm_tile_rows(W), tile_cols = gemm_tile_cols(W);

/// A group of a tile, of panels that stand at it: added to those before, and finished if it is the last. The rows are
/// constants: else g++ 12 keeps some of the sums in memory.
template <int... r>
CHIMERA_TARGET CHIMERA_INLINE void add_group(std::integer_sequence<int, r...>, const ternary_parts::TileTask& t,
                                             const float* x, const float* w, bool first, bool last) {
  using V = Vec<W>;
  using Native = typename Ints<W>::Native;
  constexpr int rows = sizeof...(r);
  Native left[rows], right[rows];
  const V scale0 = V::load(w), scale1 = V::load(w + W);
  const Native start0 = bits_of<W>(V::load(w + 2 * W)).v, start1 = bits_of<W>(V::load(w + 3 * W)).v;
  ((left[r] = start0, right[r] = start1), ...);
  w += 4 * W;
  for (std::int64_t p = 0; p < t.words; ++p, x += rows, w += 2 * W) {
    const Native codes0 = bits_of<W>(V::load(w)).v, codes1 = bits_of<W>(V::load(w + W)).v;
    const auto add = [&](int row, Native& s0, Native& s1) CHIMERA_LAMBDA CHIMERA_TARGET {
      Native word;
      Ops::broadcast(x + row, word);
      Ops::add(s0, word, codes0);
      Ops::add(s1, word, codes1);
    };
    (add(r, left[r], right[r]), ...);
  }
  const auto put = [&](int row, int half, const Native& sum, const V& scale) CHIMERA_LAMBDA CHIMERA_TARGET {
    float* const result = t.results + 2 * W * row + half;
    V now = product<W>(as_floats<W>(Ints<W>(sum)), scale);
    if (!first) now = V::load(result) + now;
    if (!last) return now.store(result);
    float* const y = t.y + row * t.ldy + half;
    now = product<W>(now, V(t.x[row]));
    (t.beta == 0 ? now : product<W>(V(t.beta), V::load(y)) + now).store(y);
  };
  ((put(r, 0, left[r], scale0), put(r, W, right[r], scale1)), ...);
}

CHIMERA_TARGET inline void tile(const ternary_parts::TileTask& task) {
  ternary_parts::TileTask t = task;
  for (std::int64_t r = 0; r < t.rows; ++r) {
    __builtin_prefetch(t.y + r * t.ldy, 1);
    __builtin_prefetch(t.y + r * t.ldy + t.cols - 1, 1);
  }
  const bool whole = t.rows == tile_rows && t.cols == tile_cols;
  float edge[tile_rows * tile_cols];
  if (!whole) {
    std::fill_n(edge, tile_rows * tile_cols, 0.f);
    for (std::int64_t r = 0; r < t.rows && t.beta != 0; ++r) std::copy_n(t.y + r * t.ldy, t.cols, edge + r * tile_cols);
    t.y = edge, t.ldy = tile_cols;
  }
  for (std::int64_t g = 0; g < t.groups; ++g)
    add_group(std::make_integer_sequence<int, tile_rows>(), t, t.x + tile_rows + g * tile_rows * t.words,
              t.w + g * tile_cols * (2 + t.words), g == 0, g == t.groups - 1);
  for (std::int64_t r = 0; r < task.rows && !whole; ++r)
    std::copy_n(edge + r * tile_cols, task.cols, task.y + r * task.ldy);
}

}  // namespace chimera::inline CHIMERA_ABI::CHIMERA_LEVEL
#endif
