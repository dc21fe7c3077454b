// Strings that end what DRY calls a repetition, as tokens.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

inline constexpr std::array<std::string_view, 4> usual_dry_breakers{"\n", ":", "\"", "*"};

/// For TokenSamplerSettings::dry_breakers: each token that holds such a string, and each that ends with its beginning,
/// followed by the tokens of the rest (at most 20). As in llama.cpp, strings have at most 40 bytes.
Result<std::vector<std::vector<std::int32_t>>> dry_breakers(
    const Tokenizer& tokenizer, std::span<const std::string_view> strings = usual_dry_breakers);

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<std::vector<std::vector<std::int32_t>>> dry_breakers(
    const Tokenizer& tokenizer, std::span<const std::string_view> strings) {
  constexpr std::size_t most_bytes = 40, most_tokens = 20;
  std::vector<std::vector<std::int32_t>> breakers;
  for (const std::string_view s : strings) {
    if (s.empty() || s.size() > most_bytes)
      return Error{"a DRY breaker has 1 to " + std::to_string(most_bytes) + " bytes, found " +
                   std::to_string(s.size())};
    for (std::int32_t id = 0; id < tokenizer.size(); ++id) {
      const std::string_view word = tokenizer.bytes(id);
      if (word.find(s) != word.npos) {
        breakers.push_back({id});
        continue;
      }
      for (std::size_t n = 1; n < std::min(s.size(), word.size() + 1); ++n) {
        if (!word.ends_with(s.substr(0, n))) continue;
        std::vector<std::int32_t> breaker = tokenizer.encode(s.substr(n));
        breaker.resize(std::min(breaker.size(), most_tokens));
        breaker.insert(breaker.begin(), id);
        breakers.push_back(std::move(breaker));
      }
    }
  }
  std::sort(breakers.begin(), breakers.end());
  breakers.erase(std::unique(breakers.begin(), breakers.end()), breakers.end());
  return breakers;
}

}  // namespace chimera
#endif
