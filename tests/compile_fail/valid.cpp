#include "good.hpp"

constexpr auto count = LanguageModel<good>::parameters;
