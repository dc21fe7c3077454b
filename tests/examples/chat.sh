# chimera-chat through pipes: turns, commands, Ctrl-C, and what it says when something is wrong.
tests=$(cd "$(dirname "$0")" && pwd)
. "$(dirname "$0")/common.sh"
expect 0 'saved' chimera-train $small --steps 2 --data "$text" --out run
chat="chimera-chat --model run --template chatml --tokens 12 --temp 0"
endless="chimera-chat --model run --template chatml --tokens -1 --temp 0 --logit-bias 256-inf --logit-bias 258-inf"

# say LINES ARGUMENTS...: what the chat answers is in stdout, its exit code in $code.
say() {
  lines=$1
  shift
  printf "$lines" | "$@" >stdout 2>stderr
  code=$?
}

printf 'Flags\n'
expect 2 'model is required' chimera-chat
expect 2 'template' $chat --template alpaca
expect 2 'expected one of f32, f16, q8_0, q4_0, found f8' $chat --kv f8
expect 1 'no such file or folder' chimera-chat --model nowhere
expect 1 'the model has no token <|start_of_role|>: choose another --template' $chat --template granite
check 'without a message it ends' $chat </dev/null

printf 'Conversations\n'
say 'hello\n' $chat
check 'one answer' test $code -eq 0 -a "$(wc -l <stdout)" -ge 1
check 'and nothing else' test ! -s stderr
cp stdout once
say 'hello\nhello\n/reset\nhello\n' $chat
check 'a reset forgets' sh -c 'head -n 1 stdout >first && tail -n 1 stdout | cmp - first && test "$(wc -l <stdout)" -ge 3'
say 'hello' $chat
check 'a last line without an end' cmp stdout once
say 'hel\\\nlo\n/save lines\n' $chat
check 'a line goes on in the next' grep -aq '"content": "hel\\nlo"' lines
say 'hello\n/save without\n' $chat
say 'hello\n/save with\n' $chat --system 'Be brief.'
for file in with without; do LC_ALL=C sed '1,/^]}$/d' $file >$file.session; done
check 'a system message is read: the session remembers another text' \
  sh -c 'test -s with.session && ! cmp -s with.session without.session'
say '\n\nhello\n' $chat
check 'empty lines are no messages' cmp stdout once
for kv in f32 q8_0 q4_0; do
  say 'hello\n' $chat --kv $kv
  check "keys and values in $kv" test $code -eq 0 -a -s stdout
done
say 'hello\n' $chat --template plain
check 'a plain template' test $code -eq 0 -a -s stdout
say '/exit\nhello\n' $chat
check '/exit ends' sh -c "test $code -eq 0 -a ! -s stdout"
say '/help\n/quit\nhello\n' $chat
check '/help lists the commands, /quit ends' sh -c "test $code -eq 0 -a ! -s stdout && grep -q '^/save FILE' stderr"
say '/usr/bin is a folder\n' $chat
check 'a path is no command' test $code -eq 0 -a -s stdout

say 'hello\n/reset\n' $chat
check '/reset answers' grep -q '^the conversation is forgotten$' stderr

printf 'A model that was not trained to chat\n'
plain='chimera-chat --model run --tokens 12 --temp 0'
say 'struct' $plain
check 'it says so' grep -q '^note: this model was not trained to chat (its file has no chat template)' stderr
cp stdout continued
chimera-generate --model run --prompt struct --tokens 12 --temp 0 2>stderr | sed '1s/^struct//' >generated
check 'and continues the text' sh -c 'head -c 5 generated | cmp -n 5 - continued'
expect 0 'wrote' chimera-convert run chatty.gguf --chat
check 'a file says that a model was' sh -c 'printf "hello\n" | chimera-chat --model chatty.gguf --tokens 3 --temp 0 2>note && ! grep -q "not trained" note'

printf 'The first message as a flag\n'
$chat -p 'hello' >stdout 2>stderr </dev/null
check 'of -p' cmp stdout once
printf 'hello\n' >message
$chat -f message >stdout 2>stderr </dev/null
check 'of -f' cmp stdout once
say 'hello' $chat -f -
check 'of standard input' cmp stdout once
say 'hello\n' $chat -c 64 --kv q8_0
check 'a smaller context' test $code -eq 0 -a -s stdout
expect 1 "at most the model's context of 1024 tokens, found 2000" $chat -c 2000

printf 'A terminal\n'
if python3 -c 'import pty' 2>python; then
  check 'keys, pastes and lines as they should be' python3 "$tests/terminal.py" run
else
  printf 'SKIPPED: there is no python3 to play a terminal\n'
fi

printf 'Saving\n'
say 'hello\nand now?\n' $chat --system 'Be brief.'
cp stdout both
say 'hello\n/save talk\n' $chat --system 'Be brief.'
cp stdout parts
check '/save answers' grep -q '^saved talk$' stderr
check 'the file begins with the conversation' grep -aq '"role": "user", "content": "hello"' talk
say '/load talk\nand now?\n/save again\n' $chat
cat stdout >>parts
check 'it goes on as if it had not been saved' cmp parts both
check 'and tells how much was there' grep -q 'loaded 3 messages' stderr
say '/load talk\nand now?\n' $chat --kv q8_0
check 'what another cache remembers is read again' sh -c "test $code -eq 0 && grep -q 'the text will be read again: .*format of keys and values' stderr"
printf '{"template": "chatml", "read": false, "end_is_read": false, "messages": []}' >empty
say '/load empty\nhello\n' $chat
check 'an empty conversation' cmp stdout once

# refuse PATTERN LINES ARGUMENTS...
refuse() {
  pattern=$1
  shift
  say "$@"
  check "refused: $pattern" sh -c "test $code -eq 1 && tail -n 1 stderr | grep -q '^chimera-chat: .*$pattern'"
}
printf 'Refusals\n'
refuse 'there is no command /what; /help lists them' '/what\nhello\n' $chat
refuse 'name a file: /save FILE' '/save\n' $chat
refuse 'cannot open missing' '/load missing\n' $chat
refuse 'cannot write nowhere/talk' '/save nowhere/talk\n' $chat
cp "$text" source
refuse 'source is no saved conversation: expected a value' '/load source\n' $chat
printf '{"template": "chatml", "read": true, "end_is_read": false, "messages": [{"role": "king", "content": ""}]}' >king
refuse 'expected a role of system, user or assistant, found king' '/load king\n' $chat
head -c 2000 talk >cut
say '/load cut\nand now?\n' $chat
check 'what a damaged file remembers is read again' sh -c "test $code -eq 0 && grep -q 'the text will be read again: .*not whole' stderr"
long=$(head -c 1100 /dev/zero | tr '\0' x)
refuse 'the message takes .* of the context of 1024 1024 are left: /reset starts anew' "$long\n" $chat
refuse 'the context of 1024 tokens is full: /reset starts anew' 'hello\n' $endless
say "$long\nhello\n" $chat --slide
check 'a message beyond the context is refused even when it slides' test $code -eq 1
say 'hello\nhello\nhello\n' $endless --tokens 400 --slide
check 'but a conversation slides' test $code -eq 0

printf 'Ctrl-C\n'
# Until an answer has ended. The program may not wait for a line yet: Ctrl-C is seen all the same.
ended() { while [ "$(tail -c 1 answers | od -An -c)" != "  \\n" ]; do sleep 0.05; done; }
mkfifo pipe
$endless --slide --threads 1 <pipe >answers 2>stderr &
process=$!
exec 3>pipe
printf 'hello\n' >&3
while [ ! -s answers ]; do sleep 0.05; done
kill -INT $process
ended
check 'stops an answer' kill -0 $process
size=$(wc -c <answers)
printf '/reset\nhello\n' >&3
while [ "$(wc -c <answers)" -le "$size" ]; do sleep 0.05; done
check 'and the next one begins' kill -0 $process
kill -INT $process
ended
kill -INT $process
for try in $(seq 200); do
  if grep -q 'Ctrl-C once more' stderr; then break; fi
  sleep 0.05
done
check 'once at the prompt it warns' grep -q 'Ctrl-C once more' stderr
check 'and goes on' kill -0 $process
kill -INT $process
wait $process
check 'twice it ends' test $? -eq 0
exec 3>&-
finish
