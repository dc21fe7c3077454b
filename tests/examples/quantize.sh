# chimera-quantize: what it writes, what it says, and what it refuses.
. "$(dirname "$0")/common.sh"

printf 'A model\n'
expect 0 'saved' chimera-train $small --steps 2 --data "$text" --out run
expect 0 'wrote model.gguf' chimera-convert run model.gguf
size() { wc -c <"$1"; }

printf 'Every format\n'
for format in F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K_S Q4_K_M Q5_K_S Q5_K_M Q6_K TQ1_0 TQ2_0; do
  expect 0 'wrote' chimera-quantize model.gguf "$format.gguf" "$format"
  expect 0 'tok/s' chimera-generate --model "$format.gguf" --tokens 3
done
expect 0 'wrote' chimera-quantize model.gguf lower.gguf q4_k_m --threads 1
check 'formats in lower case; the threads change nothing' cmp lower.gguf Q4_K_M.gguf
check 'fewer bits, smaller files' sh -c '[ $(wc -c <Q4_0.gguf) -lt $(wc -c <Q8_0.gguf) ] && [ $(wc -c <Q8_0.gguf) -lt $(wc -c <F16.gguf) ]'
check 'F32 to F32 changes no number' sh -c 'chimera-quantize F32.gguf again.gguf F32 && cmp F32.gguf again.gguf'
expect 0 'is quantized already' chimera-quantize Q8_0.gguf twice.gguf Q4_0

printf 'Reports\n'
head -c 3000 "$text" >short.txt
expect 0 'wrote' chimera-quantize model.gguf out.gguf Q8_0 --report report.json --text short.txt --context 64 --tokens 500
check 'the table has a line for a matrix' sh -c 'chimera-quantize model.gguf out.gguf Q8_0 | grep -q "^token_embd.weight  *F32  *Q8_0 "'
check 'and the perplexity before and after' sh -c 'chimera-quantize model.gguf out.gguf Q8_0 --text short.txt --tokens 99 | grep -q "^perplexity of 99 tokens: [0-9.]* before, [0-9.]* after"'
check 'the report is JSON with both' sh -c 'grep -q "\"relative_error\": 0\.00" report.json && grep -q "\"perplexity\": {\"tokens\": 500" report.json'

printf 'Refusals\n'
cp out.gguf kept
expect 2 'required' chimera-quantize model.gguf out.gguf
expect 2 'threads' chimera-quantize model.gguf out.gguf Q8_0 --threads -1
expect 1 'expected a format of F32, F16, .*TQ2_0, found Q9' chimera-quantize model.gguf out.gguf Q9
expect 1 'IN and OUT are the same file' chimera-quantize model.gguf model.gguf Q8_0
ln model.gguf link.gguf
expect 1 'IN and OUT are the same file' chimera-quantize model.gguf link.gguf Q8_0
expect 1 'written over' chimera-quantize model.gguf out.gguf Q8_0 --report model.gguf
expect 1 'cannot open missing.gguf' chimera-quantize missing.gguf out.gguf Q8_0
expect 1 'it is not a GGUF file' chimera-quantize "$text" out.gguf Q8_0
expect 1 'cannot write nowhere/out.gguf' chimera-quantize model.gguf nowhere/out.gguf Q8_0
expect 1 'cannot open missing.txt' chimera-quantize model.gguf out.gguf Q8_0 --text missing.txt
head -c 3000 model.gguf >cut.gguf
expect 1 'cannot read cut.gguf' chimera-quantize cut.gguf out.gguf Q8_0
check 'OUT is as it was' cmp out.gguf kept

printf 'A full disk\n'
(
  trap '' XFSZ
  ulimit -f 100
  chimera-quantize model.gguf out.gguf Q8_0 >stdout 2>stderr
  echo $? >code
)
check 'a file that cannot be stored is an error' test "$(cat code)" -eq 1
check 'the message names it' grep -q '^chimera-quantize: cannot write out.gguf: ' stderr
check 'OUT is as it was' cmp out.gguf kept
check 'no other file is left' test "$(ls | grep -c out.gguf)" -eq 1
finish
