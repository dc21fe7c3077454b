// The models that the programs can run.
#pragma once

#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>

#include <span>
#include <string_view>

/// All presets.
std::span<const chimera::AnyModel> all_models();

/// The preset of that name; an error that names the nearest ones.
chimera::Result<chimera::AnyModel> find_model(std::string_view name);

/// A preset in which weights mean the same, or else a model compiled for this config, which can be run and not trained
/// (engine.hpp).
chimera::Result<chimera::AnyModel> find_model(const chimera::Config& config);
