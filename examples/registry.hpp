// The models that the programs can run.
#pragma once

#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>

#include <span>
#include <string_view>

/// All presets.
std::span<const chimera::AnyModel> all_models();

/// The preset of that config; null: it is none.
const chimera::AnyModel* find_preset(const chimera::Config& config);

/// The preset of that name; an error that names the nearest ones.
chimera::Result<chimera::AnyModel> find_model(std::string_view name);
