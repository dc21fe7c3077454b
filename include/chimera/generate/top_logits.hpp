// One row of logits, read once: then its likeliest tokens are found without sorting the vocabulary.
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/core/isa.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
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

namespace chimera::inline CHIMERA_ABI {

struct Candidate {
  float logit;
  std::int32_t token;
};

/// Equal logits go by token, so that the order is the same on every machine.
bool likelier(const Candidate& a, const Candidate& b);

/// The natural logarithm of the probability that these logits give a token.
float log_probability(Isa isa, std::span<const float> logits, std::int32_t token);

/// Tells a row's likeliest tokens. `create` allocates; nothing else does.
class TopLogits {
 public:
  static Result<TopLogits> create(std::int64_t vocab);

  std::size_t vocab() const { return vocab_; }
  Isa isa() const { return isa_; }

  /// `logits` [vocab] must live until the next row. An error if one is NaN or infinite, or all are minus infinity
  /// (which is how a token is forbidden).
  Result<void> read(std::span<const float> logits);

  std::span<const float> logits() const { return logits_; }
  float best() const { return best_; }

  /// Sum of e^((logit - best) / temperature).
  double mass(float temperature) const;

  /// The tokens whose logit is at least `floor`, in the order of the vocabulary. Memory is shared with `top`.
  std::span<Candidate> at_least(float floor);

  /// The `count` > 0 likeliest of those tokens, likeliest first.
  std::span<Candidate> top(std::size_t count, float floor = -infinity);

 private:
  static constexpr float infinity = std::numeric_limits<float>::infinity();

  TopLogits() = default;
  std::int64_t size() const { return static_cast<std::int64_t>(vocab_); }

  std::size_t vocab_ = 0, blocks_ = 0;
  Isa isa_ = Isa::base;
  std::span<const float> logits_;
  float best_ = 0;
  Buffer maxima_;                            // [2 blocks]: of each 64 logits, and room to sort them
  std::unique_ptr<Candidate[]> candidates_;  // [vocab]
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

/// Calls f(block, x) for each 64 of n floats; the last block is filled up with minus infinity.
template <class F>
CHIMERA_INLINE void blocks_of_64(const float* x, std::int64_t n, F f) {
  for (std::int64_t i = 0; i + 64 <= n; i += 64) f(i / 64, x + i);
  if (n % 64 == 0) return;
  float last[64];
  for (float& v : last) v = -std::numeric_limits<float>::infinity();
  std::memcpy(last, x + n / 64 * 64, static_cast<std::size_t>(n % 64) * sizeof(float));
  f(n / 64, last);
}

/// maxima [(n + 63) / 64]: the largest of each 64, NaN apart. Sets *nan if there is one.
struct BlockMaxima {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, float* maxima, bool* nan) {
    using V = Vec<W>;
    typename V::Bits unordered{};
    blocks_of_64(x, n, [&](std::int64_t block, const float* v) CHIMERA_LAMBDA {
      V most = -std::numeric_limits<float>::infinity();
      for (int i = 0; i < 64; i += W) {
        const V a = V::load(v + i);
        most = max<W>(a, most);  // the second, where the first is NaN
        unordered |= (reinterpret_cast<typename V::Bits>(a.v) & 0x7fffffff) > 0x7f800000;
      }
      maxima[block] = largest<W>(most);
    });
    for (int i = 0; i < W; ++i) *nan = *nan || unordered[i] != 0;
  }
};

/// y[i] = e^((x[i] - shift) / scale); y may be x.
struct Exponentials {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, float shift, float scale, float* y) {
    lanes<W>(n, [&](std::int64_t i, auto io)
                    CHIMERA_LAMBDA { io.store(y + i, exp<W>((io.load(x + i) - Vec<W>(shift)) / Vec<W>(scale))); });
  }
};

/// *sum = the sum of e^((x[i] - shift) / scale): f32 inside blocks of 64, f64 across them.
struct ExponentialSum {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, float shift, float scale, double* sum) {
    blocks_of_64(x, n, [&](std::int64_t, const float* v) CHIMERA_LAMBDA {
      Vec<W> part;
      for (int i = 0; i < 64; i += W) part += exp<W>((Vec<W>::load(v + i) - Vec<W>(shift)) / Vec<W>(scale));
      *sum += static_cast<double>(chimera::sum<W>(part));
    });
  }
};

/// *sum = ln of the sum of e^x[i]. NaN and plus infinity in x give NaN.
struct LogSumExp {
  template <int W>
  CHIMERA_INLINE static void run(const float* x, std::int64_t n, double* sum) {
    Vec<W> tops(-std::numeric_limits<float>::infinity());
    blocks_of_64(x, n, [&](std::int64_t, const float* v) CHIMERA_LAMBDA {
      for (int i = 0; i < 64; i += W) tops = max<W>(Vec<W>::load(v + i), tops);  // the second, where the first is NaN
    });
    const float top = largest<W>(tops);
    double exponentials = 0;
    ExponentialSum::run<W>(x, n, top, 1.f, &exponentials);
    *sum = static_cast<double>(top) + std::log(exponentials);
  }
};

CHIMERA_FUNCTION float log_probability(Isa isa, std::span<const float> logits, std::int32_t token) {
  double all = 0;
  dispatch<LogSumExp>(isa, logits.data(), static_cast<std::int64_t>(logits.size()), &all);
  return static_cast<float>(static_cast<double>(logits[static_cast<std::size_t>(token)]) - all);
}

CHIMERA_FUNCTION Result<TopLogits> TopLogits::create(std::int64_t vocab) {
  if (vocab < 1 || vocab > std::numeric_limits<std::int32_t>::max())
    return Error{"a vocabulary has 1 to 2147483647 tokens, found " + std::to_string(vocab)};
  TopLogits t;
  t.vocab_ = static_cast<std::size_t>(vocab), t.blocks_ = (t.vocab_ + 63) / 64, t.isa_ = detect_isa();
  auto maxima = Buffer::create(2 * t.blocks_);
  if (!maxima) return maxima.error();
  t.maxima_ = std::move(*maxima);
  t.candidates_.reset(new (std::nothrow) Candidate[t.vocab_]);
  if (!t.candidates_) return Error{"out of memory for a vocabulary of " + std::to_string(vocab)};
  return t;
}

CHIMERA_FUNCTION Result<void> TopLogits::read(std::span<const float> logits) {
  if (logits.size() != vocab_)
    return Error{"a vocabulary of " + std::to_string(vocab_) + " has as many logits, found " +
                 std::to_string(logits.size())};
  logits_ = logits;
  bool nan = false;
  dispatch<BlockMaxima>(isa_, logits.data(), size(), maxima_.data(), &nan);
  best_ = *std::max_element(maxima_.data(), maxima_.data() + blocks_);
  if (nan || !(is_finite(best_) || is_minus_infinity(best_))) {
    const auto bad =
        std::find_if(logits.begin(), logits.end(), [](float x) { return !(is_finite(x) || is_minus_infinity(x)); });
    return Error{"logits are numbers or minus infinity, found " + std::to_string(*bad) + " for token " +
                 std::to_string(bad - logits.begin())};
  }
  if (is_minus_infinity(best_)) return Error{"no token can follow: all logits are minus infinity"};
  return {};
}

CHIMERA_FUNCTION double TopLogits::mass(float temperature) const {
  double sum = 0;
  dispatch<ExponentialSum>(isa_, logits_.data(), size(), best_, temperature, &sum);
  return sum;
}

CHIMERA_FUNCTION std::span<Candidate> TopLogits::at_least(float floor) {
  floor = std::max(floor, std::numeric_limits<float>::lowest());
  std::size_t count = 0;
  for (std::size_t block = 0; block < blocks_; ++block) {
    if (maxima_.data()[block] < floor) continue;
    for (std::size_t i = 64 * block, end = std::min(i + 64, vocab_); i < end; ++i)
      if (logits_[i] >= floor) candidates_[count++] = {logits_[i], static_cast<std::int32_t>(i)};
  }
  return {candidates_.get(), count};
}

CHIMERA_FUNCTION std::span<Candidate> TopLogits::top(std::size_t count, float floor) {
  if (count <= blocks_) {
    // At least `count` logits are as large as the count-th largest maximum.
    float* sorted = maxima_.data() + blocks_;
    std::copy_n(maxima_.data(), blocks_, sorted);
    std::nth_element(sorted, sorted + (count - 1), sorted + blocks_, [](float a, float b) { return a > b; });
    floor = std::max(floor, sorted[count - 1]);
  }
  const std::span<Candidate> all = at_least(floor);
  const std::span<Candidate> first = all.first(std::min(count, all.size()));
  std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(first.size()), all.end(), likelier);
  return first;
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
