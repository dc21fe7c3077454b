// From logits to the next token: penalties, filters and their order as in llama.cpp, then one seeded draw.
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/random.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/top_logits.hpp>
#include <chimera/kernels/simd.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Added to a token's logit; minus infinity forbids the token.
struct LogitBias {
  std::int32_t token;
  float bias;
};

/// The steps of a draw, in their order. The defaults are llama.cpp's.
struct TokenSamplerSettings {
  /// The most tokens that penalties look back on; -1 below stands for it.
  static constexpr std::int64_t longest_memory = 65'536;

  float temperature = 0.8f;  // divides the logits, last of all; 0 or less: the likeliest token, without any filter
  std::int64_t top_k = 40;   // keep the k likeliest; 0 or less: all
  float top_p = 0.95f;       // keep the smallest set whose probability reaches p; 1: all
  float min_p = 0.05f;       // keep tokens at least this likely, relative to the likeliest; 0: all
  std::uint64_t seed = 1;

  std::vector<LogitBias> logit_bias{};

  std::int64_t repeat_last_n = 64;  // tokens that the next three look back on; 0: none
  float repeat_penalty = 1.f;       // divides positive logits of tokens that occurred, multiplies others; 1: off
  float frequency_penalty = 0.f;    // is subtracted as often as the token occurred
  float presence_penalty = 0.f;     // is subtracted once

  // DRY: a token that would make a repetition of n tokens longer loses multiplier base^(n - allowed length). What may
  // repeat ends at a breaker: a sequence of tokens, see dry_breakers.hpp.
  float dry_multiplier = 0.f;  // 0: off
  float dry_base = 1.75f;
  std::int64_t dry_allowed_length = 2;
  std::int64_t dry_last_n = -1;  // tokens that it looks back on
  std::vector<std::vector<std::int32_t>> dry_breakers{};

  // Filters. Top-n-sigma comes before top-k, typical between top-k and top-p, XTC after min-p.
  float top_n_sigma = 0.f;      // keep logits within n standard deviations of the largest; 0 or less: all
  float typical_p = 1.f;        // keep the tokens whose surprise is nearest to the mean, until their probability is p
  float xtc_probability = 0.f;  // how often XTC acts: then the least likely of those above the threshold stays alone
  float xtc_threshold = 0.1f;

  // The temperature moves within its range, with the entropy of the candidates over its largest value, to a power.
  float temperature_range = 0.f;  // 0: off
  float temperature_exponent = 1.f;

  // Mirostat 2 in place of all filters, penalties and DRY: the surprise of a draw is steered to tau bits, at rate eta.
  bool mirostat = false;
  float mirostat_tau = 5.f;
  float mirostat_eta = 0.1f;

  Result<void> validate() const;
};

/// What a draw chooses from: candidate i has probability probabilities[i]. Candidates keep the logits that the
/// penalties left. The order is any.
struct TokenDistribution {
  std::span<const Candidate> candidates;
  std::span<const float> probabilities;
};

/// The candidate at which the probabilities, added up in their order, exceed a number in [0, 1).
std::size_t chosen_candidate(const TokenDistribution& d, float number);

/// Draws tokens. The same seed, the same logits and the same accepted tokens give the same tokens. `create` allocates;
/// nothing else does.
class TokenSampler {
 public:
  static Result<TokenSampler> create(std::int64_t vocab, const TokenSamplerSettings& settings);

  /// Tells of tokens that were not drawn here, for the penalties: a prompt. Only those of the vocabulary count.
  void accept(std::span<const std::int32_t> tokens);

  /// The next token, which it accepts, too. `allowed` has a bit for each token, 64 in a word, the first in the lowest
  /// bit: only tokens whose bit is set may come, a grammar's for example; empty: all. Errors: those of
  /// `TopLogits::read`, no token that is allowed.
  Result<std::int32_t> draw(std::span<const float> logits, std::span<const std::uint64_t> allowed = {});

  /// What `draw` would choose from; it holds until the next call. XTC throws its dice in it.
  Result<TokenDistribution> distribution(std::span<const float> logits, std::span<const std::uint64_t> allowed = {});

  /// Mirostat's mu: the largest surprise, in bits, that a token may have.
  float surprise_limit() const { return surprise_limit_; }

  /// Forgets what was accepted and drawn: all begins as after `create`.
  void reset();

 private:
  static constexpr std::uint64_t stream = std::uint64_t{0x5A3B} << 40;  // apart from those of training
  using Candidates = std::span<Candidate>;
  using Tokens = std::span<const std::int32_t>;

  TokenSampler(const TokenSamplerSettings& settings, TopLogits top);

  Result<void> allocate();

  bool penalizes() const {
    return settings_.repeat_penalty != 1.f || settings_.frequency_penalty != 0.f || settings_.presence_penalty != 0.f;
  }
  static std::size_t window(std::int64_t last_n) {
    return static_cast<std::size_t>(last_n < 0 ? TokenSamplerSettings::longest_memory : last_n);
  }
  /// The last n accepted tokens, as far as there are.
  Tokens recent(std::size_t n) const;
  bool known(std::int32_t token) const { return token >= 0 && static_cast<std::size_t>(token) < top_.vocab(); }

  // ---- What changes single logits.

  /// Whether logits change before tokens that are not allowed are left out.
  bool edits() const { return memory_ > 0 || !settings_.logit_bias.empty(); }

  std::span<const float> edit(std::span<const float> logits);
  /// The last edit. False if it leaves no token.
  bool forbid_others(std::span<const std::uint64_t> allowed);
  float& logit(std::int32_t token) { return edited_.data()[token]; }
  std::int32_t& tally(std::int32_t token) { return tally_.get()[token]; }

  void penalize(Tokens past);

  /// DRY (pi6am, 2024). The tokens are read backwards: `back(0)` is the newest.
  void penalize_longer_repeats(Tokens past);

  /// How many tokens came after the last breaker; of breakers that begin with the same token the longest counts.
  std::int64_t tokens_since_breaker(Tokens past) const;
  /// Breakers that begin with the token; one that is that token alone comes first.
  std::span<const std::vector<std::int32_t>> breakers_from(std::int32_t token) const;
  bool breaks_alone(std::int32_t token) const;

  // ---- Filters: each takes candidates and leaves some of them, never none.

  Candidates likeliest();
  /// Whether no filter comes before top-p.
  bool nucleus_of_all() const {
    return settings_.top_n_sigma <= 0.f && settings_.top_k <= 0 && settings_.typical_p >= 1.f && settings_.top_p < 1.f;
  }
  /// The standard deviation of all logits but those of minus infinity.
  float deviation() const;

  /// Locally typical (Meister et al., 2022): |-ln p - entropy| counts, in which the logarithm of the mass cancels.
  Candidates typical(Candidates all);

  Candidates within_top_p(Candidates all);

  /// The first in that order, until the sum of their weights is enough. Sorts not many more than that.
  template <class Order, class Enough>
  Candidates first_of_mass(Candidates all, Order order, Enough enough) {
    const float best = largest(all);
    double sum = 0;
    for (std::size_t from = 0, to = 0; from < all.size(); from = to) {
      to = std::min(all.size(), std::max<std::size_t>(256, 4 * from));
      const Candidates rest = all.subspan(from), part = rest.first(to - from);
      if (part.size() < rest.size()) std::nth_element(rest.begin(), part.end(), rest.end(), order);
      std::sort(part.begin(), part.end(), order);
      weigh(part, best, 1.f);
      for (std::size_t i = 0; i < part.size(); ++i)
        if (enough(sum += weight(i))) return all.first(from + i + 1);
    }
    return all;
  }

  Candidates above_min_p(Candidates all) const;
  float min_p_floor(float best) const { return best + std::log(settings_.min_p); }

  /// XTC (p-e-w, 2024).
  Candidates exclude_top(Candidates all);

  /// Mirostat 2 (Basu et al., 2021): tokens with -log2 p <= mu.
  Candidates expected();

  // ---- Probabilities.

  float temperature_for(Candidates all);

  TokenDistribution weighed(Candidates all, float temperature);

  /// Weight i becomes the probability of candidate i over that of the likeliest. Returns their sum.
  double weigh(Candidates all, float temperature);
  void weigh(Candidates all, float best, float temperature);
  double weight(std::size_t i) const { return static_cast<double>(weights_.data()[i]); }

  static float largest(Candidates all);
  template <class Condition>
  static Candidates keep(Candidates all, Condition condition) {
    const auto end = std::remove_if(all.begin(), all.end(), [&](const Candidate& c) { return !condition(c); });
    return all.first(static_cast<std::size_t>(end - all.begin()));
  }

  TokenSamplerSettings settings_;
  TopLogits top_;
  Random random_, xtc_random_;
  float surprise_limit_ = 0;
  std::size_t memory_ = 0, past_size_ = 0;
  Buffer weights_;                           // [vocab], of the candidates
  Buffer edited_;                            // [vocab]: logits after biases, penalties and what is not allowed
  std::unique_ptr<std::int32_t[]> past_;     // [2 memory], the newest last: room for as many to come before it is moved
  std::unique_ptr<std::int32_t[]> tally_;    // [vocab], all zero between uses
  std::unique_ptr<std::int32_t[]> repeats_;  // [memory of DRY]
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION Result<void> TokenSamplerSettings::validate() const {
  const struct {
    bool holds;
    const char* rule;
    double found;
  } rules[] = {
      {is_finite(temperature), "temperature must be a number", temperature},
      {top_p > 0.f && top_p <= 1.f, "top_p must be above 0 and at most 1", top_p},
      {min_p >= 0.f && min_p <= 1.f, "min_p must be between 0 and 1", min_p},
      {is_finite(repeat_penalty) && repeat_penalty > 0.f, "repeat_penalty must be above 0", repeat_penalty},
      {is_finite(frequency_penalty), "frequency_penalty must be a number", frequency_penalty},
      {is_finite(presence_penalty), "presence_penalty must be a number", presence_penalty},
      {is_finite(dry_multiplier) && dry_multiplier >= 0.f, "dry_multiplier must be 0 or more", dry_multiplier},
      {is_finite(dry_base) && dry_base >= 1.f, "dry_base must be 1 or more", dry_base},
      {is_finite(top_n_sigma), "top_n_sigma must be a number", top_n_sigma},
      {typical_p > 0.f && typical_p <= 1.f, "typical_p must be above 0 and at most 1", typical_p},
      {xtc_probability >= 0.f && xtc_probability <= 1.f, "xtc_probability must be between 0 and 1", xtc_probability},
      {xtc_threshold >= 0.f && xtc_threshold <= 1.f, "xtc_threshold must be between 0 and 1", xtc_threshold},
      {is_finite(temperature_range) && temperature_range >= 0.f, "temperature_range must be 0 or more",
       temperature_range},
      {is_finite(temperature_exponent) && temperature_exponent >= 0.f, "temperature_exponent must be 0 or more",
       temperature_exponent},
      {is_finite(mirostat_tau) && mirostat_tau >= 0.f, "mirostat_tau must be 0 or more", mirostat_tau},
      {is_finite(mirostat_eta) && mirostat_eta >= 0.f, "mirostat_eta must be 0 or more", mirostat_eta},
  };
  for (const auto& r : rules)
    if (!r.holds) return Error{r.rule + std::string(", found ") + std::to_string(r.found)};
  const struct {
    std::int64_t least, most;
    const char* name;
    std::int64_t found;
  } ranges[] = {
      {-1, longest_memory, "repeat_last_n", repeat_last_n},
      {1, longest_memory, "dry_allowed_length", dry_allowed_length},
      {-1, longest_memory, "dry_last_n", dry_last_n},
  };
  for (const auto& r : ranges)
    if (r.found < r.least || r.found > r.most)
      return Error{r.name + std::string(" must be between ") + std::to_string(r.least) + " and " +
                   std::to_string(r.most) + ", found " + std::to_string(r.found)};
  for (const LogitBias& b : logit_bias)
    if (!(is_finite(b.bias) || is_minus_infinity(b.bias)))
      return Error{"the logit bias of token " + std::to_string(b.token) +
                   " must be a number or minus infinity, found " + std::to_string(b.bias)};
  for (const auto& breaker : dry_breakers)
    if (breaker.empty()) return Error{"a DRY breaker must have at least 1 token, found none"};
  return {};
}

CHIMERA_FUNCTION Result<TokenSampler> TokenSampler::create(std::int64_t vocab, const TokenSamplerSettings& settings) {
  if (Result<void> s = settings.validate(); !s) return s.error();
  auto top = TopLogits::create(vocab);
  if (!top) return top.error();
  for (const LogitBias& b : settings.logit_bias)
    if (b.token < 0 || b.token >= vocab)
      return Error{"a logit bias is for a token of the vocabulary of " + std::to_string(vocab) + ", found token " +
                   std::to_string(b.token)};
  TokenSampler sampler(settings, std::move(*top));
  if (Result<void> s = sampler.allocate(); !s) return s.error();
  return sampler;
}

CHIMERA_FUNCTION void TokenSampler::accept(std::span<const std::int32_t> tokens) {
  if (memory_ == 0) return;
  if (tokens.size() > memory_) tokens = tokens.last(memory_);
  if (past_size_ + tokens.size() > 2 * memory_) {
    const Tokens kept = recent(memory_ - tokens.size());
    std::copy(kept.begin(), kept.end(), past_.get());
    past_size_ = kept.size();
  }
  std::copy(tokens.begin(), tokens.end(), past_.get() + past_size_);
  past_size_ += tokens.size();
}

CHIMERA_FUNCTION std::size_t chosen_candidate(const TokenDistribution& d, float number) {
  double left = 0;
  for (const float p : d.probabilities) left += static_cast<double>(p);
  left *= static_cast<double>(number);
  std::size_t i = 0;
  while (i + 1 < d.candidates.size() && (left -= static_cast<double>(d.probabilities[i])) >= 0) ++i;
  return i;
}

CHIMERA_FUNCTION Result<std::int32_t> TokenSampler::draw(std::span<const float> logits,
                                                         std::span<const std::uint64_t> allowed) {
  const auto d = distribution(logits, allowed);
  if (!d) return d.error();
  const std::size_t i = chosen_candidate(*d, random_.uniform());
  const std::int32_t token = d->candidates[i].token;
  if (settings_.mirostat && settings_.temperature > 0.f)
    surprise_limit_ -= settings_.mirostat_eta * (-std::log2(d->probabilities[i]) - settings_.mirostat_tau);
  accept({&token, 1});
  return token;
}

CHIMERA_FUNCTION Result<TokenDistribution> TokenSampler::distribution(std::span<const float> logits,
                                                                      std::span<const std::uint64_t> allowed) {
  if (const std::size_t words = (top_.vocab() + 63) / 64; !allowed.empty() && allowed.size() != words)
    return Error{"tokens that are allowed are " + std::to_string(words) + " words of 64 bits for a vocabulary of " +
                 std::to_string(top_.vocab()) + ", found " + std::to_string(allowed.size())};
  if (logits.size() == top_.vocab() && (edits() || !allowed.empty())) {
    logits = edit(logits);
    if (!allowed.empty() && !forbid_others(allowed)) return Error{"no token can follow: none is allowed"};
  }
  if (Result<void> s = top_.read(logits); !s) return s.error();
  if (!(settings_.temperature > 0.f)) return weighed(top_.top(1), 1.f);
  if (settings_.mirostat) return weighed(expected(), settings_.temperature);
  const Candidates kept = exclude_top(above_min_p(within_top_p(typical(likeliest()))));
  return weighed(kept, temperature_for(kept));
}

CHIMERA_FUNCTION void TokenSampler::reset() {
  past_size_ = 0;
  surprise_limit_ = 2.f * settings_.mirostat_tau;
  random_ = Random{settings_.seed, stream, 0};
  xtc_random_ = Random{settings_.seed, stream + 1, 0};
}

CHIMERA_FUNCTION TokenSampler::TokenSampler(const TokenSamplerSettings& settings, TopLogits top)
    : settings_(settings), top_(std::move(top)) {
  if (settings_.mirostat)
    settings_.repeat_penalty = 1.f, settings_.frequency_penalty = settings_.presence_penalty = 0.f,
    settings_.dry_multiplier = 0.f;
  std::sort(settings_.dry_breakers.begin(), settings_.dry_breakers.end());
  reset();
}

CHIMERA_FUNCTION Result<void> TokenSampler::allocate() {
  const bool dry = settings_.dry_multiplier > 0.f;
  const std::size_t vocab = top_.vocab(), dry_memory = dry ? window(settings_.dry_last_n) : 0;
  memory_ = std::max(penalizes() ? window(settings_.repeat_last_n) : 0, dry_memory);
  auto weights = Buffer::create(vocab);
  if (!weights) return weights.error();
  weights_ = std::move(*weights);
  auto edited = Buffer::create(vocab);
  if (!edited) return edited.error();
  edited_ = std::move(*edited);
  if (!edits()) return {};
  tally_.reset(new (std::nothrow) std::int32_t[vocab]());
  past_.reset(new (std::nothrow) std::int32_t[2 * memory_]);
  repeats_.reset(new (std::nothrow) std::int32_t[dry_memory]);
  if (!tally_ || !past_ || !repeats_) return Error{"out of memory for the sampler's memory of tokens"};
  return {};
}

CHIMERA_FUNCTION TokenSampler::Tokens TokenSampler::recent(std::size_t n) const {
  n = std::min(n, past_size_);
  return {past_.get() + (past_size_ - n), n};
}

CHIMERA_FUNCTION std::span<const float> TokenSampler::edit(std::span<const float> logits) {
  std::copy(logits.begin(), logits.end(), edited_.data());
  for (const LogitBias& b : settings_.logit_bias) logit(b.token) += b.bias;
  if (penalizes()) penalize(recent(window(settings_.repeat_last_n)));
  if (settings_.dry_multiplier > 0.f) penalize_longer_repeats(recent(window(settings_.dry_last_n)));
  return {edited_.data(), edited_.size()};
}

CHIMERA_FUNCTION bool TokenSampler::forbid_others(std::span<const std::uint64_t> allowed) {
  bool any = false;
  float* x = edited_.data();
  for (std::size_t word = 0; word < allowed.size(); ++word, x += 64) {
    const std::size_t count = std::min<std::size_t>(64, top_.vocab() - 64 * word);
    if (allowed[word] == 0)
      std::fill_n(x, count, -std::numeric_limits<float>::infinity());
    else
      for (std::size_t i = 0; i < count; ++i)
        if (allowed[word] >> i & 1)
          any = true;
        else
          x[i] = -std::numeric_limits<float>::infinity();
  }
  return any;
}

CHIMERA_FUNCTION void TokenSampler::penalize(Tokens past) {
  for (const std::int32_t token : past)
    if (known(token)) ++tally(token);
  for (const std::int32_t token : past) {
    if (!known(token) || tally(token) == 0) continue;
    float& x = logit(token);
    x = x > 0.f ? x / settings_.repeat_penalty : x * settings_.repeat_penalty;
    x -= static_cast<float>(tally(token)) * settings_.frequency_penalty + settings_.presence_penalty;
    tally(token) = 0;
  }
}

CHIMERA_FUNCTION void TokenSampler::penalize_longer_repeats(Tokens past) {
  const std::int64_t n = static_cast<std::int64_t>(past.size()), allowed = settings_.dry_allowed_length;
  const auto back = [&](std::int64_t i) { return past[static_cast<std::size_t>(n - 1 - i)]; };
  const std::int64_t unbroken = tokens_since_breaker(past);
  if (unbroken < allowed) return;
  // The Z algorithm: repeats[i] newest tokens stand also before back(i - 1), which would make them one more.
  std::int32_t* const repeats = repeats_.get();
  std::int64_t left = 0, right = 0;  // the match that reaches farthest: back(left) to back(right - 1)
  for (std::int64_t i = 1; i < n; ++i) {
    std::int64_t same = i < right ? std::min<std::int64_t>(repeats[i - left], right - i) : 0;
    while (i + same < n && back(same) == back(i + same)) ++same;
    repeats[i] = static_cast<std::int32_t>(same);
    if (i + same > right) left = i, right = i + same;
    same = std::min(same, unbroken);
    if (const std::int32_t next = back(i - 1); same >= allowed && known(next))
      tally(next) = std::max(tally(next), static_cast<std::int32_t>(same));
  }
  const double largest_power = settings_.dry_base > 1.000001f ? std::floor(88.7228391 / std::log(settings_.dry_base))
                                                              : std::numeric_limits<double>::infinity();
  for (const std::int32_t token : past) {
    if (!known(token) || tally(token) == 0) continue;
    const double power = std::min(static_cast<double>(tally(token) - allowed), largest_power);
    if (!breaks_alone(token))
      logit(token) -= static_cast<float>(static_cast<double>(settings_.dry_multiplier) *
                                         std::pow(static_cast<double>(settings_.dry_base), power));
    tally(token) = 0;
  }
}

CHIMERA_FUNCTION std::int64_t TokenSampler::tokens_since_breaker(Tokens past) const {
  for (std::size_t after = 0; after < past.size(); ++after) {
    const Tokens rest = past.last(after + 1);
    std::size_t length = 0;
    for (const auto& breaker : breakers_from(rest[0]))
      if (breaker.size() <= rest.size() && std::equal(breaker.begin(), breaker.end(), rest.begin()))
        length = std::max(length, breaker.size());
    if (length > 0) return static_cast<std::int64_t>(rest.size() - length);
  }
  return static_cast<std::int64_t>(past.size());
}

CHIMERA_FUNCTION std::span<const std::vector<std::int32_t>> TokenSampler::breakers_from(std::int32_t token) const {
  const auto& all = settings_.dry_breakers;
  const auto first = std::partition_point(all.begin(), all.end(), [&](const auto& b) { return b[0] < token; });
  const auto last = std::partition_point(first, all.end(), [&](const auto& b) { return b[0] == token; });
  return {first, last};
}

CHIMERA_FUNCTION bool TokenSampler::breaks_alone(std::int32_t token) const {
  const auto breakers = breakers_from(token);
  return !breakers.empty() && breakers[0].size() == 1;
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::likeliest() {
  float floor = settings_.top_n_sigma > 0.f ? top_.best() - settings_.top_n_sigma * deviation()
                                            : -std::numeric_limits<float>::infinity();
  // If no filter between top-k and min-p asks for the others, they need not be looked at.
  if (settings_.typical_p >= 1.f && settings_.top_p >= 1.f) floor = std::max(floor, min_p_floor(top_.best()));
  // Top-p alone reaches its probability before tokens that all together have less than the rest.
  if (nucleus_of_all())
    floor =
        std::max(floor, top_.best() + static_cast<float>(std::log((1 - static_cast<double>(settings_.top_p)) *
                                                                  top_.mass(1.f) / static_cast<double>(top_.vocab()))));
  if (settings_.top_k <= 0) return top_.at_least(floor);
  return top_.top(std::min(static_cast<std::size_t>(settings_.top_k), top_.vocab()), floor);
}

CHIMERA_FUNCTION float TokenSampler::deviation() const {
  double count = 0, sum = 0, squares = 0;
  for (const float x : top_.logits())
    if (is_finite(x)) count += 1, sum += static_cast<double>(x);
  const double mean = sum / count;
  for (const float x : top_.logits())
    if (is_finite(x)) squares += (static_cast<double>(x) - mean) * (static_cast<double>(x) - mean);
  return static_cast<float>(std::sqrt(squares / count));
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::typical(Candidates all) {
  if (settings_.typical_p >= 1.f) return all;
  const double mass = weigh(all, 1.f), enough = static_cast<double>(settings_.typical_p) * mass;
  double mean = 0;
  for (std::size_t i = 0; i < all.size(); ++i) mean += weight(i) * static_cast<double>(all[i].logit) / mass;
  const auto oddity = [&](const Candidate& c) { return std::fabs(static_cast<double>(c.logit) - mean); };
  const auto order = [&](const Candidate& a, const Candidate& b) {
    return oddity(a) != oddity(b) ? oddity(a) < oddity(b) : likelier(a, b);
  };
  return first_of_mass(all, order, [&](double sum) { return sum > enough; });
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::within_top_p(Candidates all) {
  if (settings_.top_p >= 1.f) return all;
  const double mass = nucleus_of_all() ? top_.mass(1.f) : weigh(all, 1.f);
  const double enough = static_cast<double>(settings_.top_p) * mass;
  return first_of_mass(all, likelier, [&](double sum) { return sum >= enough; });
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::above_min_p(Candidates all) const {
  if (settings_.min_p <= 0.f) return all;
  return keep(all, [floor = min_p_floor(largest(all))](const Candidate& c) { return c.logit >= floor; });
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::exclude_top(Candidates all) {
  if (settings_.xtc_probability <= 0.f || all.size() < 2 || xtc_random_.uniform() >= settings_.xtc_probability)
    return all;
  const double least = static_cast<double>(settings_.xtc_threshold) * weigh(all, 1.f);
  const Candidate* last = nullptr;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (weight(i) >= least && (!last || likelier(*last, all[i]))) last = &all[i];
  if (!last) return all;
  return keep(all, [stays = *last](const Candidate& c) { return !likelier(c, stays); });
}

CHIMERA_FUNCTION TokenSampler::Candidates TokenSampler::expected() {
  const double t = static_cast<double>(settings_.temperature), bits = static_cast<double>(surprise_limit_);
  const double floor =
      static_cast<double>(top_.best()) + t * (std::log(top_.mass(settings_.temperature)) - bits * 0.69314718055994531);
  return floor > static_cast<double>(top_.best()) ? top_.top(1) : top_.at_least(static_cast<float>(floor));
}

CHIMERA_FUNCTION float TokenSampler::temperature_for(Candidates all) {
  const float t = settings_.temperature, range = settings_.temperature_range;
  if (range <= 0.f || all.size() < 2) return t;
  const double mass = weigh(all, 1.f), best = static_cast<double>(largest(all));
  double entropy = std::log(mass);
  for (std::size_t i = 0; i < all.size(); ++i) entropy += weight(i) / mass * (best - static_cast<double>(all[i].logit));
  const float share = static_cast<float>(std::clamp(entropy / std::log(static_cast<double>(all.size())), 0., 1.));
  const float low = std::max(0.f, t - range);
  return low + (t + range - low) * std::pow(share, settings_.temperature_exponent);
}

CHIMERA_FUNCTION TokenDistribution TokenSampler::weighed(Candidates all, float temperature) {
  temperature = std::max(temperature, std::numeric_limits<float>::min());
  const float share = static_cast<float>(1 / weigh(all, temperature));
  for (std::size_t i = 0; i < all.size(); ++i) weights_.data()[i] *= share;
  return {all, {weights_.data(), all.size()}};
}

CHIMERA_FUNCTION double TokenSampler::weigh(Candidates all, float temperature) {
  weigh(all, largest(all), temperature);
  double sum = 0;
  for (std::size_t i = 0; i < all.size(); ++i) sum += weight(i);
  return sum;
}

CHIMERA_FUNCTION void TokenSampler::weigh(Candidates all, float best, float temperature) {
  float* w = weights_.data();
  for (std::size_t i = 0; i < all.size(); ++i) w[i] = all[i].logit;
  dispatch<Exponentials>(top_.isa(), w, static_cast<std::int64_t>(all.size()), best, temperature, w);
}

CHIMERA_FUNCTION float TokenSampler::largest(Candidates all) {
  float best = all[0].logit;
  for (const Candidate& c : all) best = std::max(best, c.logit);
  return best;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
