// What depends on no config, compiled once: the library `chimera::compiled`. By hand: this file with CHIMERA_EXTERN and
// CHIMERA_COMPILE defined, all others of the program with CHIMERA_EXTERN.
#include <chimera/chimera.hpp>
#include <chimera/io/tensorboard.hpp>
#include <chimera/kernels/roofline.hpp>
