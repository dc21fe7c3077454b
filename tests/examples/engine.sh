# A model whose shape is not compiled in is compiled once and kept; whatever is wrong is said.
. "$(dirname "$0")/common.sh"
unset CHIMERA_INCLUDE CHIMERA_CPU
test_compiler=${CXX:-}
[ -n "$test_compiler" ] || unset CXX
engines=$XDG_CACHE_HOME/chimera/engines
odd_model odd.gguf >want || exit 1
generate="chimera-generate --temperature 0 --tokens 40 --prompt The. --model"
kept() { find "$engines" -name '*.so' 2>/dev/null | wc -l; }

# compiler NAME SCRIPT: a compiler that does as the script says
compiler() {
  printf '#!/bin/sh\n%s\n' "$2" >"$1"
  chmod +x "$1"
}

printf 'No compiler, no headers\n'
export CXX=/no/compiler
expect 1 'CXX names no program that can be run: /no/compiler; install g++' $generate odd.gguf
unset CXX
check 'without any compiler it says what to install' sh -c \
  "! PATH=/nowhere '$programs/chimera-generate' --model odd.gguf 2>none && grep -q 'there is no C++ compiler.*install g++' none"
export CXX='g++; touch hacked; true'
expect 1 'CXX names no program' $generate odd.gguf
compiler broken 'if [ "$1" = --version ] || [ "$2" = --version ]; then echo 1; else echo "x.cpp:1: error: out of luck" >&2; exit 1; fi'
export CXX="./broken -x"
expect 1 'cannot compile an engine .*out of luck.*all it said is in .*\.log' $generate odd.gguf
check 'the log is kept' grep -q 'out of luck' "$engines"/*.log
compiler lazy 'echo 1'
export CXX=./lazy
expect 1 'wrote no engine' $generate odd.gguf
check 'nothing else is kept' test "$(ls "$engines" | wc -l)" -eq 1
rm "$engines"/*
unset CXX
export CHIMERA_INCLUDE=/nowhere
expect 1 'CHIMERA_INCLUDE is /nowhere, which has no' $generate odd.gguf
cp -r "${text%/chimera/*}" later # the text is one of the headers
sed -i 's/double sum = 0;/float sum = 0, more = 0;/' later/chimera/core/batch.hpp
export CHIMERA_INCLUDE=$work/later
expect 1 'headers in .*/later are not those that this program was built from' $generate odd.gguf
unset CHIMERA_INCLUDE

printf 'A cache that others could write to\n'
chmod o+w "$engines"
expect 1 'others can write to it; .*chmod go-w' $generate odd.gguf
chmod o-w "$engines"
mv "$engines" elsewhere
ln -s "$work/elsewhere" "$engines"
expect 1 'it is no folder' $generate odd.gguf
rm "$engines"

printf 'Compiled once, by two programs at the same time\n'
[ -z "$test_compiler" ] || export CXX="$test_compiler"
$generate odd.gguf >first 2>first.log &
expect 0 'compiling one with' $generate odd.gguf
cp stdout second
wait $!
check 'the other one succeeds, too' test $? -eq 0
check 'both write the text of the model' sh -c 'cmp first second && cmp second want'
check 'one engine is kept, and nothing else' sh -c "test \"\$(ls '$engines' | wc -l)\" -eq 1 && ls '$engines' | grep -q '[.]so\$'"
check 'for its owner alone' sh -c "test \"\$(stat -c %a '$engines' '$engines'/*.so | tr '\n' ' ')\" = '700 600 '"
expect 0 'tok/s' $generate odd.gguf --threads 3
check 'then it is used' sh -c '! grep -q compil stderr && cmp stdout want'
mkdir 'folder $(touch hacked)'
cp odd.gguf 'folder $(touch hacked)/`touch hacked`.gguf'
check 'names are no commands' chimera-generate --model 'folder $(touch hacked)/`touch hacked`.gguf' --tokens 2
check 'none was run' test ! -e hacked
check 'chimera-info tells of it' chimera-info --model odd.gguf

printf 'A damaged engine\n'
cp "$engines"/*.so good.so
head -c 20000 /dev/urandom >"$engines/$(ls "$engines")"
expect 0 'compiling it again' $generate odd.gguf
check 'the text is that of the model' cmp stdout want
check 'one engine is kept' test "$(kept)" -eq 1
finish
