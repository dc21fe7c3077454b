# The program in the README compiles and runs. usage: readme.sh COMPILER PROJECT
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^```/ { inside = 0 } inside; /^```cpp$/ && !done { inside = done = 1 }' "$2/README.md" >"$work/program.cpp"
flags="-O2 -std=c++20 -Wall -Wextra -Wpedantic -Werror -I $2/include"
"$1" $flags -fsyntax-only "$work/program.cpp"
"$1" $flags -fno-exceptions -fno-rtti "$work/program.cpp" -o "$work/program"
"$work/program" "$2/README.md" >"$work/text"
test "$(wc -c <"$work/text")" -ge 100
