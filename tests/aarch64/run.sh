#!/bin/sh
# run.sh COMPILER EMULATOR CHIMERA WORK: compiles tests for AArch64 in the folder WORK and runs them on a processor with
# dot products and on one without.
set -eu
compiler=$1 emulator=$2 chimera=$3 work=$4
for program in "$compiler" "$emulator"; do
  command -v "$program" >/dev/null || { echo "SKIPPED: $program is not installed"; exit; }
done
mkdir -p "$work"
cd "$work"

# The host's headers come last: those of Boost and doctest are the same for every processor.
flags="-std=c++20 -O2 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -Wno-restrict
  -I $chimera/include -I $chimera/tests -idirafter /usr/include"
tests="core/isa kernels/formats/block_formats kernels/packed/matrix"
for test in main $tests; do
  echo $(command -v ccache) "$compiler" $flags -c "$chimera/tests/$test.cpp" -o "$(basename $test).o"
done | xargs -P "$(nproc)" -I COMMAND sh -c COMMAND
"$compiler" -static $(for test in main $tests; do echo "$(basename $test).o"; done) -o tests
"$emulator" -cpu max ./tests
"$emulator" -cpu cortex-a53 ./tests --source-file="*packed/matrix*"
"${compiler%g++}objdump" -d matrix.o | grep -q sdot
