# A game in which a model speaks: it can play alone and without a terminal, and says how long its frames took.
. "$(dirname "$0")/common.sh"
PATH=$programs/game_loop:$PATH

played() { # played WHO FRAMES FLAGS...
  who=$1 frames=$2
  shift 2
  game_loop --frames "$frames" "$@" >stdout 2>stderr </dev/null || wrong "$who"
  check "$who: a line for each millisecond" grep -q '^   [0-9]-[0-9]  *[1-9]' stdout
  check "$who: how many were late" grep -q "^frames: mean .*, worst .*, over 16.7 ms: [0-9]* of $frames " stdout
  check "$who: what was said" grep -q '[1-9][0-9]* tokens read and [1-9][0-9]* spoken, [1-9][0-9]* tok/s' stdout
}

expect 0 'saved' chimera-train $small --steps 2 --data "$text" --out run
# More time than the words need by far: others may have the processor.
played 'a murmur' 60 --budget 20
played 'a model' 60 --model run --budget 20 --temp 0
expect 1 'expected a terminal to play on, or --frames' game_loop
expect 1 'no such file or folder' game_loop --model nowhere
expect 2 'budget' game_loop --frames 1 --budget 0
expect 2 'threads' game_loop --frames 1 --threads -1
finish
