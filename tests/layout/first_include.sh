#!/bin/sh
# first_include.sh INCLUDE: each header includes one of ours first. The chain ends at core/version.hpp, which tells an old
# compiler so before anything else can fail.
set -eu
cd "$1"
for header in $(find chimera -name '*.hpp' ! -path chimera/core/version.hpp ! -path chimera/kernels/packed/loops.hpp ! -path chimera/kernels/ternary/tile.hpp); do
  first=$(grep -m 1 -E '^ *# *include' "$header" || echo nothing)
  case $first in
    '#include <chimera/'*) ;;
    *) echo "$header includes first: $first"; status=1 ;;
  esac
done
exit "${status-0}"
