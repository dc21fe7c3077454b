// One small model for all tests of this folder: it is compiled once.
#pragma once

#include <chimera/model/any_model.hpp>

chimera::AnyModel nano_model();
