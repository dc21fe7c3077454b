// What sampling.py asks: for each line "vocab N past M NAME VALUE ...", followed by M tokens (i32) and N logits (f32),
// the candidates as a line with their number and for each its token (i32), logit and probability (f32). With "rounds R"
// instead of candidates: a line with the microseconds of a draw, the best of R.
#include <chimera/generate/sampler.hpp>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

using namespace chimera;

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::map<std::string, double> given;
    std::vector<std::vector<std::int32_t>> breakers;
    std::istringstream words(line);
    for (std::string name; words >> name;) {
      if (name == "breaker") {
        std::size_t count = 0;
        words >> count;
        for (auto& token : breakers.emplace_back(count)) words >> token;
      } else {
        words >> given[name];
      }
    }
    const auto real = [&](const char* name, float usual) {
      return given.count(name) ? static_cast<float>(given[name]) : usual;
    };
    const auto whole = [&](const char* name, std::int64_t usual) {
      return given.count(name) ? static_cast<std::int64_t>(given[name]) : usual;
    };
    TokenSamplerSettings s;
    s.temperature = real("temperature", s.temperature), s.top_k = whole("top_k", s.top_k);
    s.top_p = real("top_p", s.top_p), s.min_p = real("min_p", s.min_p);
    if (given.count("bias")) s.logit_bias = {{static_cast<std::int32_t>(given["biased"]), real("bias", 0)}};
    s.repeat_last_n = whole("repeat_last_n", s.repeat_last_n);
    s.repeat_penalty = real("repeat_penalty", s.repeat_penalty);
    s.frequency_penalty = real("frequency_penalty", s.frequency_penalty);
    s.presence_penalty = real("presence_penalty", s.presence_penalty);
    s.dry_multiplier = real("dry_multiplier", s.dry_multiplier), s.dry_base = real("dry_base", s.dry_base);
    s.dry_allowed_length = whole("dry_allowed_length", s.dry_allowed_length);
    s.dry_last_n = whole("dry_last_n", s.dry_last_n), s.dry_breakers = breakers;
    s.top_n_sigma = real("top_n_sigma", s.top_n_sigma), s.typical_p = real("typical_p", s.typical_p);
    s.xtc_probability = real("xtc_probability", s.xtc_probability);
    s.xtc_threshold = real("xtc_threshold", s.xtc_threshold);
    s.temperature_range = real("temperature_range", s.temperature_range);
    s.temperature_exponent = real("temperature_exponent", s.temperature_exponent);
    s.mirostat = whole("mirostat", 0) != 0, s.mirostat_tau = real("mirostat_tau", s.mirostat_tau);

    std::vector<std::int32_t> past(static_cast<std::size_t>(whole("past", 0)));
    std::vector<float> logits(static_cast<std::size_t>(whole("vocab", 0)));
    std::cin.read(reinterpret_cast<char*>(past.data()), static_cast<std::streamsize>(past.size() * 4));
    std::cin.read(reinterpret_cast<char*>(logits.data()), static_cast<std::streamsize>(logits.size() * 4));
    auto sampler = TokenSampler::create(static_cast<std::int64_t>(logits.size()), s);
    if (!sampler) {
      std::fprintf(stderr, "%s\n", sampler.error().message.c_str());
      return 1;
    }
    sampler->accept(past);

    if (given.count("rounds")) {
      double best = 1e30;
      for (std::int64_t i = 0; i < whole("rounds", 0); ++i) {
        const auto start = std::chrono::steady_clock::now();
        if (!sampler->draw(logits)) return 1;
        best =
            std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
      }
      std::printf("%f\n", best);
    } else {
      const auto d = sampler->distribution(logits);
      if (!d) return 1;
      std::printf("%zu\n", d->candidates.size());
      for (std::size_t i = 0; i < d->candidates.size(); ++i) {
        std::fwrite(&d->candidates[i].token, 4, 1, stdout);
        std::fwrite(&d->candidates[i].logit, 4, 1, stdout);
        std::fwrite(&d->probabilities[i], 4, 1, stdout);
      }
    }
    std::fflush(stdout);
  }
}
