#include <chimera/config/pattern.hpp>

#include <initializer_list>

using namespace chimera;

namespace {

constexpr Kind A = Kind::attention, M = Kind::mamba2, R = Kind::rg_lru;

constexpr bool reads(const Layers& layers, std::initializer_list<Kind> expected) {
  if (layers.unknown_word || layers.count != static_cast<int>(expected.size())) return false;
  int i = 0;
  for (Kind kind : expected)
    if (layers[i++] != kind) return false;
  return true;
}

/// Where attention lies.
constexpr bool attends_at(const Layers& layers, int count, std::initializer_list<int> expected) {
  if (layers.count != count || layers.count_of(A) != static_cast<int>(expected.size())) return false;
  for (int i : expected)
    if (layers[i] != A) return false;
  return layers.count_of(A) + layers.count_of(M) == count;
}

}  // namespace

// A pattern is repeated as often as the count asks, the last time in part.
static_assert(reads(pattern("M M M A", 4), {M, M, M, A}));
static_assert(reads(pattern("M M M A", 6), {M, M, M, A, M, M}));
static_assert(reads(pattern("M M M A", 2), {M, M}));
static_assert(reads(pattern("A", 3), {A, A, A}));
static_assert(pattern("M M M A", 12).count_of(A) == 3);
static_assert(pattern("R R R A", 12).count_of(R) == 9);
static_assert(pattern("A", 256).count == 256);

// Every mnemonic.
static_assert(reads(pattern("GD XM GD TM GD XM GD SK", 9),
                    {Kind::gated_deltanet, Kind::mlstm, Kind::gated_deltanet, Kind::titans, Kind::gated_deltanet,
                     Kind::mlstm, Kind::gated_deltanet, Kind::span_knot, Kind::gated_deltanet}));
static_assert([] {
  for (const Mnemonic& m : mnemonics)
    if (Layers{}.name(m.kind) != m.word) return false;
  return true;
}());

// Spaces of any number; without a count, one block for each word.
static_assert(reads(pattern("  M   A ", 3), {M, A, M}));
static_assert(reads(pattern("A M R"), {A, M, R}));
static_assert(reads(pattern("  A  M "), {A, M}));
static_assert(pattern("A M") == pattern("A M", 2));

// What is no layer is remembered for Check<C> to tell.
static_assert(pattern("M Q", 2).unknown_word);
static_assert(pattern("MA", 2).unknown_word);
static_assert(pattern("m", 1).unknown_word);
static_assert(pattern("M\tA", 2).unknown_word);
static_assert(pattern("", 4).unknown_word);
static_assert(pattern("   ", 4).unknown_word);
static_assert(pattern("M A", 0).count == 0);

// A host's own words: declared beside the pattern, or whatever a file says.
static_assert(reads(pattern("W A", 4, {"W"}), {Kind::own, A, Kind::own, A}));
static_assert(reads(pattern("W M lag", {"lag", "W"}), {static_cast<Kind>(8), M, Kind::own}));
static_assert(pattern("W A", 4, {"W"}).name(Kind::own) == "W");
static_assert(pattern("W A", 4, {"W"}) != pattern("V A", 4, {"V"}));
static_assert(read_pattern("W A") == pattern("W A", {"W"}));
static_assert(pattern("W A", 4).unknown_word);
static_assert(pattern("A", 4, {"A"}).wrong_own_word);
static_assert(pattern("W", 4, {"W", "W"}).wrong_own_word);
static_assert(pattern("W", 4, {"toolongs"}).wrong_own_word);
static_assert(pattern("W", 4, {"a\"b"}).wrong_own_word);
static_assert(pattern("W", 4, {""}).wrong_own_word);
static_assert(pattern("V", 4, {"V", "W", "X", "Y", "Z"}).wrong_own_word);
static_assert(read_pattern("toolongs A").unknown_word);
static_assert(read_pattern("V W X Y Z").unknown_word);

// A block is a mixer and what follows it.
static_assert(pattern("M A").block(1) == BlockKind{A, Ffn::swiglu});
static_assert(pattern("M A+E", 4).block(3) == BlockKind{A, Ffn::moe});
static_assert(pattern("M A+E", 4).count_of(Ffn::moe) == 2 && pattern("M A+E", 4).count_of(A) == 2);
static_assert(pattern("W+E", {"W"}).block(0) == BlockKind{Kind::own, Ffn::moe});
static_assert(read_pattern("W+E A") == pattern("W+E A", {"W"}));
static_assert(pattern("A+", 1).unknown_word && pattern("A+F", 1).unknown_word && pattern("+E", 1).unknown_word);
static_assert(pattern("A+E+E", 1).unknown_word);

// Attention at given places, every eighth block from the fifth.
static_assert(attends_at(placed(M, A, 32, {5, 13, 21, 29}), 32, {5, 13, 21, 29}));

// Strategic placement: the first two, the last two (three above 24 blocks), the rest evenly between.
static_assert(attends_at(strategic(24, 7), 24, {0, 1, 5, 12, 18, 22, 23}));
static_assert(attends_at(strategic(32, 9), 32, {0, 1, 5, 12, 18, 25, 29, 30, 31}));
static_assert(attends_at(strategic(32, 10), 32, {0, 1, 4, 10, 15, 20, 26, 29, 30, 31}));
static_assert(attends_at(strategic(40, 8), 40, {0, 1, 7, 19, 31, 37, 38, 39}));
