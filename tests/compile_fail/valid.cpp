#include "good.hpp"

#include <chimera/model/language_model.hpp>

constexpr auto count = LanguageModel<good>::parameters;
