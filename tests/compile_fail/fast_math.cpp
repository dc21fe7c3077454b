// error: chimera: its numbers need the rules of floating point; compile files that include it with -fno-fast-math
// flags: -ffast-math
#include <chimera/chimera.hpp>
