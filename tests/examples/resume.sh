# A run that is stopped and resumed ends with the bits of one that is not.
. "$(dirname "$0")/common.sh"
train="chimera-train $small --data $text --validation-interval 60 --steps 300"
last=checkpoint-000300.chimera

arenas() { learned "$1/$last"; }

# stop_after STEP SIGNAL FOLDER COMMAND...: what the command prints is in stderr, its exit code in $code.
stop_after() {
  step=$1 signal=$2 folder=$3
  shift 3
  "$@" >stdout 2>stderr &
  process=$!
  while kill -0 $process 2>/dev/null && [ "$(grep -c . "$folder/metrics.jsonl" 2>/dev/null || true)0" -lt "${step}0" ]; do
    sleep 0.02
  done
  kill -"$signal" $process
  wait $process
  code=$?
}

expect 0 "saved whole/$last" $train --out whole
check 'the last line is the validation loss' sh -c 'tail -n 1 stdout | grep -qx "val loss [0-9.]*"'
cp stdout whole.txt

stop_after 40 INT parts $train --out parts
check 'SIGINT ends a run with code 0' test $code -eq 0
check 'which says how to go on' grep -q '^stopped at step .*; continue with chimera-train --resume --out parts$' stderr
check 'and saves' test "$(ls parts | grep -c checkpoint)" -eq 1
check 'but is not finished' test ! -e "parts/$last"
stop_after 130 TERM parts chimera-train --resume --out parts
check 'SIGTERM too' test $code -eq 0 -a ! -e "parts/$last"
expect 0 'resumed from parts/' chimera-train --resume --out parts
check 'the same validation loss' cmp stdout whole.txt
arenas whole >whole.bits
arenas parts >parts.bits
check 'the same bits' cmp whole.bits parts.bits
check 'each step is in the metrics once' sh -c \
  'test "$(grep -c "\"loss\"" parts/metrics.jsonl)" -eq 300 && test "$(grep -c validation_loss parts/metrics.jsonl)" -eq 5'
check 'the curve is drawn' grep -q '</svg>' parts/loss.svg

expect 0 'the run is complete' chimera-train --resume --out parts
check 'a complete run tells its validation loss again' cmp stdout whole.txt

expect 0 'tok/s' chimera-generate --model parts --prompt 'struct' --seed 7 --tokens 50
cp stdout seven.txt
expect 0 'tok/s' chimera-generate --model "parts/$last" --prompt 'struct' --seed 7 --tokens 50 --threads 1
check 'a seed gives one text' cmp stdout seven.txt
check 'a run by the clock ends' timeout 60 chimera-train $small --data "$text" --out clock --minutes 0.05
finish
