# Whatever is wrong, a program says so in one sentence, ends with a code other than 0, and loses nothing.
. "$(dirname "$0")/common.sh"
train="chimera-train $small --steps 2 --data $text --out"

printf 'Flags\n'
expect 2 'is required' chimera-train --data "$text"
expect 2 'colour' chimera-train --out run --colour red
expect 2 'steps' chimera-train --out run --steps many
expect 2 'expected one of cosine, wsd, wsd-sqrt, found square' chimera-train --out run --schedule square
expect 2 'minutes' chimera-train --out run --steps 5 --minutes 1
expect 2 'is required' chimera-generate
expect 2 'required' chimera-info
check '--help names the flags' sh -c 'chimera-train --help | grep -q -e --validation-fraction'
expect 1 'steps must be at least 1, found 0' $train run --steps 0
expect 1 'learning_rate must be positive' $train run --lr -1
expect 1 'label_smoothing must be at least 0 and below 1, found 1' $train run --label-smoothing 1
expect 1 'z_loss must not be negative, found -1' $train run --z-loss -1
expect 1 'batch must be between' $train run --batch 99999999
expect 2 'no config is named "nanno": did you mean nano' $train run --config nanno
expect 1 'no config is named "x"' chimera-info --config x
expect 1 'no recipe is named "cake"' $train run --recipe cake
check 'nothing was written' test ! -e run

printf 'Data\n'
expect 1 'name a text file with --data' chimera-train --out run
expect 1 'cannot open missing.txt: No such file' $train run --data missing.txt
: >empty.txt
expect 1 'the file is empty' $train run --data empty.txt
printf 'abc\000def' >binary
expect 1 'found binary data' $train run --data binary
if truncate -s 50G huge 2>/dev/null; then expect 1 'found binary data' $train run --data huge; fi
mkdir folder
expect 1 'expected token shards' $train run --data folder
expect 1 'cannot' $train run --data /dev/null
head -c 40 "$text" >short.txt
expect 1 'a context of 64 tokens needs at least 65 tokens to train on, found 36' $train run --data short.txt --context 64
expect 1 "context must be at most the model's 1024" $train run --context 2000
head -c 20000 /dev/urandom | tr -d '\000' >noise.txt
expect 0 'saved' $train noise --data noise.txt
check 'text of any bytes is trained on, and what comes out is UTF-8' sh -c '
  chimera-generate --model noise --tokens 60 --temperature 2 --top-k 0 --top-p 1 --min-p 0 >text && iconv -f utf-8 -t utf-8 text'

printf 'Output\n'
expect 1 'Not a directory' $train /dev/null/run
expect 1 'it is a file' $train empty.txt
if [ "$(id -u)" -ne 0 ]; then
  mkdir -m 500 locked
  expect 1 'Permission denied' $train locked/run
fi
memory=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
if [ "$memory" -lt 150 ]; then expect 1 'use a smaller --config' $train run --config strategic-13b; fi
if [ "$memory" -lt 100 ]; then expect 1 'use a smaller --batch' $train run --batch 500000; fi

printf 'Checkpoints\n'
expect 0 'saved' $train run
expect 1 'holds a run: continue it with' $train run
expect 1 'cannot resume: cannot open' chimera-train --resume --out nowhere
expect 1 'it is a checkpoint of config nano, the model is tiny' chimera-train --resume --out run --config tiny
expect 1 'no such file or folder' chimera-generate --model nowhere
expect 1 'has no checkpoint' chimera-generate --model folder
expect 1 'it is no chimera checkpoint' chimera-generate --model "$text"
file=run/checkpoint-000002.chimera
head -c 5000 $file >cut
expect 1 'it was cut short' chimera-generate --model cut
for offset in 20 400 900 200000 9000000; do
  cp $file flipped
  byte=$(od -An -tu1 -j $offset -N1 $file | tr -d ' ')
  printf "\\$(printf %03o $((255 - byte)))" | dd of=flipped bs=1 seek=$offset conv=notrunc 2>dd
  cmp -s $file flipped && wrong "byte $offset was not flipped"
  expect 1 'cannot load flipped' chimera-info --model flipped
done

printf 'A full disk\n'
cp $file before
(
  trap '' XFSZ
  ulimit -f 4000
  chimera-train --resume --out run --steps 4 >stdout 2>stderr
  echo $? >code
)
check 'a checkpoint that cannot be stored ends the run' test "$(cat code)" -eq 1
check 'the message names the file' grep -q '^chimera-train: cannot write run/checkpoint-000004.chimera: ' stderr
check 'the old checkpoint is as it was' cmp $file before
check 'no other file is left' test "$(ls run | grep -c checkpoint)" -eq 1
expect 0 'resumed from run/checkpoint-000002' chimera-train --resume --out run --steps 4

printf 'A damaged checkpoint is passed over\n'
cp run/checkpoint-000004.chimera newest
head -c 100000 newest >run/checkpoint-000004.chimera
expect 0 'resumed from run/checkpoint-000002' chimera-train --resume --out run --steps 4

printf 'Numbers that are none\n'
expect 1 'steps in a row were skipped' chimera-train $small --data "$text" --out nan --steps 200 --lr 1e6 --warmup 0 --clip 0
check 'each skipped update is told' grep -q 'update skipped, 3 so far' stderr
check 'and counted' grep -q '^[0-9]* updates were skipped' stderr

printf 'Prompts\n'
expect 1 'the prompt has 1025 tokens, the context of nano holds 1024' chimera-generate --model run --prompt "$(printf '%01025d' 0)"
expect 0 'the context of 1024 tokens is full' chimera-generate --model run --prompt "$(printf '%01020d' 0)" --tokens 50
expect 0 'tok/s' chimera-generate --model run --tokens 3
expect 1 'top_p must be above 0' chimera-generate --model run --top-p 2
expect 1 'temperature must be a number' chimera-generate --model run --temperature nan
expect 1 'dry_base must be 1 or more, found 0' chimera-generate --model run --dry-base 0
expect 1 'a logit bias is ID+BIAS or ID-BIAS, found 7' chimera-generate --model run --logit-bias 7
expect 1 'is for a token of the vocabulary of 512, found token 512' chimera-generate --model run --logit-bias 512+1
expect 1 'a stop string has 1 to 256 bytes, found 0' chimera-generate --model run --stop ''
expect 1 'a search has 1 to 64 beams, found 0' chimera-generate --model run --beams 0
expect 0 'tok/s' chimera-generate --model run --beams 3 --tokens 3
finish
