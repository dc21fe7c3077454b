#!/bin/sh
# run.sh COMPILER CHIMERA OBJECT: compiles packed products for all levels of x86 into OBJECT, and looks for instructions.
set -eu
compiler=$1 chimera=$2 object=$3
"$compiler" -std=c++20 -O2 -I "$chimera/include" -c "$chimera/tests/instructions/levels.cpp" -o "$object"
objdump -dC --no-show-raw-insn "$object" >"$object.txt"

count() { # count LEVEL PATTERN: lines of that pattern in functions of that level
  awk -v level="packed_$1::" -v pattern="$2" \
    '/^[0-9a-f]+ </ { inside = index($0, level) } inside && $0 ~ pattern { ++n } END { print n + 0 }' "$object.txt"
}
has() { test "$(count "$1" "$2")" -gt 0 || { echo "packed_$1 has no $2"; exit 1; }; }
lacks() { test "$(count "$1" "$2")" -eq 0 || { echo "packed_$1 has $2"; exit 1; }; }

has base 'mulps'
lacks base '%[yz]mm'
has avx2 'vpmaddubsw .*%ymm'
lacks avx2 '%zmm|vpdpbusd'
has avx_vnni '[{]vex[}] vpdpbusd .*%ymm'
lacks avx_vnni '%zmm|vpmaddubsw'
has avx512 'vpmaddubsw .*%zmm'
lacks avx512 'vpdpbusd'
has avx512_vnni 'vpdpbusd .*%zmm'
lacks avx512_vnni 'vpmaddubsw'
has avx512_bf16 'vdpbf16ps .*%zmm'

# g++ has taken vectors apart and put them together lane by lane.
for level in avx2 avx_vnni avx512 avx512_vnni avx512_bf16; do
  lacks "$level" 'vunpcklps|valignd|vpinsrd|vinsertps'
done
