// error: chimera: its numbers need the rules of floating point; compile files that include it with -fno-fast-math
// flags: -O2 -ffinite-math-only
#include <chimera/chimera.hpp>
