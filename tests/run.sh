#!/bin/sh
# Installs what is missing, builds everything and runs all tests. Arguments go to CMake, e.g. -DCHIMERA_GOLDENS=DIR.
set -eu
cd "$(dirname "$0")/.."

sh cmake/install-missing.sh g++ cmake ninja-build ccache pkg-config clang-16 libclang-rt-16-dev libc++-16-dev \
  libc++abi-16-dev clang-format-16 clang-tidy-16 libboost-dev libcli11-dev doctest-dev libeigen3-dev libpcre2-dev \
  libxsimd-dev nlohmann-json3-dev zlib1g-dev g++-aarch64-linux-gnu qemu-user-static
export CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_SLOPPINESS=pch_defines,time_macros
jobs=$(nproc)

say() { printf '\n== %s\n' "$*"; }

say "Release build, g++"
cmake --preset release -DCMAKE_COMPILE_WARNING_AS_ERROR=ON "$@"
cmake --build --preset release
ctest --preset release -j "$jobs"

say "Each header alone"
cmake --preset headers "$@"
cmake --build --preset headers

say "Sanitizers, clang++"
cmake --preset asan -DCMAKE_COMPILE_WARNING_AS_ERROR=ON "$@"
cmake --build --preset asan
ctest --preset asan -j "$jobs"

say "Layout of the code"
find include tests examples bench -name '*.[ch]pp' -print0 | xargs -0 -n 50 -P "$jobs" clang-format-16 --dry-run -Werror

say "clang-tidy"
printf '%s\n' tests/embed/host.cpp examples/train.cpp |
  xargs -P "$jobs" -I FILE clang-tidy-16 --quiet --warnings-as-errors='*' FILE -- -std=c++20 -I include
say "All tests passed"
