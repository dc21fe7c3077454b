// The whole library. Nothing here prints, throws, aborts or keeps global state.
#pragma once

#include <chimera/config/presets.hpp>
#include <chimera/generate/sampler.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/model/language_model.hpp>
#include <chimera/text/bytes.hpp>
#include <chimera/train/trainer.hpp>
