#!/bin/sh
# run.sh COMPILER CHIMERA WORK: configs, written as source and compiled, are what they were.
set -eu
flags="-std=c++20 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -I $2/include"
mkdir -p "$3/include"
"$1" $flags "$2/tests/compile/config_source/write.cpp" -o "$3/write"
"$3/write" >"$3/include/written.hpp"
"$1" $flags -I "$3/include" "$2/tests/compile/config_source/compare.cpp" -o "$3/compare"
"$3/compare"
