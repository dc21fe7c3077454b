# Sourced by the tests of the programs: sh TEST PROGRAMS TEXT
set -u
programs=$1
text=$2
PATH=$programs:$PATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export XDG_CACHE_HOME="$work/cache" # of engines
failures=0

wrong() {
  printf 'FAIL %s\n' "$1"
  sed 's/^/  /' "${2:-stderr}"
  failures=$((failures + 1))
}

# expect CODE PATTERN COMMAND...: the command ends with that code and says a line that matches; if it fails, that line
# is the last, starts with the program's name, and is the only one that does.
expect() {
  code=$1 pattern=$2
  shift 2
  "$@" >stdout 2>stderr </dev/null
  found=$?
  if [ "$found" -ne "$code" ]; then
    wrong "exit code $found, expected $code: $*"
  elif ! grep -q -e "$pattern" stderr; then
    wrong "expected a line with \"$pattern\": $*"
  elif [ "$code" -ne 0 ] && ! tail -n 1 stderr | grep -q "^$1: .*$pattern"; then
    wrong "expected the last line to be \"$1: ... $pattern\": $*"
  elif [ "$code" -ne 0 ] && [ "$(grep -c "^$1: " stderr)" -ne 1 ]; then
    wrong "expected one error, found several: $*"
  else
    printf 'ok   %s\n' "$*" | cut -c 1-110
  fi
}

# check WHAT COMMAND...: the command succeeds.
check() {
  what=$1
  shift
  if "$@" >/dev/null 2>check; then printf 'ok   %s\n' "$what"; else wrong "$what" check; fi
}

finish() {
  [ "$failures" -eq 0 ] && exit 0
  printf '%s failures\n' "$failures"
  exit 1
}

small="--config nano --batch 1 --context 32 --validation-tokens 64"

# All of a checkpoint behind its text, which has the time that the run took: what the run has learned. The text is the
# file's first section, and the next begins at a multiple of 64.
learned() {
  set -- "$1" $(od -An -t u8 -j 40 -N 16 "$1")
  tail -c +$((($2 + $3 + 63) / 64 * 64 + 1)) "$1"
}
