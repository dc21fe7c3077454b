// Names the inline namespace of all numeric code after the instruction set the host compiles for. Two files of one
// program built with different -m flags then share no inline function, so the linker cannot keep the wrong copy.
// A private namespace x_parts lies in `chimera` or in this one, never in both: a file that sees both could not say
// which it means. CHIMERA_ISA (kernels/simd.hpp) must be the same in all files of a program.
#pragma once

#include <chimera/core/version.hpp>

#if defined(CHIMERA_ISA)
#define CHIMERA_ABI abi_one_level
#elif defined(__AVX512F__)
#define CHIMERA_ABI abi_avx512
#elif defined(__AVX2__)
#define CHIMERA_ABI abi_avx2
#elif defined(__AVX__)
#define CHIMERA_ABI abi_avx
#else
#define CHIMERA_ABI abi_base
#endif
