#!/bin/sh
# Installs what is missing, builds, trains a small hybrid for two minutes on the fortune cookies of Debian and Ubuntu,
# and lets it write. Arguments go to chimera-train: --data FILE trains on another text, --minutes 10 for longer.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/programs
run=$root/runs/quickstart-$(date +%Y%m%d-%H%M%S)
PATH=$build/examples:$PATH

say() { printf '\n== %s\n' "$*"; }

# The text as a word of a shell, for commands that are shown.
word() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }

# Each cookie as a document: no second copies, pictures or blanks at the margins.
cookies() {
  for file in /usr/share/games/fortunes/*; do
    case ${file##*/} in
      *.*) continue ;; # indexes and links
      ascii-art | translate-me | knghtbrd | perl | zippy) continue ;; # no prose
      ethnic | men-women | off*) continue ;; # jokes at the expense of others
    esac
    [ ! -f "$file" ] || { cat "$file" && echo %; }
  done | tr '\t' ' ' | LC_ALL=C awk '
    $0 == "%" { if (text != "" && !(text in seen)) { seen[text]; printf "%s<|endoftext|>\n", text } text = ""; next }
    { while (i = index($0, "\b")) $0 = substr($0, 1, i - 2) substr($0, i + 1)
      gsub(/  +/, " "); sub(/^ /, ""); sub(/ $/, ""); text = text $0 "\n" }'
}

# Where there are no cookies: the sources and pages of this project.
own_words() {
  (
    cd "$root"
    find . \( -path ./build -o -path ./runs -o -path ./.git \) -prune -o \
      -type f \( -name '*.hpp' -o -name '*.cpp' -o -name '*.md' -o -name '*.sh' \) -print | LC_ALL=C sort | xargs cat
  )
}

data= previous=
for argument; do
  case $argument in --data=*) data=${argument#--data=} ;; esac
  case $previous in --data | -f) data=$argument ;; esac
  previous=$argument
done
if [ -n "$data" ] && [ ! -f "$data" ]; then
  echo "quickstart: --data must name a text file, and there is none at $data" >&2
  exit 2
fi

say '1 of 4: install what is missing (nothing to do, or a minute or two)'
sh "$root/cmake/install-missing.sh" g++ cmake ninja-build libboost-dev libcli11-dev zlib1g-dev
[ -n "$data" ] || sh "$root/cmake/install-missing.sh" fortunes || echo 'No fortune cookies: the text is that of this project'

say '2 of 4: build three programs (one to three minutes on two cores)'
cmake -S "$root" --preset programs >/dev/null
cmake --build "$build" --target chimera-tokenize chimera-train chimera-generate

say '3 of 4: learn a vocabulary (a second), then train for two minutes; Ctrl-C ends it early'
mkdir -p "$run"
if [ -z "$data" ]; then
  data=$run/text.txt
  cookies >"$data"
  [ -s "$data" ] || own_words >"$data"
fi
chimera-tokenize train --vocab 2048 --input "$data" --out "$run/words.json" >/dev/null
trap : INT # what it has learned by then still writes
chimera-train --config nano embedding_scale=24 --tokenizer "$run/words.json" --minutes 2 \
  --batch 16 --context 128 --lr 4e-3 --floor 0.02 --validation-fraction 0.02 --validation-interval 0 \
  --sample-every 30 --sample-prompt 'Life is' --data "$data" "$@" --out "$run"
trap - INT

say '4 of 4: what it writes now (a second)'
for prompt in 'Life is' 'The' 'A computer' 'Never' 'Q:'; do
  echo
  chimera-generate --model "$run" --prompt "$prompt" --tokens 100 --temperature 0.6 --min-p 0.1 \
    --repeat-penalty 1.1 2>/dev/null
done

cat <<END

== Next
  export PATH=$(word "$build/examples"):\$PATH
  chimera-generate --model $(word "$run") --prompt 'Love is'
  chimera-train --resume --out $(word "$run") --minutes 10   # ten in all
  cmake --build $(word "$build")   # all the programs; examples/README.md says what they do
Its loss curve: $run/loss.svg
END
