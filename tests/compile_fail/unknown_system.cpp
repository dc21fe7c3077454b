// error: chimera: this operating system is not supported yet; expected Linux
// flags: -U__linux__
#include <chimera/chimera.hpp>
