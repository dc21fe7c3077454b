#!/bin/sh
# check.sh COMPILER INCLUDE CASE: the case must not compile, and the first error must say what its first line promises.
# A case that promises nothing must compile. Flags of a case are in its second line; then that error is the only one.
compiler=$1 include=$2 case=$3
expected=$(sed -n '1s|^// error: ||p' "$case")
flags=$(sed -n '2s|^// flags: ||p' "$case")
if output=$(LC_ALL=C "$compiler" -std=c++20 $flags -fsyntax-only -I "$include" "$case" 2>&1); then
  [ -z "$expected" ] && exit 0
  echo "it compiled; expected the error: $expected"
  exit 1
fi
first=$(printf '%s\n' "$output" | grep -m 1 'error:')
case $first in
  *"${expected:-?}"*)
    echo "$first"
    [ -z "$flags" ] || [ "$(printf '%s\n' "$output" | grep -c ': error: ')" -eq 1 ] ||
      { echo "expected no other error"; exit 1; }
    ;;
  *)
    echo "expected: ${expected:-no error}"
    echo "found:    $first"
    exit 1
    ;;
esac
