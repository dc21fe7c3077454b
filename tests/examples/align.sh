#!/bin/sh
# A trained model learns to answer; what cannot be used is told, and a run that was stopped ends as one that was not.
. "$(dirname "$0")/common.sh"

expect 0 'saved' chimera-train $small --data "$text" --steps 1 --out base
i=0
while [ $i -lt 40 ]; do
  i=$((i + 1))
  printf '{"messages": [{"role": "user", "content": "ask %s"}, {"role": "assistant", "content": "say %s"}]}\n' $i $((i % 3))
done >talk.jsonl
printf '{"prompt": "x", "completion": ""}\nnot json\n' >>talk.jsonl
gzip -k talk.jsonl
sft="chimera-align sft --model base --data talk.jsonl.gz --batch 2 --context 64 --lr 2e-3 --checkpoint-interval 4"

expect 0 'note: 2 of 42 records cannot be used; the first: .*/talk.jsonl.gz, record 41: the answer is empty' $sft --out whole --epochs 4
check 'says what it learns from' grep -q '38 conversations, .* answers; 2 held out, .*; template chatml' stderr
check 'the last line is the validation loss' sh -c 'tail -n 1 stdout | grep -qx "val loss [0-9.]*"'
cp stdout whole.txt
last=$(ls whole | grep checkpoint | sort | tail -n 1)
check 'the curve is drawn' grep -q '</svg>' whole/loss.svg
check 'the template is in the folder' grep -q 'im_start' whole/tokenizer_config.json whole/chat_template.jinja
cp -r whole parts
rm "parts/$last"
expect 0 'resumed from parts/' chimera-align sft --resume --out parts
check 'the same validation loss' cmp stdout whole.txt
for run in whole parts; do learned "$run/$last" >$run.bits; done
check 'the same bits' cmp whole.bits parts.bits
expect 0 'the run is complete' chimera-align sft --resume --out whole
expect 0 'tok/s' chimera-generate --model whole --prompt 'ask 3' --tokens 8

expect 1 'record 41: the answer is empty' $sft --out strict --strict
check 'a run that failed leaves no folder' test ! -e strict
expect 1 'holds a run' $sft --out whole
expect 1 'no model to teach' chimera-align sft --data talk.jsonl --out x
expect 1 'name files with --data' chimera-align sft --model base --out x
expect 1 'cannot open none.jsonl' chimera-align sft --model base --data none.jsonl --out x
expect 1 'expected the template chatml' $sft --template jinja --out x
expect 1 "has no <|start_header_id|>" $sft --template llama3 --out x
head -c 100 talk.jsonl.gz >cut.gz
expect 1 'damaged, or cut short' chimera-align sft --model base --data cut.gz --out x
expect 1 'holds a run of chimera-train' chimera-align sft --resume --out base

i=0
while [ $i -lt 24 ]; do
  i=$((i + 1))
  printf '{"prompt": "ask %s", "chosen": "yes %s", "rejected": "no"}\n' $i $i
done >pairs.jsonl
printf '{"prompt": "x", "chosen": "same", "rejected": "same"}\n' >>pairs.jsonl
dpo="chimera-align dpo --model whole --data pairs.jsonl --held-out pairs.jsonl --batch 4 --context 64 --lr 1e-3 --checkpoint-interval 6"
expect 0 'of 24 pairs held out 100.0 % are the right way round' $dpo --out preferred
check 'the pair that cannot be used is named' grep -q 'pairs.jsonl, record 25: the two answers are equal' stderr
cp stdout preferred.txt
last=$(ls preferred | grep checkpoint | sort | tail -n 1)
cp -r preferred half
rm "half/$last"
expect 0 'resumed from half/' chimera-align dpo --resume --out half
check 'the same validation loss' cmp stdout preferred.txt
for run in preferred half; do learned "$run/$last" >$run.bits; done
check 'the same bits' cmp preferred.bits half.bits
check 'the metrics have the accuracy' grep -q '"validation_accuracy":1' preferred/metrics.jsonl
expect 1 'holds a run of chimera-align dpo: continue it with that' chimera-align sft --resume --out preferred
cp preferred/reference_held_out.safetensors half/reference.safetensors
expect 0 'the run is complete' chimera-align dpo --resume --out half # the same pairs, the same model
printf '{"prompt": "other", "chosen": "yes", "rejected": "no"}\n' >>pairs.jsonl
expect 1 'the reference is of other pairs' chimera-align dpo --resume --out half
expect 1 'expected an even --batch' $dpo --batch 3 --out x

lora="chimera-align sft --model base --data talk.jsonl.gz --lora 4 --batch 2 --context 64 --checkpoint-interval 4"
expect 0 'text: chimera-generate --model .*base --lora adapted' $lora --lora-dropout 0.1 --out adapted --epochs 2
last=$(ls adapted | grep checkpoint | sort | tail -n 1)
cp -r adapted rest
rm "rest/$last"
expect 0 'resumed from rest/' chimera-align sft --resume --out rest
for run in adapted rest; do learned "$run/$last" >$run.bits; done
check 'adapters have the same bits' cmp adapted.bits rest.bits
check 'and their files do' cmp adapted/adapter.gguf rest/adapter.gguf
greedy="--prompt ask --tokens 8 --temperature 0"
expect 0 'wrote merged.chimera' chimera-convert base merged.chimera --merge adapted
expect 0 'tok/s' chimera-generate --model merged.chimera $greedy
cp stdout merged.txt
expect 0 'tok/s' chimera-generate --model base --lora adapted $greedy
check 'beside the model and merged they write the same' cmp stdout merged.txt
expect 0 'tok/s' chimera-generate --model base --lora adapted/adapter.gguf:0 $greedy
cp stdout none.txt
expect 0 'tok/s' chimera-generate --model base $greedy
check 'counted with zero they are none' cmp stdout none.txt
expect 1 'it has adapters alone' chimera-generate --model adapted
expect 1 'expected an adapter' chimera-generate --model base --lora base
expect 1 'no matrix of .* is called query' $lora --targets query --out x

# QLoRA: the base is held in NF4, or as a file has it, and a run that goes on has the bits of one that did not stop.
qlora="chimera-align sft --model base --data talk.jsonl.gz --qlora --batch 2 --context 64 --steps 4 --checkpoint-interval 2"
expect 0 'text: chimera-generate --model .*base --lora in_nf4' $qlora --out in_nf4
cp -r in_nf4 stopped
rm stopped/checkpoint-000004.chimera
expect 0 'resumed from stopped/checkpoint-000002' chimera-align sft --resume --out stopped
check 'adapters beside NF4 have the same bits' cmp in_nf4/adapter.gguf stopped/adapter.gguf
expect 0 'wrote' chimera-convert base base_q8.gguf --format q8_0
expect 0 'text: chimera-generate' chimera-align sft --model base_q8.gguf --data talk.jsonl.gz --lora 4 --base-format file --batch 2 --context 64 --steps 2 --out beside_file
expect 2 '--base-format requires --lora' $sft --base-format nf4 --out x
expect 0 'pairs held out' chimera-align dpo --model base --data pairs.jsonl --held-out pairs.jsonl --lora 2 --targets ffn --rslora --batch 4 --context 64 --steps 2 --out preferred_lora
cp -r whole/checkpoint* base
expect 1 'are for a base with the checksum' chimera-align sft --resume --out adapted --steps 100
expect 2 'expected one of sigmoid, conservative, robust, ipo, found hinge' $dpo --loss hinge --out x

# What its own answers earn. Problems come from a seed, so no file is needed.
check 'as many problems as asked for' sh -c 'chimera-align arithmetic --count 3 --hindi 1 | grep -c "\"answer\":" | grep -qx 3'
write="--group 4 --batch 4 --accumulation 2 --context 64 --completion 8 --no-instruction --held-out-problems 4 --lr 1e-3"
grpo="chimera-align grpo --model whole $write --operations + --digits 1 --steps 4 --checkpoint-interval 2 --updates 2"
expect 0 'step 4/4  reward .* tok/s written' $grpo --kl 0.1 --reduction dr-grpo --out earned
check 'the last line is what is held out' sh -c 'tail -n 1 stdout | grep -qx "held-out reward [0-9.]*"'
cp stdout earned.txt
check 'the curve is of rewards' grep -q '>reward<' earned/loss.svg
check 'the metrics have the rollouts' grep -q '"rollout_kl":.*"rollout_tokens_per_second":' earned/metrics.jsonl
cp -r earned again
rm again/checkpoint-000004.chimera
expect 0 'resumed from again/' chimera-align grpo --resume --out again
check 'the same reward' cmp stdout earned.txt
for run in earned again; do learned $run/checkpoint-000004.chimera >$run.bits; done
check 'the same bits' cmp earned.bits again.bits
asked="chimera-align grpo --model whole $write --task prompts --data pairs.jsonl --held-out pairs.jsonl --draws 1 --steps 1"
printf '%s\n' 'while read -r line; do n=$((n + 1)); echo $((n % 3)); done' >judge.sh
expect 0 'of 26 problems held out' $asked --reward 'sh judge.sh' --out judged
check 'rewards that differ are a gradient' grep -q '"reward":1.125,' judged/metrics.jsonl
expect 0 'warning: the reward command took longer than 0.3 s; 26 completions earned nothing' \
  $asked --reward 'sleep 60' --reward-seconds 0.3 --out hangs
expect 0 'warning: the reward command wrote 0 numbers for' $asked --reward 'cat >lines.txt' --out silent
check 'it reads a line for each completion' grep -q '^{"prompt":"ask 1","completion":".*","answer":""}$' lines.txt
expect 0 'warning: expected a number of the reward command, found "garbage"' $asked --reward 'yes garbage | head -n 99' --out odd
expect 0 'warning: the reward command ended with code 3' $asked --reward 'exit 3' --out fails
expect 0 'rewards are no numbers and count as 0' $asked --reward 'yes nan | head -n 99' --out nans
expect 1 'name a command with --reward' $asked --out x
expect 1 'whole groups of 4, found 3' $asked --reward true --batch 3 --accumulation 1 --out x
printf '{"question": "how many?", "answer": "many"}\n' >words.jsonl
expect 1 'there is no problem to learn from' chimera-align grpo --model whole $write --task gsm8k --data words.jsonl --out x
expect 1 'operands have 1 to 4 digits' chimera-align arithmetic --least-digits 3
expect 2 'expected one of dapo, grpo, dr-grpo, found mean' $grpo --reduction mean --out x
expect 2 'a command is required' chimera-align
expect 2 'there is no flag --mode: did you mean --model' chimera-align sft --mode x --out x
finish
