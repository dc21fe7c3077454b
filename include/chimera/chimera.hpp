// The whole library. Nothing here prints, throws, aborts or keeps global state.
#pragma once

#include <chimera/config/presets.hpp>
#include <chimera/model/language_model.hpp>
