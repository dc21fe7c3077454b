// The mix of languages at which a text and its translation take about as many tokens: what a sentence costs should not
// depend on the language it is in.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/bpe_trainer.hpp>
#include <chimera/text/piece_counts.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace chimera {

/// What the search for equal cost changes and looks at, all of them columns of the counts.
struct ParityGoal {
  int language = 0;                            // whose share is sought; the others share the rest as they did
  int text = 0, reference = 0;                 // aligned sentences in that language, and in the one it is held against
  double parity = 1.19;                        // tokens(text) / tokens(reference), at most
  double tolerance = 0.003;                    // how far below that is near enough
  double least_share = 0.2, most_share = 0.9;  // of the language
};

/// A mix of the languages, and what came of it.
struct BpeMix {
  std::vector<double> shares;
  BpeMerges learned;
  double parity = 0;

  bool reaches(const ParityGoal& goal) const { return parity <= goal.parity; }
};

/// Searches the least share of a language that brings parity: two mixes at a time, side by side on the device, first at
/// the ends, then about where a straight line between the nearest two crosses the goal. If no share does, the mix is
/// that of the largest. `shares`: of the first columns, where the search starts from.
Result<BpeMix> train_bpe_to_parity(const Cpu& q, const PieceCounts& counts, std::span<const double> shares,
                                   const ParityGoal& goal, const BpeSettings& settings, const BpeWatch& watch = {});

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<BpeMix> train_bpe_to_parity(const Cpu& q, const PieceCounts& counts,
                                                    std::span<const double> shares, const ParityGoal& goal,
                                                    const BpeSettings& settings, const BpeWatch& watch) {
  double others = 0;
  for (std::size_t i = 0; i < shares.size(); ++i)
    others += i == static_cast<std::size_t>(goal.language) ? 0 : shares[i];
  if (others <= 0) return Error{"the search for parity needs texts of two languages to learn from, found one"};
  if (counts.total(goal.text) == 0 || counts.total(goal.reference) == 0)
    return Error{"the search for parity needs aligned sentences, found none"};
  const auto mix = [&](double share) -> Result<BpeMix> {
    BpeMix m{{shares.begin(), shares.end()}, {}, 0};
    for (std::size_t i = 0; i < shares.size(); ++i)
      m.shares[i] = i == static_cast<std::size_t>(goal.language) ? share : shares[i] / others * (1 - share);
    auto learned = train_bpe(counts, bpe_weights(counts, m.shares), settings, watch);
    if (!learned) return learned.error();
    m.learned = std::move(*learned);
    m.parity = static_cast<double>(m.learned.tokens[static_cast<std::size_t>(goal.text)]) /
               static_cast<double>(m.learned.tokens[static_cast<std::size_t>(goal.reference)]);
    return m;
  };
  const auto both = [&](double a, double b) {
    std::array<Result<BpeMix>, 2> mixes{Error{}, Error{}};
    parallel(q, 2, [&](std::int64_t i, int) { mixes[static_cast<std::size_t>(i)] = mix(i == 0 ? a : b); });
    return mixes;
  };
  const auto share_of = [&](const BpeMix& m) { return m.shares[static_cast<std::size_t>(goal.language)]; };

  auto [low, high] = both(goal.least_share, goal.most_share);
  if (!low || low->reaches(goal)) return low;
  for (int round = 0; round < 6; ++round) {
    if (!high || !high->reaches(goal) || high->parity >= goal.parity - goal.tolerance) break;
    const double a = share_of(*low), b = share_of(*high);
    const double middle = (low->parity - goal.parity + goal.tolerance / 2) / (low->parity - high->parity), room = 0.1;
    const double kept = std::clamp(middle, room, 1 - room);
    auto [left, right] = both(a + (b - a) * (kept - room / 2), a + (b - a) * (kept + room / 2));
    for (auto* m : {&left, &right}) {
      if (!*m) return *m;
      Result<BpeMix>& end = (*m)->reaches(goal) ? high : low;
      const bool nearer = (*m)->reaches(goal) ? share_of(**m) < share_of(*end) : share_of(**m) > share_of(*end);
      if (nearer) end = std::move(*m);
    }
  }
  return high;
}

}  // namespace chimera
#endif
