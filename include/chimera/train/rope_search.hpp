// A search for the factors of LongRoPE (Ding et al., 2402.13753, algorithm 1): evolution over the loss of long texts,
// with weights as they are.
#pragma once

#include <chimera/config/longer_context.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>
#include <chimera/kernels/f32/rope.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/train/batch_source.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

struct RopeSearchSettings {
  std::int64_t context = 0;  // tokens of a text; 0: the model's
  std::int64_t texts = 4;    // that every candidate reads
  int rounds = 8;
  int population = 16;    // candidates of a round: as many are mutated as come from two
  int parents = 6;        // best ones so far, that the next round comes from
  double mutation = 0.3;  // chance of each factor
  int most_kept = 0;      // first positions that may stay unscaled, at most; files of others have none
  std::uint64_t seed = 1;

  /// The first setting that no search can have.
  Result<void> validate() const;
};

/// What is tried: a factor for each pair of channels, which ascend from 1 to 1.25 times Rope::factor, the positions that
/// stay unscaled, and the mean loss with them, in nats.
struct RopeCandidate {
  std::array<float, Rope::most_pairs> factors{};
  int kept = 0;
  double loss = 0;
};

/// What a search has found. The scalings that it starts with are the first three candidates.
struct RopeSearch {
  RopeCandidate linear, ntk, yarn, best;
  int rounds = 0;          // that were begun
  std::int64_t tried = 0;  // candidates
  bool stopped = false;    // by the host, before the end

  /// A config with these factors for texts of every length.
  Config applied(Config c) const;
};

struct RopeSearchHost {
  virtual ~RopeSearchHost() = default;
  virtual void on_round(const RopeSearch&) {}
  virtual bool should_stop() { return false; }
};

/// `model`: of longer_context(..., RopeScaling::longrope, ...); one compiled for evaluation is enough, for its
/// frequencies are told to it at run time. `weights`: its arena. The first rows of `source` are the texts. The result is
/// a function of these and of the settings. Errors: another scaling, texts that the model cannot have.
Result<RopeSearch> search_rope(const Cpu& q, const AnyModel& model, const float* weights, BatchSource& source,
                               const RopeSearchSettings& settings, RopeSearchHost& host);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace rope_search_parts {

/// The choices of the paper.
inline constexpr std::array kept_choices{0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256};

/// Draws candidates.
struct Breeder {
  const Rope& rope;
  std::size_t pairs;
  const RopeSearchSettings& settings;
  Random random;

  /// The factors of another scaling.
  RopeCandidate like(RopeScaling scaling) const {
    RopeCandidate c;
    const int dims = static_cast<int>(2 * pairs);
    std::array<float, Rope::most_pairs> plain{}, scaled{};
    rope_frequencies({.base = rope.base}, dims, rope.original_context, rope.original_context, plain.data());
    rope_frequencies(
        {.base = rope.base, .scaling = scaling, .factor = rope.factor, .original_context = rope.original_context}, dims,
        rope.original_context, rope.original_context, scaled.data());
    for (std::size_t i = 0; i < pairs; ++i) c.factors[i] = plain[i] / scaled[i];
    return bounded(c);
  }
  RopeCandidate mutated(RopeCandidate c) {
    for (float& f : within(c))
      if (static_cast<double>(random.uniform()) < settings.mutation) f *= std::exp(0.3f * random.normal());
    if (static_cast<double>(random.uniform()) < settings.mutation) c.kept = draw_kept();
    return bounded(c);
  }
  RopeCandidate crossed(const RopeCandidate& a, const RopeCandidate& b) {
    RopeCandidate c = a;
    for (std::size_t i = 0; i < pairs; ++i)
      if (random.below(2) == 1) c.factors[i] = b.factors[i];
    if (random.below(2) == 1) c.kept = b.kept;
    return bounded(c);
  }
  const RopeCandidate& one_of(const std::vector<RopeCandidate>& parents) {
    return parents[static_cast<std::size_t>(random.below(parents.size()))];
  }

 private:
  std::span<float> within(RopeCandidate& c) const { return std::span(c.factors).first(pairs); }
  /// Factors in their range, in hundredths, and ascending.
  RopeCandidate bounded(RopeCandidate c) const {
    for (float& f : within(c)) f = std::floor(100 * std::clamp(f, 1.f, 1.25f * rope.factor) + 0.5f) / 100;
    std::sort(within(c).begin(), within(c).end());
    return c;
  }
  int draw_kept() {
    std::size_t choices = 1;
    while (choices < kept_choices.size() && kept_choices[choices] <= settings.most_kept) ++choices;
    return kept_choices[static_cast<std::size_t>(random.below(choices))];
  }
};

}  // namespace rope_search_parts

CHIMERA_FUNCTION Result<void> RopeSearchSettings::validate() const {
  const auto wrong = [](std::string_view rule, auto found) {
    return Error{std::string(rule) + ", found " + std::to_string(found)};
  };
  if (texts < 1) return wrong("a search for factors needs at least 1 text", texts);
  if (rounds < 1) return wrong("a search for factors has at least 1 round", rounds);
  if (population < 3) return wrong("a search for factors has at least 3 candidates a round", population);
  if (parents < 1) return wrong("a search for factors needs at least 1 parent", parents);
  if (!(mutation >= 0 && mutation <= 1)) return wrong("the chance of a mutation must be between 0 and 1", mutation);
  if (most_kept < 0) return wrong("the positions that stay unscaled must not be negative", most_kept);
  return {};
}

CHIMERA_FUNCTION Config RopeSearch::applied(Config c) const {
  Rope& rope = c.attention.rope;
  rope.short_factor = rope.long_factor = best.factors, rope.kept = best.kept;
  return c;
}

CHIMERA_FUNCTION Result<RopeSearch> search_rope(const Cpu& q, const AnyModel& model, const float* weights,
                                                BatchSource& source, const RopeSearchSettings& settings,
                                                RopeSearchHost& host) {
  using namespace rope_search_parts;
  if (Result<void> s = settings.validate(); !s) return s.error();
  const Config& config = *model.config;
  if (!has_kind(config, Kind::attention) || config.attention.position != Position::rope ||
      config.attention.rope.scaling != RopeScaling::longrope || config.attention.rope.original_context == 0)
    return Error{"a search for LongRoPE's factors needs a model that longer_context gave this scaling"};
  if (!model.evaluates())
    return Error{"a search for factors needs a model that was compiled for evaluation or training"};
  const std::int64_t length = settings.context > 0 ? settings.context : config.context;
  if (length > config.context)
    return Error{"context must be at most the model's " + std::to_string(config.context) + " tokens, found " +
                 std::to_string(length)};
  if (Result<void> s = source.validate(length, config.vocab); !s) return s.error();
  auto rows = BatchBuffer::create(settings.texts, length);
  if (!rows) return rows.error();
  if (Result<void> s = source.fill(0, *rows); !s) return s.error();
  auto memory = Buffer::of_bytes(model.loss_bytes(1, length));
  if (!memory) return memory.error();

  const auto dims = static_cast<int>(config.rope_dims());
  const auto measure = [&](RopeCandidate& c) {
    RopeSearch with;
    with.best = c;
    const RopeTurns turns = rope_turns(with.applied(config).attention.rope, dims, config.context);
    Loss loss;
    for (std::int64_t row = 0; row < settings.texts; ++row) {
      TokenBatch batch = rows->batch(row, 1);
      batch.turns = &turns;
      model.loss(q, weights, batch, {}, memory->bytes(), &loss.sum);
      loss.count += batch.counted();
    }
    c.loss = std::isfinite(loss.mean()) ? loss.mean() : 1e30;  // it loses
  };

  RopeSearch search;
  Breeder breeder{config.attention.rope, static_cast<std::size_t>(dims / 2), settings, {settings.seed, 0x10E6}};
  search.linear = breeder.like(RopeScaling::linear);
  search.ntk = breeder.like(RopeScaling::ntk);
  search.yarn = breeder.like(RopeScaling::yarn);
  std::vector<RopeCandidate> parents, round{search.linear, search.ntk, search.yarn};
  while (std::ssize(round) < settings.population) {
    const RopeCandidate like_them = round[round.size() % 3];
    round.push_back(breeder.mutated(like_them));
  }
  while (true) {
    ++search.rounds;
    for (RopeCandidate& c : round) {
      if (host.should_stop()) {
        search.stopped = true;
        return search;
      }
      measure(c);
      ++search.tried;
      if (search.tried <= 3) (search.tried == 1 ? search.linear : search.tried == 2 ? search.ntk : search.yarn) = c;
      if (search.tried == 1 || c.loss < search.best.loss) search.best = c;
    }
    host.on_round(search);
    if (search.rounds == settings.rounds) return search;
    parents.insert(parents.end(), round.begin(), round.end());
    std::stable_sort(parents.begin(), parents.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
    parents.resize(std::min(parents.size(), static_cast<std::size_t>(settings.parents)));
    round.clear();
    while (std::ssize(round) < settings.population)
      round.push_back(round.size() % 2 == 0 ? breeder.mutated(breeder.one_of(parents))
                                            : breeder.crossed(breeder.one_of(parents), breeder.one_of(parents)));
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
