# chimera-bench and chimera-perplexity: what they print and what they refuse.
. "$(dirname "$0")/common.sh"
expect 0 'saved' chimera-train $small --steps 2 --data "$text" --out run
expect 0 'wrote' chimera-convert run model.gguf --format q8_0

printf 'chimera-bench\n'
bench="chimera-bench --model model.gguf --prompt 20 --generate 5 --repeat 2"
for model in run model.gguf; do
  chimera-bench --model $model --prompt 20 --generate 5 --repeat 1 >stdout
  check "a table: $model" sh -c 'grep -q "pp20 .*% of .*OP/s" stdout && grep -q "tg5 .*% of .*GB/s" stdout'
done
check 'load and first token' grep -q '^loaded after [0-9.]* s, first token after [0-9.]* s, at most .*iB of memory$' stdout
$bench --json --threads 1 >stdout
check 'JSON with figures' sh -c 'grep -q "\"prefill_tps\": [1-9]" stdout && grep -q "\"decode_tps\": [1-9]" stdout && grep -q "\"memory\": [1-9]" stdout'
check 'and the share of the machine' sh -c 'grep -q "\"bandwidth_share\": [0-9]*[.][0-9]" stdout && grep -q "\"format\": \"Q8_0\"" stdout'
check 'and the threads' grep -q '"threads": 1' stdout
$bench --json --no-roofline --generate 0 --repeat 0 >stdout
check 'the first token alone' grep -q '"first_token_s": 0[.0-9]*[1-9]' stdout
expect 2 'model is required' chimera-bench
expect 2 'prompt' $bench --prompt 0
expect 2 'threads' $bench --threads -1
expect 1 'no such file or folder' chimera-bench --model nowhere
expect 1 '--prompt and --generate make 1,030 tokens, and the context holds 1,024' $bench --prompt 1000 --generate 30
head -c 3000 model.gguf >cut.gguf
expect 1 'cut.gguf' chimera-bench --model cut.gguf

printf 'chimera-perplexity\n'
head -c 3000 "$text" >short.txt
perplexity="chimera-perplexity short.txt --context 64"
expect 0 'chunk 46 of 46' $perplexity --model model.gguf
check 'a figure with its error' grep -q '^perplexity of 1,426 tokens: [0-9]*[.][0-9]* +/- [0-9]*[.][0-9]*$' stdout
cp stdout together
expect 0 'chunk' $perplexity --model model.gguf --together 1 --threads 1
check 'the same however it is computed' cmp stdout together
expect 0 'chunk 3 of 3' $perplexity --model run --chunks 3 --json --kv f32
check 'JSON' sh -c 'grep -q "\"chunks\": 3, \"tokens\": 93" stdout && grep -q "\"perplexity\": [0-9]" stdout'
expect 2 'file is required' chimera-perplexity --model run
expect 2 'at least 4, found 3' $perplexity --model run --context 3
expect 1 'cannot open missing.txt' chimera-perplexity missing.txt --model run
expect 1 "must be at most the model's context of 1,024" $perplexity --model run --context 2000
head -c 400 short.txt >shorter.txt
expect 1 'has 400 tokens, and a chunk takes 512: give a longer text or a smaller -c' chimera-perplexity shorter.txt --model run
finish
