// The flags that say how tokens are drawn; names and meanings are llama.cpp's.
#pragma once

#include <chimera/core/read_number.hpp>
#include <chimera/core/result.hpp>
#include <chimera/generate/dry_breakers.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/text/tokenizer.hpp>

#include <CLI/CLI.hpp>

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

struct SamplingOptions {
  chimera::TokenSamplerSettings settings;
  int mirostat = 0;
  std::vector<std::string> stop, biases, breakers;

  void add(CLI::App& app) {
    auto& s = settings;
    const auto option = [&app](const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->group("Sampling, in its order");
    };
    option("-l,--logit-bias", biases, "ID+BIAS or ID-BIAS: changes a token's logit; ID-inf forbids it")
        ->default_str("")
        ->allow_extra_args(false)
        ->take_all();
    option("--repeat-last-n", s.repeat_last_n, "tokens that the next three look back on; 0: none, -1: 65,536");
    option("--repeat-penalty", s.repeat_penalty, "divides the logits of tokens that occurred; 1: off");
    option("--frequency-penalty", s.frequency_penalty, "is subtracted as often as a token occurred");
    option("--presence-penalty", s.presence_penalty, "is subtracted once");
    option("--dry-multiplier", s.dry_multiplier, "penalty of tokens that make a repetition longer; 0: off");
    option("--dry-base", s.dry_base, "grows with each token of the repetition by this factor");
    option("--dry-allowed-length", s.dry_allowed_length, "repetitions below this length are free");
    option("--dry-penalty-last-n", s.dry_last_n, "tokens that it looks back on; -1: 65,536");
    option("--dry-sequence-breaker", breakers,
           "no repetition reaches over it; given: in place of line break, : \" and *; none: nothing breaks")
        ->default_str("")
        ->allow_extra_args(false)
        ->take_all();
    option("--top-nsigma", s.top_n_sigma, "keep logits within n standard deviations of the largest; 0: all");
    option("--top-k", s.top_k, "draw from the k likeliest tokens; 0: from all");
    option("--typical", s.typical_p, "keep the tokens of most usual surprise, up to this total probability; 1: all");
    option("--top-p", s.top_p, "draw from the likeliest tokens of this total probability");
    option("--min-p", s.min_p, "least probability, relative to the likeliest token's");
    option("--xtc-probability", s.xtc_probability, "how often all but the least of the likely tokens are excluded");
    option("--xtc-threshold", s.xtc_threshold, "a likely token has at least this probability");
    option("--temperature,--temp", s.temperature, "higher: more surprising; 0: the likeliest token");
    option("--dynatemp-range", s.temperature_range, "the temperature follows the entropy within this range");
    option("--dynatemp-exp", s.temperature_exponent, "power of the entropy in it");
    option("--mirostat", mirostat, "2: steer the surprise, in place of all filters")->check(CLI::IsMember({0, 2}));
    option("--mirostat-ent", s.mirostat_tau, "the surprise to come to, in bits");
    option("--mirostat-lr", s.mirostat_eta, "how fast");
    option("-s,--seed", s.seed, "the same seed gives the same text");
    option("--stop,-r,--reverse-prompt", stop, "text that ends the answer, and is not shown; may be given repeatedly")
        ->default_str("")
        ->allow_extra_args(false)
        ->take_all();
  }

  /// The settings, with the biases that were given, and the breakers as tokens.
  chimera::Result<chimera::TokenSamplerSettings> settings_for(const chimera::Tokenizer& tokenizer) const {
    chimera::TokenSamplerSettings s = settings;
    s.mirostat = mirostat == 2;
    for (const std::string& text : biases) {
      chimera::LogitBias bias{};
      const char* const end = text.data() + text.size();
      const auto [sign, id_error] = std::from_chars(text.data(), end, bias.token);
      const char* const number = sign + (sign != end && *sign == '+');
      const auto [rest, number_error] = chimera::read_number(number, end, bias.bias);
      if (id_error != std::errc() || number_error != std::errc() || rest != end || (*sign != '+' && *sign != '-'))
        return chimera::Error{"a logit bias is ID+BIAS or ID-BIAS, found " + text};
      s.logit_bias.push_back(bias);
    }
    if (s.dry_multiplier > 0.f && breakers != std::vector<std::string>{"none"}) {
      const std::vector<std::string_view> given(breakers.begin(), breakers.end());
      auto tokens = given.empty() ? chimera::dry_breakers(tokenizer) : chimera::dry_breakers(tokenizer, given);
      if (!tokens) return tokens.error();
      s.dry_breakers = std::move(*tokens);
    }
    return s;
  }
};
