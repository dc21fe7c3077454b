// The one file that compiles the kernels of packed weights, for programs of many files: see kernels/packed/matrix.hpp.
#include <chimera/kernels/packed/matrix.hpp>

template struct chimera::packed_parts::AllKernels<void>;
