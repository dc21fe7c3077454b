// The one file that compiles the kernels of packed weights, for programs of many files: see kernels/packed_matrix.hpp.
#include <chimera/kernels/packed_matrix.hpp>

template struct chimera::packed_parts::AllKernels<void>;
