// Runs with a name: a config and everything else that a run is told. Flags override them.
#pragma once

#include "run_options.hpp"

#include <array>
#include <string>
#include <string_view>

struct Recipe {
  std::string_view name;
  RunOptions options;
};

/// Tiny Shakespeare in the budget of nanoGPT's CPU recipe: 1.54M tokens of context 64, at most 0.85M weights.
inline RunOptions shakespeare() {
  RunOptions run;
  run.config = "shakespeare";
  run.settings = {.steps = 600,
                  .batch = 12,
                  .context = 64,
                  .learning_rate = 2e-3,
                  .warmup = 30,
                  .validation_interval = 0,
                  .validation_tokens = 0,
                  .checkpoint_interval = 0};
  return run;
}

inline chimera::Result<RunOptions> find_recipe(std::string_view name) {
  const std::array recipes{Recipe{"shakespeare", shakespeare()}};
  std::string names;
  for (const Recipe& r : recipes) {
    if (r.name == name) return r.options;
    names.append(names.empty() ? "" : ", ").append(r.name);
  }
  return chimera::Error{"no recipe is named \"" + std::string(name) + "\"; there are: " + names};
}
