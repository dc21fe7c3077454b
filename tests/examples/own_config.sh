# A model of any shape is trained, by an engine that is compiled for it, and used by the other programs.
. "$(dirname "$0")/common.sh"
unset CHIMERA_INCLUDE CHIMERA_CPU
engines=$XDG_CACHE_HOME/chimera/engines
train="chimera-train --data $text --batch 1 --context 32 --validation-tokens 64 --steps 2"
kept() { find "$engines" -name '*.so' 2>/dev/null | wc -l; }

printf 'What is wrong is said before anything is compiled, and nothing is written\n'
export CXX=/no/compiler
refused() {
  pattern=$1
  shift
  expect 2 "$pattern" $train --out run --config "$@"
}
refused 'no config is named "nanno": did you mean nano' nanno
refused 'no field is named "colour"; there are count (of layers), vocab, width' nano colour=3
refused 'which head_dim: attention.head_dim or mamba2.head_dim or span_knot.head_dim' nano head_dim=3
refused 'width takes a whole number, found "2 56"' nano 'width=2 56'
refused 'width takes a whole number, found "99999999999999999999"' nano width=99999999999999999999
refused 'width takes a whole number, found ""' nano width=
refused 'width must be at least 1' nano width=-1
refused 'width must be a multiple of attention.heads' nano width=130
refused 'head_dim must be between 1 and 256' nano width=1073741824
refused 'inner widths must be at most 131072' nano hidden=1073741824
refused 'layers takes words of A M R GD XM SK TM, found "A Q"' nano 'layers=A Q'
refused 'layers takes 1 to 256 words' nano layers=
refused 'layers takes 1 to 256 words' nano count=257
refused 'layers takes 1 to 256 words' nano count=2000000000
refused 'position takes one of none, rope, alibi, found "rope); system("' nano 'attention.position=rope); system('
refused 'tied takes true or false' nano tied=yes
refused 'norm_eps takes a number, found "nan"' nano norm_eps=nan
refused 'rope.short_factor takes up to 128 numbers, found "1 x"' nano 'rope.short_factor=1 x'
refused 'cannot open none.hpp' none.hpp
refused 'attention.heads must be at least 1' width=64 layers=A hidden=64
expect 1 'use a smaller --config' $train --out run --config nano layers=R width=131072 rg_lru.inner=131072 rg_lru.heads=512 count=256 vocab=2147483647
expect 1 'no model of this shape is compiled in, .* CXX names no program' $train --out run --config nano width=64
check 'no folder is there' test ! -e run
unset CXX

printf 'A shape of words, after a tokenizer of its own\n'
chimera-tokenize train --vocab 333 --input "$text" --out words.json >/dev/null 2>&1
tokens=$(chimera-tokenize stats --tokenizer words.json --input "$text" | sed -n 's/^vocabulary: \([0-9]*\) ids.*/\1/p')
shape='width=48 count=2 heads=3 kv_heads=1 hidden=40'
own() { $train --config nano 'layers=R A' $shape rg_lru.heads=2 rg_lru.inner=40 --tokenizer words.json --out "$1"; }
expect 0 'compiling one with .* to train it' own run
check 'the vocabulary is that of the tokenizer' grep -qx "model.vocab $tokens" run/run.txt
check 'and the shape is that of the words' grep -qx 'model.layers R A' run/run.txt
check 'one engine is kept' test "$(kept)" -eq 1
expect 0 'saved again' own again
check 'it is not compiled again' sh -c '! grep -q compil stderr'
for run in run again; do learned $run/checkpoint-000002.chimera >$run.bits; done
check 'the weights are the same bits' cmp run.bits again.bits
expect 0 'resumed from run/' chimera-train --resume --out run --steps 3
check 'by the same engine' sh -c "! grep -q compil stderr && test $(kept) -eq 1"
expect 0 'compiling one with .* to run it' chimera-generate --model run --prompt 'The ' --tokens 5
expect 0 '' chimera-convert run run.gguf
expect 0 'saved more/' $train --from run.gguf --out more --steps 1
check 'a file of any shape is trained on, by the engine that is there' sh -c "! grep -q compil stderr && test $(kept) -eq 2"
check 'with its tokenizer' cmp run/tokenizer.json more/tokenizer.json
expect 1 'has .* tokens, the model 300' $train --config nano vocab=300 --tokenizer words.json --out small
check 'a run that fails leaves no folder' test ! -e small

printf 'A shape in a header\n'
chimera-config run --name 'mine' --out 'my "config.hpp' 2>/dev/null
expect 0 'saved third/' $train --config 'my "config.hpp' --tokenizer words.json --out third --steps 1
check 'it is the same shape' sh -c "! grep -q compil stderr && grep -q '^config mine$' third/run.txt"
printf 'int main() {}\n' >none.hpp
expect 2 'none.hpp must define one chimera::Config' $train --config none.hpp --out run4
printf '#include <chimera/chimera.hpp>\nusing namespace chimera;\ninline constexpr Config mine{.wide = 3};\n' >wrong.hpp
expect 2 'cannot compile wrong.hpp: .*wide' $train --config wrong.hpp --out run4

printf 'A run that fails leaves what was there\n'
mkdir -p parent/run
echo mine >parent/run/notes.txt
head -c 20 "$text" >short.txt
expect 1 'needs at least 33 tokens' $train --config nano --data short.txt --out parent/run
check 'and nothing else' test "$(ls parent/run)" = notes.txt
expect 1 'needs at least 33 tokens' $train --config nano --data short.txt --tokenizer words.json --out parent/a/b
check 'no folder above it either' test "$(ls parent)" = run
expect 1 'steps in a row were skipped' $train --config nano --out nan --steps 200 --lr 1e6 --warmup 0 --clip 0
check 'a run without a checkpoint is no run' test ! -e nan

printf 'Samples\n'
expect 0 'it writes:' $train --config nano --out shown --steps 30 --sample-every 0.01 -p 'The '
expect 0 'saved' $train --config nano --out unseen --steps 30
for run in shown unseen; do learned $run/checkpoint-000030.chimera >$run.bits; done
check 'change no bit' cmp shown.bits unseen.bits
finish
