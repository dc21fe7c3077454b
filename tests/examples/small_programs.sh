# The examples that are read before a program is written with the library.
. "$(dirname "$0")/common.sh"
expect 0 'saved' chimera-train $small --steps 20 --data "$text" --out run
expect 0 'wrote' chimera-convert run model.gguf --format q8_0
expect 0 'wrote' chimera-convert run folder/

printf 'saved_model\n'
for model in run model.gguf folder; do
  saved_model $model 'struct' >stdout
  check "writes with $model" test "$(wc -c <stdout)" -gt 20
done
check 'says what is missing' sh -c '! saved_model nowhere x 2>stderr && grep -q "no such file or folder" stderr'
expect 0 'saved' chimera-train $small --config strategic-nano --steps 1 --data "$text" --out other
check 'refuses a model that it has not' sh -c '! saved_model other x 2>stderr && grep -q "no model of this program has its config" stderr'

printf 'save_restore\n'
save_restore run whole 80 >once
save_restore run parts >twice
save_restore run parts >>twice
check 'a restored session writes the same text' cmp once twice
check 'and remembers the same' cmp whole parts
check 'and is refused by another model' sh -c '! save_restore model.gguf parts 2>stderr && grep -q "saved with another model" stderr'

printf 'own_layer\n'
own_layer "$text" own.gguf >stdout
check 'it learns' grep -aq '^validation: [012]\.[0-9]* nats a byte' stdout
check 'it writes' test "$(wc -c <stdout)" -gt 100
expect 1 'its layers have the word W' chimera-generate --model own.gguf

printf 'conversation\n'
conversation run 'hello' 'and now?' >stdout
check 'answers each message' test "$(grep -ac '^> ' stdout)" -eq 2
check 'in words' test "$(wc -c <stdout)" -gt 30
finish
