# What the programs write: to links, pipes, full devices and files of other rights.
. "$(dirname "$0")/common.sh"

printf 'A model\n'
head -c 30000 "$text" >text.txt
train="chimera-train $small --steps 2 --data text.txt"
expect 0 'saved' $train --out run
expect 0 'wrote' chimera-convert run model.gguf

mkdir elsewhere
printf 'Files\n'
# written WHAT: the link still is one, what it leads to is new and keeps its mode, and nothing else is beside the two.
linked() { printf old >elsewhere/target && chmod 664 elsewhere/target && ln -sf elsewhere/target link.gguf && ln -sf elsewhere/target link.chimera; }
written() {
  check "$1: the link stays" test -L "$2"
  check "$1: its target is new" sh -c 'test "$(cat elsewhere/target | tr -d "\0" | head -c 3)" != old'
  check "$1: the mode stays" sh -c 'test "$(stat -c %a elsewhere/target)" = 664'
  check "$1: nothing is left" sh -c 'test "$(ls elsewhere)" = target'
}
linked
expect 0 'wrote' chimera-quantize model.gguf link.gguf q8_0
written quantize link.gguf
linked
expect 0 'wrote' chimera-convert run link.gguf --force
written convert link.gguf
linked
expect 0 'wrote' chimera-convert run link.chimera --force
written checkpoint link.chimera
linked
expect 0 'saved' chimera-tokenize train --vocab 280 --input text.txt --out link.gguf
written tokenize link.gguf
linked
check 'chimera-config' chimera-config model.gguf --name mine --out link.gguf
written config link.gguf
linked
printf '/save link.gguf\n' | chimera-chat --model model.gguf >stdout 2>stderr
check 'the words of a conversation' grep -q . elsewhere/target
check 'a link to them stays' test -L link.gguf

printf 'A link to a folder, and links in it\n'
mkdir far && ln -s far near && expect 0 'saved' $train --out near
check 'the run is there' test -f far/run.txt
mv far/run.txt elsewhere/run.txt && ln -s ../elsewhere/run.txt far/run.txt
expect 0 'saved' chimera-train --resume --out near --steps 3
check 'its settings are where they were' sh -c 'test -L far/run.txt && grep -q "^steps 3" elsewhere/run.txt'

printf 'Pipes and devices\n'
mkfifo pipe.gguf
timeout 30 cat pipe.gguf >got.gguf &
expect 0 'wrote' chimera-quantize model.gguf pipe.gguf q8_0
wait
expect 0 'wrote' chimera-quantize model.gguf file.gguf q8_0
check 'what comes through a pipe is the file' cmp got.gguf file.gguf
check 'the pipe stays' test -p pipe.gguf
timeout 30 cat pipe.gguf >got.gguf &
expect 0 'wrote' chimera-convert run pipe.gguf
wait
check 'and from chimera-convert' cmp got.gguf model.gguf
check 'which puts no card beside a pipe' test ! -e pipe.gguf.md
ln -s /dev/null null.gguf
expect 0 'wrote' chimera-quantize model.gguf null.gguf q8_0
expect 0 'saved' chimera-tokenize train --vocab 280 --input text.txt --out null.gguf
ln -s /dev/full full.gguf
expect 1 'No space left' chimera-quantize model.gguf full.gguf q8_0
expect 1 'No space left' chimera-convert run full.gguf
expect 1 'No space left' chimera-tokenize train --vocab 280 --input text.txt --out full.gguf
expect 1 'No space left' chimera-config model.gguf --name mine --out full.gguf
for command in 'chimera-info --list' 'chimera-info --config nano' 'chimera-tokenize encode --tokenizer model.gguf text.txt' 'chimera-config model.gguf --name mine'; do
  check "no room for what it prints: $command" sh -c "! $command >/dev/full 2>said && grep -q 'cannot write .*No space' said"
done
check 'the devices stay' test -c null.gguf -a -c full.gguf
check 'nothing is left' sh -c 'test -z "$(ls | grep partial)"'

finish
