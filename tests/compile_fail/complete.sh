#!/bin/sh
# complete.sh INCLUDE CASES: every message that stops compilation has a case. One that goes on with a list of words is
# known by how it starts. -fsingle-precision-constant is g++'s alone: tests/embed/run.sh has it.
include=$1 cases=$2
promised=$(sed -n 's|^// error: ||p' "$cases"/*.cpp)
missing=$(sed -n 's/.*"\(chimera: .*\)".*/\1/p' "$include"/chimera/config/*.hpp "$include"/chimera/model/*.hpp \
  "$include"/chimera/core/*.hpp "$include"/chimera/core/platform/*.hpp |
  grep -v 'fsingle-precision-constant' |
  while IFS= read -r message; do
    printf '%s\n' "$promised" | grep -qxF -- "$message" ||
      printf '%s\n' "$promised" | grep -qx -- "$message\( [A-Z]\+\)\+" || echo "no case for: $message"
  done)
[ -z "$missing" ] && exit 0
echo "$missing"
exit 1
