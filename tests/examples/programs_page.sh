# Every command of examples/README.md, in its order. Training is made short, and so is the game.
page=$(cd "$(dirname "$0")/../../examples" && pwd)/README.md
. "$(dirname "$0")/common.sh"
PATH=$programs/game_loop:$PATH
for i in 1 2 3 4; do cat "$text"; done >text.txt

awk '/^```/ { inside = 0 } inside; /^```sh$/ { inside = 1 }' "$page" |
  sed -e 's/--resume --out \([^ ]*\) --minutes [0-9]*/--resume --out \1 --steps 8/' -e 's/--minutes [0-9]*/--steps 4/' \
    -e 's/--frames 600/--frames 30/' -e 's/--batch 8 --context 256/--batch 1 --context 64/' >commands
check 'there are commands' test "$(wc -l <commands)" -ge 15
while read -r command <&3; do
  if sh -c "$command" >stdout 2>stderr </dev/null; then
    printf 'ok   %s\n' "$command"
  else
    wrong "$command"
  fi
  case $command in chimera-chat* | *'>'*.jsonl) ;; *) check 'and says something' test -s stdout -o -s stderr -o -s ids.txt -o -s first.hpp ;; esac
done 3<commands
check 'what was decoded is what was encoded' sh -c "chimera-tokenize decode --tokenizer tokenizer.json ids.txt | grep -qx 'Hello, world'"
finish
