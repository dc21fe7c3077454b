#include "align/nano.hpp"

#include <chimera/config/presets.hpp>
#include <chimera/model/language_model.hpp>

chimera::AnyModel nano_model() { return chimera::any_model<chimera::presets::nano>("nano"); }
