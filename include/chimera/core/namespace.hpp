// Names the inline namespace of all numeric code after the instruction set the host compiles for. Two files of one
// program built with different -m flags then share no inline function, so the linker cannot keep the wrong copy.
// A private namespace x_parts lies in `chimera` or in this one, never in both: a file that sees both could not say
// which it means. CHIMERA_ISA (kernels/simd.hpp) must be the same in all files of a program.
//
// A header of kernels has two halves: what they are, and how they work. By default both are seen, and functions are
// inline. Where CHIMERA_EXTERN is defined, in all files of a program, the second half is seen by one file alone
// (cmake/compiled.cpp): what does not depend on a config is compiled once. Then all files take the same -m flags.
// CHIMERA_FUNCTION stands before a function of a second half; before a virtual one where it is declared, too, or files
// that never name its class would compile it.
//
// What is a template on the device is seen whole by all files, since a host may bring a device of its own;
// CHIMERA_CPU_FORM(class TrainerOn<Cpu>) behind it leaves the processor's form to that one file.
#pragma once

#include <chimera/core/version.hpp>

#if defined(CHIMERA_ISA)
#define CHIMERA_ABI abi_one_level
#elif defined(CHIMERA_EXTERN)
#define CHIMERA_ABI abi_compiled
#elif defined(__AVX512F__)
#define CHIMERA_ABI abi_avx512
#elif defined(__AVX2__)
#define CHIMERA_ABI abi_avx2
#elif defined(__AVX__)
#define CHIMERA_ABI abi_avx
#else
#define CHIMERA_ABI abi_base
#endif

#if !defined(CHIMERA_EXTERN)
#define CHIMERA_BODIES 1
#define CHIMERA_FUNCTION inline
#define CHIMERA_CPU_FORM(...)
#elif defined(CHIMERA_COMPILE)
#define CHIMERA_BODIES 1
#define CHIMERA_FUNCTION
#define CHIMERA_CPU_FORM(...) template __VA_ARGS__;
#else
#define CHIMERA_BODIES 0
#define CHIMERA_FUNCTION
#define CHIMERA_CPU_FORM(...) extern template __VA_ARGS__;
#endif
