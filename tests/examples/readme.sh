# The code in the README files compiles, and the program in the first one runs. usage: readme.sh COMPILER PROJECT
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
flags="-O1 -DCHIMERA_ISA=base -std=c++20 -Wall -Wextra -Wpedantic -Werror -I $2/include"

# The C++ blocks of a page become NAME1.cpp, NAME2.cpp ...
blocks() {
  awk -v name="$work/$2" '
    /^```/ { inside = 0 }
    inside { print > file }
    /^```cpp$/ { inside = 1; file = name (++n) ".cpp" }' "$1"
}
blocks "$2/README.md" program
blocks "$2/include/chimera/README.md" guide

for file in "$work"/*.cpp; do
  "$1" $flags -fsyntax-only "$file"
done
cd "$work"
"$1" $flags -fno-exceptions -fno-rtti program1.cpp -o program
./program "$2/README.md" >text
test "$(wc -c <text)" -ge 200
grep -q "^step 100 of 100: loss" text
./program /nonexistent 2>error && exit 1
grep -q /nonexistent error
