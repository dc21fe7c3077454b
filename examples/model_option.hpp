// The flag that names a model on disk.
#pragma once

#include "engine.hpp"
#include "registry.hpp"

#include <chimera/exchange/saved_model.hpp>

#include <CLI/CLI.hpp>

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
