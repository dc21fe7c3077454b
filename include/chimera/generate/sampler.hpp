// From logits to the next token: filters and their order as in llama.cpp, then one seeded draw.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>

namespace chimera::inline CHIMERA_ABI {

/// The defaults are llama.cpp's.
struct TokenSamplerSettings {
  float temperature = 0.8f;  // divides the logits, last of all; 0 or less: always the likeliest token
  std::int64_t top_k = 40;   // keep the k likeliest; 0 or less: all
  float top_p = 0.95f;       // keep the smallest set whose probability reaches p; 1: all
  float min_p = 0.05f;       // keep tokens at least this likely, relative to the likeliest; 0: all
  std::uint64_t seed = 1;

  Status check() const {
    const auto wrong = [](const char* rule, float found) { return Error{rule + std::to_string(found)}; };
    if (!std::isfinite(temperature)) return wrong("temperature must be a number, found ", temperature);
    if (!(top_p > 0.f && top_p <= 1.f)) return wrong("top_p must be above 0 and at most 1, found ", top_p);
    if (!(min_p >= 0.f && min_p <= 1.f)) return wrong("min_p must be between 0 and 1, found ", min_p);
    return {};
  }
};

/// Draws tokens: top-k, top-p, min-p, temperature, in this order. The same seed and the same logits give the same
/// tokens. `create` allocates; `draw` does not.
class TokenSampler {
 public:
  static Result<TokenSampler> create(std::int64_t vocab, const TokenSamplerSettings& settings) {
    if (Status s = settings.check(); !s) return s.error();
    if (vocab < 1) return Error{"a vocabulary has at least 1 token, found " + std::to_string(vocab)};
    TokenSampler sampler;
    sampler.vocab_ = static_cast<std::size_t>(vocab), sampler.settings_ = settings;
    sampler.random_ = Random{settings.seed, stream, 0};
    sampler.candidates_.reset(new (std::nothrow) Candidate[sampler.vocab_]);
    if (!sampler.candidates_) return Error{"out of memory for a vocabulary of " + std::to_string(vocab)};
    return sampler;
  }

  /// `logits` [vocab]. One that is NaN is never drawn; if no logit is finite, token 0 is.
  std::int32_t draw(std::span<const float> logits) {
    for (std::size_t i = 0; i < vocab_; ++i)
      candidates_[i] = {std::isnan(logits[i]) ? -INFINITY : logits[i], static_cast<std::int32_t>(i)};
    const std::span all{candidates_.get(), vocab_};
    const Candidate best = *std::min_element(all.begin(), all.end(), likelier);
    if (!(settings_.temperature > 0.f) || !std::isfinite(best.logit)) return best.token;
    return pick(above_min_p(within_top_p(likeliest(all)))).token;
  }

 private:
  static constexpr std::uint64_t stream = std::uint64_t{0x5A3B} << 40;  // apart from those of training

  struct Candidate {
    float logit;
    std::int32_t token;
  };
  using Candidates = std::span<Candidate>;

  TokenSampler() = default;

  /// Equal logits go by token, so that the order is the same on every machine.
  static bool likelier(const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  }

  /// The top k, likeliest first.
  Candidates likeliest(Candidates all) const {
    const std::size_t k = settings_.top_k > 0 ? static_cast<std::size_t>(settings_.top_k) : all.size();
    const Candidates top = all.first(std::min(k, all.size()));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(top.size()), all.end(), likelier);
    return top;
  }

  Candidates within_top_p(Candidates sorted) const {
    if (settings_.top_p >= 1.f) return sorted;
    const double enough = static_cast<double>(settings_.top_p) * mass(sorted, 1.f);
    double sum = 0;
    for (std::size_t i = 0; i < sorted.size(); ++i)
      if ((sum += weight(sorted, i, 1.f)) >= enough) return sorted.first(i + 1);
    return sorted;
  }

  Candidates above_min_p(Candidates sorted) const {
    std::size_t kept = 1;
    while (kept < sorted.size() && weight(sorted, kept, 1.f) >= static_cast<double>(settings_.min_p)) ++kept;
    return sorted.first(kept);
  }

  const Candidate& pick(Candidates sorted) {
    double left = static_cast<double>(random_.uniform()) * mass(sorted, settings_.temperature);
    std::size_t i = 0;
    while (i + 1 < sorted.size() && (left -= weight(sorted, i, settings_.temperature)) >= 0) ++i;
    return sorted[i];
  }

  /// Probability of candidate i over that of the first.
  static double weight(Candidates sorted, std::size_t i, float temperature) {
    return std::exp(static_cast<double>((sorted[i].logit - sorted[0].logit) / temperature));
  }
  static double mass(Candidates sorted, float temperature) {
    double sum = 0;
    for (std::size_t i = 0; i < sorted.size(); ++i) sum += weight(sorted, i, temperature);
    return sum;
  }

  TokenSamplerSettings settings_;
  Random random_;
  std::size_t vocab_ = 0;
  std::unique_ptr<Candidate[]> candidates_;  // [vocab]
};

}  // namespace chimera::inline CHIMERA_ABI
