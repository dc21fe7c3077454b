# Models go from form to form and write the same text in each.
. "$(dirname "$0")/common.sh"
expect 0 'saved' chimera-train $small --data "$text" --out run --steps 4 --validation-interval 0
says() { chimera-generate --model "$1" --prompt "struct" --tokens 30 --seed 5 --threads 1 2>/dev/null; }
says run >text
[ -s text ] || wrong 'the run writes no text' text

expect 0 'wrote run.gguf' chimera-convert run run.gguf
expect 0 'wrote folder' chimera-convert run.gguf folder/
expect 0 'wrote back.gguf' chimera-convert folder back.gguf --name run
expect 0 'wrote again.chimera' chimera-convert back.gguf again.chimera
check 'the same bytes after all forms' cmp run.gguf back.gguf
for model in run.gguf folder back.gguf again.chimera; do
  says $model >other
  check "$model writes the run's text" cmp text other
done
for file in config.json model.safetensors tokenizer.json tokenizer_config.json generation_config.json README.md; do
  check "folder/$file" test -s folder/$file
done
check 'the card tells of the run' grep -q 'validation loss after update 4' run.gguf.md
check 'chimera-info reads a GGUF file' chimera-info --model run.gguf
check 'chimera-info reads a folder' chimera-info --model folder

for format in f16 bf16 q8_0 q4_k_m; do
  expect 0 'wrote small.gguf' chimera-convert run small.gguf --format $format --force
  says small.gguf >other
  check "$format writes something" test -s other
done

expect 0 'saved' chimera-train $small --config griffin-nano --data "$text" --out griffin --steps 1 --validation-interval 0
expect 0 'llama.cpp cannot run this model' chimera-convert griffin griffin.gguf
says griffin >text
says griffin.gguf >other
check 'a model of our own architecture comes back' cmp text other
expect 1 'its recurrent_gemma has a bias of attention' chimera-convert griffin x/
# A tokenizer that joins "st" and "ru" goes with the model from training on; training begins with any model's weights.
mkdir words
sed -e 's|"merges": \[|"merges": [["s", "t"], ["r", "u"]|' -e 's|"vocab": {|"vocab": {"st": 265, "ru": 266, |' \
  folder/tokenizer.json >words/tokenizer.json
expect 0 'saved' chimera-train $small --data "$text" --tokenizer words --out bpe --steps 4 --validation-interval 0
check 'the run keeps its tokenizer' test -s bpe/tokenizer.json
expect 0 'prompt: 4 tokens' chimera-generate --model bpe --prompt struct --tokens 2
expect 0 'wrote bpe.gguf' chimera-convert bpe bpe.gguf
expect 0 'prompt: 4 tokens' chimera-generate --model bpe.gguf --prompt struct --tokens 2
expect 0 'wrote moved/bpe.chimera' chimera-convert bpe.gguf moved/bpe.chimera
expect 0 'prompt: 4 tokens' chimera-generate --model moved/bpe.chimera --prompt struct --tokens 2
expect 0 'saved' chimera-train --batch 1 --context 32 --data "$text" --from bpe.gguf --out more --steps 2
expect 0 'prompt: 4 tokens' chimera-generate --model more --prompt struct --tokens 2
expect 2 'excludes' chimera-train $small --data "$text" --from bpe.gguf --out other
expect 2 'excludes' chimera-train --resume --out more --tokenizer words
expect 1 'holds a run' chimera-train $small --data "$text" --tokenizer words --out more --steps 2

printf 'What is there is not lost\n'
cp run.gguf kept.gguf
ln -s run.gguf link.gguf
ln run.gguf twin.gguf
expect 1 'run.gguf exists: --force writes over it' chimera-convert folder run.gguf
expect 1 'the folder folder is not empty: --force writes over it' chimera-convert run folder
for out in run.gguf ./run.gguf link.gguf twin.gguf; do
  expect 1 'IN and OUT are the same' chimera-convert run.gguf $out --force
done
ln -s folder other-name
expect 1 'IN and OUT are the same' chimera-convert folder other-name --force
expect 1 'IN and OUT are the same' chimera-convert run run/ --force
expect 1 'IN lies in the folder run' chimera-convert run/checkpoint-000004.chimera run --force
expect 1 'tokenizer.json exists: --force' chimera-convert run bpe/x.chimera
check 'the file is as it was' cmp run.gguf kept.gguf
printf 'old' >old.gguf
expect 1 'old.gguf exists' chimera-convert run old.gguf
expect 0 'wrote old.gguf' chimera-convert run old.gguf --force
mkdir 'a folder'
expect 0 "wrote 'a folder/x.gguf'" chimera-convert run 'a folder/x.gguf'

expect 1 'found q7' chimera-convert run x.gguf --format q7
expect 1 'F32, F16 or BF16' chimera-convert run x/ --format q8_0
expect 1 'nothing' chimera-convert nothing x.gguf
expect 2 'required' chimera-convert run
head -c 1000 run.gguf >cut.gguf
expect 1 'cut.gguf' chimera-convert cut.gguf x.gguf
expect 1 'cut.gguf' chimera-generate --model cut.gguf
check 'nothing half-written is left' sh -c '! ls x.gguf x *.partial 2>/dev/null'
finish
