// Models whose shape is not compiled in: each is compiled once, by the system's compiler, and kept.
#pragma once

#include <chimera/core/result.hpp>
#include <chimera/model/any_model.hpp>

#include <string>

/// For --help.
inline constexpr const char* engine_help =
    "A model whose shape is no preset is compiled for this machine when it is first met, in 10 s or so, and kept in\n"
    "~/.cache/chimera/engines. Environment: CXX (the compiler; usually c++, g++ or clang++), CHIMERA_INCLUDE (the\n"
    "folder of chimera's headers), XDG_CACHE_HOME (instead of ~/.cache).";

/// The model of that config for running alone, from the cache or compiled; it tells on stderr what it does. Errors say
/// what to install or to set.
chimera::Result<chimera::AnyModel> find_engine(const chimera::Config& config);

/// Likewise one that can be trained, too.
chimera::Result<chimera::AnyModel> find_training_engine(const chimera::Config& config);

/// The config that a C++ header defines, as chimera-config writes one; `name` becomes that of its variable.
chimera::Result<chimera::Config> compile_config(const std::string& header, std::string& name);
