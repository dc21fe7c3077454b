# Models whose training goes on with a longer context: what is said, and what their files say; pass keys, and the loss
# by position.
. "$(dirname "$0")/common.sh"
expect 0 'saved' chimera-train --config nano layers=A count=1 heads=2 width=32 hidden=32 context=32 --batch 1 \
  --context 32 --steps 2 --data "$text" --out short

printf 'Training on\n'
longer="chimera-train --from short --data $text --batch 1 --steps 1 --validation-tokens 64 --lr 1e-30 --weight-decay 0"
expect 0 'context: 128 tokens, 4 times those that it learned with; rotary positions scaled by yarn' \
  $longer --out yarn --rope yarn --factor 4
check 'rows have the new length' grep -qx 'context 128' yarn/run.txt
for line in 'model.context 128' 'model.rope.scaling 4' 'model.rope.factor 4' 'model.rope.original_context 32'; do
  check "its config: $line" grep -qx "$line" yarn/run.txt
done
lines() { sed -n 's/^model[.]//p' "$1/run.txt" | grep -v '^context\|^rope[.]'; }
lines short >one
lines yarn >two
check 'and nothing else changed' cmp one two
expect 0 'wrote' chimera-convert short short.gguf
expect 0 'wrote' chimera-convert yarn yarn.gguf
weights() { tail -c 60000 "$1.gguf"; }
weights short >one
weights yarn >two
check 'weights go over bit for bit' cmp one two
expect 0 'wrote' chimera-convert yarn folder/
for member in '"rope_type": "yarn"' '"factor": 4' '"original_max_position_embeddings": 32'; do
  check "config.json has $member" grep -q "$member" folder/config.json
done
mkdir back && mv folder back/yarn && expect 0 'wrote' chimera-convert back/yarn back.gguf
check 'and back' cmp yarn.gguf back.gguf
expect 0 'saved' chimera-train --resume --out yarn --steps 2

expect 0 'search 2/2: loss [0-9.]*; linear [0-9.]*, NTK [0-9.]*, YaRN [0-9.]*$' $longer --out longrope --rope longrope \
  --factor 4 --rope-rounds 2 --rope-population 4 --rope-texts 1
check 'its factors ascend' sh -c 'sed -n "s/^model.rope.long_factor //p" longrope/run.txt | tr " " "\n" >factors
  test "$(wc -l <factors)" -eq 8 && sort -n -c factors'
expect 0 'wrote' chimera-convert longrope back/longrope
check 'and are in its folder' grep -q '"long_factor": \[[0-9., ]*\]' back/longrope/config.json
expect 2 'at least 3 candidates a round, found 2' $longer --out none --rope longrope --factor 4 --rope-population 2

again="chimera-train --data $text --out none"
expect 2 'learned first: expected a larger factor, found 4' $again --from yarn --rope yarn --factor 4
expect 2 'scaled by yarn already: go on with that, found linear' $again --from yarn --rope linear --factor 8
expect 2 'must be above 1, found 0.5' $again --from short --factor 0.5
expect 2 'at most the longer context of 64 tokens, found 100: give a larger --factor' \
  $again --from short --rope ntk --factor 2 --context 100
expect 2 'rope requires --factor' $again --from short --rope yarn
expect 2 'factor requires --from' $again --factor 4
check 'which leaves nothing' test ! -e none

printf 'Pass keys\n'
expect 0 'wrote keys.txt: .* pass keys in texts of at most 100 bytes' \
  chimera-passkey write --file "$text" --out keys.txt --length 100
check 'each is said and asked for' sh -c 'grep -c "^The pass key is \([1-9][0-9]\{4\}\). Remember it: \1[.]$" keys.txt >said
  grep -c "^What is the pass key? The pass key is [1-9][0-9]\{4\}[.]$" keys.txt >asked && cmp said asked && test "$(cat said)" -gt 20'
check 'a seed gives one text' sh -c "chimera-passkey write --file $text --out again.txt --length 100 && cmp keys.txt again.txt"
expect 1 'length must be at least 91 bytes, found 20' chimera-passkey write --file "$text" --out keys.txt --length 20
check 'a table' sh -c 'chimera-passkey test -m yarn --lengths 100 128 --depths 3 --trials 2 --svg map.svg >stdout
  grep -qx "  *128 *0.00 *0.00 *0.00 *0.00" stdout'
check 'drawn' sh -c 'test "$(grep -c "<rect" map.svg)" -eq 6'
check 'as JSON' sh -c 'chimera-passkey test -m yarn --lengths 100 --depths 3 --trials 2 --json >stdout
  test "$(grep -c "{\"length\": 100, \"depth\": [01][.][05]000, \"found\": 0.0000}" stdout)" -eq 3'
expect 1 'has at least 88 tokens, found --lengths 50' chimera-passkey test -m yarn --lengths 50

printf 'Loss by position\n'
expect 0 'compiling one' chimera-perplexity "$text" -m yarn -c 200 --chunks 2 --by-position --svg loss.svg
check 'beyond the context' sh -c 'grep -qx " *64-127 *128 *[0-9.]*" stdout && grep -qx " *128-199 *144 *[0-9.]*" stdout'
check 'drawn' sh -c 'test "$(grep -c "<circle" loss.svg)" -eq 8'
expect 0 'chunk' chimera-perplexity "$text" -m yarn -c 101 --chunks 2 --by-position --bins 4 --json
check 'as JSON, in even bins' grep -q '{"first": 76, "last": 100, "tokens": 50, "loss": [0-9.]*}' stdout
finish
