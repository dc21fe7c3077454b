#include <chimera/kernels/packed/matrix.hpp>

using namespace chimera;
using namespace chimera::packed_parts;

template <Isa isa>
constexpr auto nibbles = KernelsOf<isa>::template of<LayoutQ4_0>;
template <Isa isa>
constexpr auto bytes = KernelsOf<isa>::template of<LayoutQ8_0>;

/// Takes the addresses of their functions, so that they are compiled.
extern const CodeKernels kernels[] = {
    nibbles<Isa::base>,   bytes<Isa::base>,     nibbles<Isa::avx2>, bytes<Isa::avx2>,          nibbles<Isa::avx_vnni>,
    bytes<Isa::avx_vnni>, nibbles<Isa::avx512>, bytes<Isa::avx512>, nibbles<Isa::avx512_vnni>, bytes<Isa::avx512_vnni>};
extern const NumberKernels halves = KernelsOf<Isa::avx512_bf16>::of<LayoutBF16>;
