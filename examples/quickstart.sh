#!/bin/sh
# Installs what is missing, builds, trains the nano hybrid for two minutes on the project's own sources and docs, and
# lets it write. Arguments go to chimera-train: --data FILE trains on another text, --minutes 10 for longer.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
programs=$root/build/programs/examples
run=$root/runs/quickstart-$(date +%Y%m%d-%H%M%S)

sh "$root/cmake/install-missing.sh" g++ cmake ninja-build libboost-dev libcli11-dev
cmake -S "$root" --preset programs >/dev/null
cmake --build "$root/build/programs"

mkdir -p "$run"
cd "$root"
find . \( -path ./build -o -path ./runs -o -path ./.git \) -prune -o \
  -type f \( -name '*.hpp' -o -name '*.cpp' -o -name '*.md' -o -name '*.sh' \) -print |
  LC_ALL=C sort | xargs cat >"$run/own-words.txt"
cd "$OLDPWD"

trap : INT # Ctrl-C ends the training; what it has learnt by then still writes
"$programs/chimera-train" --config nano --data "$run/own-words.txt" --minutes 2 --batch 8 --context 256 --lr 4e-3 \
  "$@" --out "$run"
trap - INT

printf '\nThe model writes:\n\n'
"$programs/chimera-generate" --model "$run" --prompt 'The ' --tokens 400
printf '\nIts loss curve: %s\n' "$run/loss.svg"
printf 'More text: %s --model %s --prompt "..."\n' "$programs/chimera-generate" "$run"
printf 'More training, to ten minutes in all: %s --resume --out %s --minutes 10\n' "$programs/chimera-train" "$run"
