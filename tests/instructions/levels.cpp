#include <chimera/kernels/packed/matrix.hpp>

using namespace chimera;
using namespace chimera::packed_parts;

template <Isa isa>
constexpr auto nibbles = KernelsOf<isa>::template multiply<LayoutQ4_0>;
template <Isa isa>
constexpr auto bytes = KernelsOf<isa>::template multiply<LayoutQ8_0>;

template <Isa isa>
constexpr auto halves = KernelsOf<isa>::template multiply<LayoutBF16>;

/// Takes their addresses, so that they are compiled.
extern const decltype(nibbles<Isa::base>) kernels[] = {
    nibbles<Isa::base>,        bytes<Isa::base>,        nibbles<Isa::avx2>,      bytes<Isa::avx2>,
    nibbles<Isa::avx_vnni>,    bytes<Isa::avx_vnni>,    nibbles<Isa::avx512>,    bytes<Isa::avx512>,
    nibbles<Isa::avx512_vnni>, bytes<Isa::avx512_vnni>, halves<Isa::avx512_bf16>};
