// The flag that names a model on disk.
#pragma once

#include "engine.hpp"
#include "registry.hpp"

#include <chimera/exchange/saved_model.hpp>

#include <string>

/// For --help of a flag that `open_model` reads.
inline constexpr const char* model_help = "a run's folder, a checkpoint, a GGUF file, or a Hugging Face folder";

/// The model at `path`, run by a preset that fits or else by an engine.
inline chimera::Result<chimera::SavedModel> open_model(const std::string& path) {
  return chimera::SavedModel::open(path, all_models(), find_engine);
}
