// The flags that say how tokens are drawn; names, meanings and defaults are llama.cpp's.
#pragma once

#include "text_options.hpp"

#include <chimera/core/read_number.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/dry_breakers.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/text/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// A seed as the flags give it; -1, or llama.cpp's 4,294,967,295: a random one, printed so that it can be given again.
inline std::uint64_t chosen_seed(std::int64_t given) {
  if (given >= 0 && given != UINT32_MAX) return static_cast<std::uint64_t>(given);
  const std::uint32_t seed = std::random_device{}();
  std::fprintf(stderr, "seed %lu\n", static_cast<unsigned long>(seed));
  return seed;
}

inline void add_seed_option(CLI::App& app, std::int64_t& seed) {
  app.add_option("-s,--seed", seed, "the same seed gives the same text; -1: a random one, which is printed")
      ->check(at_least(-1));
}

struct SamplingOptions {
  chimera::TokenSamplerSettings settings;
  std::int64_t seed = -1;
  int mirostat = 0;
  std::vector<std::string> stop, biases, breakers;

  void add(CLI::App& app) {
    auto& s = settings;
    const auto option = [&app](const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->group("Sampling, in its order");
    };
    const auto texts = [&](const char* flag, auto& value, const char* help) {
      option(flag, value, help)->default_str("")->allow_extra_args(false)->take_all();
    };
    add_seed_option(app, seed);
    texts("--stop,-r,--reverse-prompt", stop, "text that ends the answer, and is not shown; may be given repeatedly");
    app.get_option("--stop")->group("Options");
    texts("-l,--logit-bias", biases, "ID+BIAS or ID-BIAS: changes a token's logit; ID-inf forbids it");
    option("--repeat-last-n", s.repeat_last_n, "newest tokens that the next three look at; 0: none, -1: 65,536");
    option("--repeat-penalty", s.repeat_penalty, "divides the logits of tokens that have occurred; 1: off");
    option("--frequency-penalty", s.frequency_penalty,
           "subtracted from a token's logit each time that it has occurred");
    option("--presence-penalty", s.presence_penalty, "subtracted once from the logits of tokens that have occurred");
    option("--dry-multiplier", s.dry_multiplier, "DRY: penalty of a token that makes a repetition longer; 0: off");
    option("--dry-base", s.dry_base, "the penalty grows by this factor with each token of the repetition");
    option("--dry-allowed-length", s.dry_allowed_length, "shorter repetitions have no penalty");
    option("--dry-penalty-last-n", s.dry_last_n, "newest tokens that DRY looks at; -1: 65,536");
    texts(
        "--dry-sequence-breaker", breakers,
        "text that ends a repetition, in place of line break, : \" and *; may be given repeatedly; none: no text does");
    option("--top-nsigma,--top-n-sigma", s.top_n_sigma,
           "keep logits within n standard deviations of the largest; 0: all");
    option("--top-k", s.top_k, "draw from the k likeliest tokens; 0: from all");
    option("--typical,--typical-p", s.typical_p,
           "keep the tokens of the most typical surprise, up to this total probability; 1: all");
    option("--top-p", s.top_p, "draw from the likeliest tokens that together have this probability; 1: all");
    option("--min-p", s.min_p, "leave out tokens that are less likely than this part of the likeliest; 0: none");
    option("--xtc-probability", s.xtc_probability,
           "how often all likely tokens but the least likely one are left out; 0: never");
    option("--xtc-threshold", s.xtc_threshold, "what is likely to XTC: at least this probability");
    option("--temp,--temperature", s.temperature, "higher is more surprising; 0: always the likeliest token");
    option("--dynatemp-range", s.temperature_range,
           "the temperature follows the entropy, at most this far up and down; 0: off");
    option("--dynatemp-exp", s.temperature_exponent, "exponent of the entropy in that");
    option("--mirostat", mirostat, "2: keep the surprise constant (Mirostat 2), in place of all filters; 0: off")
        ->check(number_check("of 0 or 2", [](double x) { return x == 0 || x == 2; }));
    option("--mirostat-ent", s.mirostat_tau, "the surprise that Mirostat aims at, in bits");
    option("--mirostat-lr", s.mirostat_eta, "how fast it gets there");
  }

  /// The strings that end a text.
  std::vector<std::string> stops(const TextOptions& text) const {
    std::vector<std::string> all;
    for (const std::string& s : stop) all.push_back(text.flag_text(s));
    return all;
  }

  /// The settings, with the biases that were given, and the breakers as tokens. Tells of a random seed.
  chimera::Result<chimera::TokenSamplerSettings> settings_for(const chimera::Tokenizer& tokenizer,
                                                              const TextOptions& text) const {
    chimera::TokenSamplerSettings s = settings;
    if (s.temperature > 0.f) s.seed = chosen_seed(seed);
    s.mirostat = mirostat == 2;
    for (const std::string& given : biases) {
      chimera::LogitBias bias{};
      const char* const end = given.data() + given.size();
      const auto [sign, id_error] = std::from_chars(given.data(), end, bias.token);
      const char* const number = sign + (sign != end && *sign == '+');
      const auto [rest, number_error] = chimera::read_number(number, end, bias.bias);
      if (id_error != std::errc() || number_error != std::errc() || rest != end || (*sign != '+' && *sign != '-'))
        return chimera::Error{"a logit bias is ID+BIAS or ID-BIAS, found " + given};
      s.logit_bias.push_back(bias);
    }
    if (s.dry_multiplier > 0.f && breakers != std::vector<std::string>{"none"}) {
      std::vector<std::string> texts;
      for (const std::string& b : breakers) texts.push_back(text.flag_text(b));
      const std::vector<std::string_view> given(texts.begin(), texts.end());
      auto tokens = given.empty() ? chimera::dry_breakers(tokenizer) : chimera::dry_breakers(tokenizer, given);
      if (!tokens) return tokens.error();
      s.dry_breakers = std::move(*tokens);
    }
    return s;
  }
};
