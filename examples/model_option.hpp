// The flag that names a model on disk.
#pragma once

#include "engine.hpp"
#include "registry.hpp"

#include <chimera/config/longer_context.hpp>
#include <chimera/exchange/saved_model.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <string>

/// For --help of a flag that `open_model` reads.
inline constexpr const char* model_help = "a run's folder, a checkpoint, a GGUF file, or a Hugging Face folder";

inline CLI::Option* add_model_option(CLI::App& app, std::string& path) {
  return app.add_option("-m,--model", path, model_help)->type_name("PATH")->default_str("");
}

/// The model at `path`, run by a preset that fits or else by an engine.
inline chimera::Result<chimera::SavedModel> open_model(const std::string& path) {
  return chimera::SavedModel::open(path, all_models(), find_engine);
}

/// The same for texts of that many tokens: beyond the model's context, by an engine with a longer one.
inline chimera::Result<chimera::SavedModel> open_model(const std::string& path, std::int64_t context) {
  auto saved = open_model(path);
  if (!saved || context <= saved->config().context) return saved;
  if (context > 1 << 24)
    return chimera::Error{"a text must have at most 16777216 tokens, found " + std::to_string(context)};
  const auto longer = find_engine(chimera::with_context(saved->config(), static_cast<int>(context)));
  if (!longer) return longer.error();
  saved->model = *longer;
  return saved;
}
