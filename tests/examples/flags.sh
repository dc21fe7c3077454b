# The programs are one family: the same letters, --version, --help with an example, and what is said of a wrong flag.
. "$(dirname "$0")/common.sh"
PATH=$programs/game_loop:$PATH
expect 0 'saved' chimera-train $small --steps 2 --data "$text" --out run
all='train align generate chat bench perplexity passkey info convert quantize tokenize config'

printf 'Every program\n'
for name in $all; do
  check "$name --version" sh -c "chimera-$name --version | grep -qx 'chimera-$name [0-9]*[.][0-9]*[.][0-9]*'"
  chimera-$name --help >help
  check "$name --help has an example" sh -c 'grep -A 1 "^Example:" help | grep -q "chimera-"'
  check "and no line that is too wide" sh -c '! grep -q "^.\{121\}" help'
  check "and its ranges in words" sh -c '! grep -qE "INT|FLOAT|UINT|\[[0-9]+ - |:\{|NONNEGATIVE|POSITIVE|REQUIRED" help'
  check "and nothing mannered" sh -c '! grep -qiE "foretell|told and counted" help'
  expect 2 "there is no flag --no-such-flag; see chimera-$name --help" chimera-$name --no-such-flag
  expect 2 "there is no flag --versoin: did you mean --version?" chimera-$name --versoin
done
check 'game_loop --version' sh -c 'game_loop --version | grep -q "^game_loop [0-9]"'
expect 2 'there is no flag --modle: did you mean --model?' chimera-generate --modle run
expect 2 'there is no flag --modle: did you mean --model?' chimera-generate --modle=run --temp 3
expect 2 'there is no flag -temp: did you mean --temp?' chimera-generate -temp 0
expect 2 'there is no command trian: did you mean train?' chimera-tokenize trian
expect 2 'there is no flag --vcoab: did you mean --vocab?' chimera-tokenize train --vcoab 300
expect 2 'unexpected argument third' chimera-convert first second third
expect 2 'model needs a value' chimera-generate --model
expect 2 'threads: expected a number of at least 0, found many' chimera-generate -m run -t many
expect 2 'expected a number of at least 0, found -2' chimera-generate -m run -t -2
expect 2 'expected a number of at least -2, found -3' chimera-generate -m run -n -3

printf 'Letters\n'
letters() { # letters PROGRAM LETTERS...
  name=$1
  shift
  chimera-$name --help >help
  for letter in "$@"; do check "$name -$letter" grep -q "^ *-$letter, " help; done
}
letters generate m p f n t c s
letters chat m p f n t c s
letters bench m p n t c
letters perplexity m f c t
letters quantize m f c t
letters convert m t
letters info m c
generate="chimera-generate -m run -t 1 -s 3"
$generate -p 'struct' -n 20 >one 2>stderr
for flags in '--predict 20' '--n-predict 20' '--tokens 20'; do
  $generate --prompt struct $flags >two 2>stderr
  check "$flags" cmp one two
done

printf 'Prompts from files and pipes\n'
printf 'struct\n' >prompt
$generate -f prompt -n 20 >two 2>stderr
check 'a file' cmp one two
$generate -f - -n 20 <prompt >two 2>stderr
check 'standard input' cmp one two
$generate -n 20 <prompt >two 2>stderr
check 'standard input without a flag' cmp one two
cat prompt | $generate -n 20 >two 2>stderr
check 'a pipe' cmp one two
expect 1 'cannot open missing' $generate -f missing
expect 2 'prompt excludes --file' $generate -f prompt -p struct
chimera-perplexity -m run -c 32 -f "$text" --chunks 2 --together 1 >one 2>stderr
cat "$text" | chimera-perplexity -m run -c 32 -f - --chunks 2 --together 1 >two 2>stderr
check 'perplexity of a pipe' cmp one two

printf 'Length\n'
expect 0 'text: 0 tokens' $generate -p x -n 0
expect 0 'the context of 40 tokens is full' $generate -p x -c 40 --logit-bias 256-inf --logit-bias 258-inf
expect 0 'text: 40 tokens' $generate -p x -c 40 -n -2 --logit-bias 256-inf --logit-bias 258-inf
expect 0 'text: 100 tokens' $generate -p x -c 40 -n 100 --slide --logit-bias 256-inf --logit-bias 258-inf
expect 1 'at most the model.s context of 1024 tokens, found 1025' $generate -p x -c 1025
expect 1 'has 6 tokens, the context of nano holds 5: give a larger -c' $generate -p struct -c 5
for kv in f32 q8_0 q4_0; do expect 0 'tok/s' $generate -p x -n 5 --kv $kv; done
check 'a smaller context takes less memory' sh -c 'chimera-info -m run -c 64 | grep -q "a session of 64 tokens"'

printf 'A context that does not fit\n'
expect 0 'saved' chimera-train $small --config nano context=2000000000 --steps 1 --data "$text" --out huge
expect 1 'by a session of 2000000000 tokens; .*; -c [0-9]* needs [0-9.]* .iB, -c [0-9]* --kv q8_0 needs' chimera-generate -m huge -p x
expect 0 'tok/s' chimera-generate -m huge -p x -n 3 -c 100
expect 0 'seed' chimera-chat -m huge -p x -n 3 -c 100 --kv q4_0
check 'chimera-bench takes no more than it needs' chimera-bench -m huge -p 20 -n 5 -r 1 --no-roofline
expect 0 'chunk' chimera-perplexity -m huge -f "$text" -c 64 --chunks 2

printf 'Seeds\n'
chimera-generate -m run -p x -n 30 >one 2>stderr
check 'a random one is printed' grep -q '^seed [0-9][0-9]*$' stderr
seed=$(sed -n 's/^seed //p' stderr)
chimera-generate -m run -p x -n 30 -s "$seed" >two 2>stderr
check 'and gives the text again' cmp one two
check 'a given one is not printed' sh -c '! grep -q "^seed" stderr'
for given in -1 4294967295; do
  chimera-generate -m run -p x -n 30 -s $given >two 2>stderr
  check "-s $given is random" sh -c "grep -q '^seed [0-9]' stderr && ! grep -qx 'seed $seed' stderr"
done
chimera-generate -m run -p x -n 30 --temp 0 >two 2>stderr
check 'nothing is drawn without a temperature' sh -c '! grep -q "^seed" stderr'

printf 'Escapes\n'
bytes() { head -c "$1" "$2" | od -An -tx1 | tr -d ' \n'; }
escaped() { # escaped TEXT HEX FLAGS...
  given=$1 want=$2
  shift 2
  chimera-generate -m run -t 1 -s 1 -n 1 -p "$given" "$@" >two 2>stderr
  found=$(bytes $((${#want} / 2)) two)
  check "$given becomes $want, found $found" test "$found" = "$want"
}
escaped 'a\nb' 610a62
escaped 'a\tb\\n' 6109625c6e
escaped '\x41\"\x7e'"\\'" 41227e27
escaped '\xzz\q' 5c787a7a5c71
escaped 'a\' 615c
escaped 'a\nb' 615c6e62 --no-escape
escaped 'a\nb' 610a62 -e
for flags in '--stop \n' '-r \x0a' '--reverse-prompt \n'; do
  chimera-generate -m run -t 1 -s 1 -n 60 -p x --temp 1.5 --logit-bias 10+20 $flags >two 2>stderr
  check "$flags acts" test "$(wc -l <two)" -eq 1
done
chimera-generate -m run -t 1 -s 1 -n 60 -p x --temp 1.5 --logit-bias 10+20 --stop '\n' --no-escape >two 2>stderr
check 'and not without escapes' test "$(wc -l <two)" -gt 5
dry() {
  chimera-generate -m run -t 1 -s 1 -n 60 -p abababababab --temp 0 --dry-multiplier 5 --dry-allowed-length 1 "$@" 2>stderr
}
dry --dry-sequence-breaker '\x61' >one
dry --dry-sequence-breaker a >two
check 'breakers, too' cmp one two

printf 'No pictures in logs\n'
chimera-quantize --version >/dev/null
expect 0 'wrote' chimera-convert run 'a model.gguf'
expect 0 'chunk' chimera-perplexity -m run -c 32 "$text" --chunks 4
check 'no line is written over, nothing is coloured' sh -c 'tr -d "\n" <stderr | od -An -c | grep -vqE "\\\\r|033"'
finish
