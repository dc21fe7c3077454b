#!/bin/sh
# What the compiler costs: seconds, peak memory and machine code of the trainer at -O3 and of a host that only runs a
# model. usage: compile.sh [COMPILER]
set -eu
cd "$(dirname "$0")/.."
sh cmake/install-missing.sh time binutils g++ libboost-dev libcli11-dev
compiler=${1:-g++}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

measure() { # measure NAME FLAGS...
  name=$1
  shift
  /usr/bin/time -f '%e %U %M' -o "$work/cost" "$compiler" -std=c++20 -I include -c -o "$work/object" "$@"
  text=$(size "$work/object" | awk 'NR == 2 { print $1 / 1024 }')
  awk -v name="$name" -v text="$text" \
    '{ printf "%-34s %8.1f %8.1f %10.0f %10.0f\n", name, $1, $2, $3 / 1024, text }' "$work/cost"
}

printf '%-34s %8s %8s %10s %10s\n' "$compiler" 'wall s' 'CPU s' 'peak MiB' 'text KiB'
echo '#include <chimera/chimera.hpp>' >"$work/empty.cpp"
measure 'chimera.hpp alone, -O2' -O2 "$work/empty.cpp"
measure 'host that runs a model, -O2' -O2 tests/embed/host.cpp
measure 'trainer: train.cpp, -O3' -O3 examples/train.cpp
measure 'trainer: registry.cpp, -O3' -O3 examples/registry.cpp
