// error: chimera: this compiler is too old or set to an older language; expected C++20 (-std=c++20)
// flags: -std=c++17
#include <chimera/chimera.hpp>
