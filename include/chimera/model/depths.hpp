// How often the sequences of a batch pass through a loop in training.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/constexpr_math.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace chimera::inline CHIMERA_ABI {

/// All sequences end with the last of C.loop.trained_passes() passes, and those of fewer join later: the gradient's
/// passes are then the same for all. A loop has them in the order in which they join, so that those at work are always
/// the first.
template <const Config& C>
class Depths {
  static constexpr int most = C.loop.trained_passes();

 public:
  /// So many passes for each sequence.
  Depths(std::int64_t sequences, int passes) : sequences_(sequences) {
    for (int pass = most - passes; pass < most; ++pass) joined(pass) = sequences;
  }

  /// Passes that are drawn for each, a function of (seed, step, sequence).
  static Depths drawn(std::int64_t sequences, std::uint64_t seed, std::uint64_t step) {
    Depths d(sequences, 0);
    d.drawn_ = true, d.seed_ = seed, d.stream_ = (std::uint64_t{0xDEE9} << 40) + step;
    for (std::int64_t s = 0; s < sequences; ++s) ++d.joined(most - d.of(s));
    for (int pass = 1; pass < most; ++pass) d.joined(pass) += d.joined(pass - 1);
    return d;
  }

  /// Whether sequences change their places.
  bool sorted() const { return drawn_; }
  /// Sequences at work in a pass.
  std::int64_t at_work(int pass) const { return joined_[static_cast<std::size_t>(pass)]; }

  /// Calls f(sequence, its place) for all.
  template <class F>
  void each(F&& f) const {
    std::array<std::int64_t, static_cast<std::size_t>(most)> next{};
    for (int pass = 1; pass < most; ++pass) next[static_cast<std::size_t>(pass)] = at_work(pass - 1);
    for (std::int64_t s = 0; s < sequences_; ++s) f(s, drawn_ ? next[static_cast<std::size_t>(most - of(s))]++ : s);
  }

 private:
  /// max(1, Poisson(mean)), at most `most`.
  int of(std::int64_t sequence) const {
    const float draw = unit(philox(seed_, stream_, static_cast<std::uint64_t>(sequence))[0]);
    int passes = 1;
    while (passes < most && draw >= no_more_than[static_cast<std::size_t>(passes)]) ++passes;
    return passes;
  }
  std::int64_t& joined(int pass) { return joined_[static_cast<std::size_t>(pass)]; }

  /// The probability of a Poisson law for at most so many.
  static constexpr auto no_more_than = [] {
    std::array<float, static_cast<std::size_t>(most) + 1> sums{};
    const double mean = static_cast<double>(C.loop.mean);
    double term = constexpr_exp(-mean), sum = 0;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      sum += term;
      sums[k] = static_cast<float>(sum);
      term *= mean / static_cast<double>(k + 1);
    }
    return sums;
  }();

  std::int64_t sequences_;
  std::array<std::int64_t, static_cast<std::size_t>(most)> joined_{};  // sequences that have, up to each pass
  bool drawn_ = false;
  std::uint64_t seed_ = 0, stream_ = 0;
};

}  // namespace chimera::inline CHIMERA_ABI
