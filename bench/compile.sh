#!/bin/sh
# What the compiler costs: seconds, peak memory and machine code of a host that only runs a model, of an engine, and of
# the trainer at -O3; with CHIMERA_EXTERN what depends on no config is left to chimera::compiled.
# usage: compile.sh [COMPILER]
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
echo '#include <chimera/inference.hpp>' >"$work/inference.cpp"
cat >"$work/engine.cpp" <<'END' # as examples/engine.cpp has it
#include <chimera/model/engine.hpp>
#include <chimera/model/language_model.hpp>
static constexpr chimera::Config config{.vocab = 512, .width = 64, .layers = chimera::pattern("M R A", 6),
                                        .attention = {.heads = 2}, .mamba2 = {.head_dim = 32, .state = 16},
                                        .ffn = {.hidden = 128}};
static constexpr chimera::Engine engine{chimera::inference_model<config>("custom")};
extern "C" __attribute__((visibility("default"))) const chimera::Engine* chimera_engine() { return &engine; }
END
measure 'chimera.hpp alone, -O2' -O2 "$work/empty.cpp"
measure 'inference.hpp alone, -O2' -O2 "$work/inference.cpp"
measure 'the same, CHIMERA_EXTERN' -O2 -DCHIMERA_EXTERN "$work/inference.cpp"
measure 'chimera::compiled, once, -O2' -O2 -ffunction-sections -DCHIMERA_EXTERN -DCHIMERA_COMPILE cmake/compiled.cpp
measure 'host that runs a model, -O2' -O2 tests/embed/host.cpp
measure 'the same, CHIMERA_EXTERN' -O2 -DCHIMERA_EXTERN tests/embed/host.cpp
measure 'the same, -O0' -O0 -DCHIMERA_EXTERN tests/embed/host.cpp
measure 'engine for a shape (M, R and A)' -O2 -DNDEBUG -fPIC -w -fno-exceptions -fno-rtti -fvisibility=hidden \
  -DCHIMERA_EXTERN "$work/engine.cpp"
measure 'trainer: train.cpp, -O3' -O3 -DCHIMERA_EXTERN examples/train.cpp
measure 'trainer: registry.cpp, -O3' -O3 -DCHIMERA_EXTERN examples/registry.cpp
