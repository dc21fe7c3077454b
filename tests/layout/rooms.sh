#!/bin/sh
# rooms.sh INCLUDE: what chimera/README.md says of the rooms holds. Its tables are read from there.
set -eu
cd "$1/chimera"

# Faults that are known and being mended, by the words they begin with: they are counted and fail nothing.
pending='
'

# Arrows that no table can say: a file and the one room that it may include besides.
# Configs and models come from checkpoints, too, and only these files know all that they may come from.
but='exchange/config_from_file.hpp train
exchange/saved_model.hpp train'

headers=$(find . -name '*.hpp' | sed 's|^\./||' | sort)
test -n "$headers"

# "FROM TO": each header and what it includes of ours.
includes=$(awk '/^#include <chimera\/.*\.hpp>/ { sub(/.*<chimera\//, ""); sub(/>.*/, ""); print FILENAME, $0 }' $headers)

# "ROOM A B ...": a row of the README's table of rooms, and what it stands on.
rooms=$(awk -F'|' '/^\| `[a-z0-9]+\/` / { gsub(/[`\/,]/, " ", $2); gsub(/[`\/,]/, " ", $4); print $2, $4 }' README.md)

# The headers that FILE includes, and those that they include.
closure() {
  printf '%s\n' "$includes" | awk -v from="$1" '
    function visit(file,    n, i, to) {
      n = split(all[file], to, " ")
      for (i = 1; i <= n; ++i) if (!seen[to[i]]++) { print to[i]; visit(to[i]) }
    }
    { all[$1] = all[$1] " " $2 }
    END { visit(from) }'
}

# A room includes itself and the rooms that the README names for it, all of which are below it; and each of these.
arrows() {
  { printf '%s\n' "$rooms" | sed 's/^/room /'; printf '%s\n' "$but" | sed 's/^/but /'; printf '%s\n' "$includes"; } | awk '
    function room_of(file) { return file ~ /\// ? substr(file, 1, index(file, "/") - 1) : "" }
    $1 == "room" { floor[$2] = NR; for (i = 3; i <= NF; ++i) stands[$2, $i] = NR; next }
    $1 == "but" { except[$2, $3]; next }
    {
      from = room_of($1); to = room_of($2)
      if (from == "" || from == to || ($1, to) in except) next
      if (!(from in floor)) print $1 " lies in a room that the table does not have"
      else if (!((from, to) in stands)) print $1 " includes " $2
      else used[from, to]
    }
    END {
      for (arrow in stands) {
        split(arrow, ends, SUBSEP)
        if (!(ends[2] in floor) || floor[ends[2]] <= floor[ends[1]])
          print ends[1] "/ stands on " ends[2] "/ in the table, which is not below it"
        if (!(arrow in used)) print ends[1] "/ stands on " ends[2] "/ in the table, and none of its headers does"
      }
    }'
}

# FILE includes, however far down, nothing that the pattern matches.
closes_over_none_of() { closure "$1" | grep -E "$2" || true; }

# FILE includes at most so many headers, however far down.
closes_over_at_most() {
  count=$(closure "$1" | wc -l)
  [ "$count" -le "$2" ] || echo "$1 includes $count headers, at most $2 were expected"
}

# What is private to a file x.hpp lies in a namespace x_parts, which files in one folder may share. All declare it in
# `chimera`, or all in its inline namespace, else a file that sees both cannot say which it means.
private_names() {
  awk '
    function room_of(file) { return substr(file, 1, index(file, "/") - 1) }
    /^namespace chimera/ { outer = /CHIMERA_ABI/ ? "chimera::CHIMERA_ABI" : "chimera" }
    { sub(/\/\/.*/, "") }
    /^namespace .*[a-z0-9_]+_parts \{/ {
      name = $0; sub(/ \{.*/, "", name); sub(/.*[ :]/, "", name)
      folder = FILENAME; sub(/\/[^\/]*$/, "", folder)
      if (name in lies && lies[name] != folder) print FILENAME " declares " name ", as " lies[name] "/ does"
      if (name in within && within[name] != outer)
        print FILENAME " declares " outer "::" name ", others " within[name] "::" name
      lies[name] = folder; within[name] = outer; home[name] = room_of(FILENAME)
    }
    {
      rest = $0
      while (match(rest, /[a-z][a-z0-9_]*_parts(::|;)/)) {
        name = substr(rest, RSTART, RLENGTH); sub(/(::|;)$/, "", name)
        uses[++n] = FILENAME " " name
        rest = substr(rest, RSTART + RLENGTH)
      }
    }
    END {
      for (i = 1; i <= n; ++i) {
        split(uses[i], use, " ")
        if (!(use[2] in home)) print use[1] " uses " use[2] ", which no header declares"
        else if (home[use[2]] != room_of(use[1])) print use[1] " uses " use[2] " of " home[use[2]] "/"
      }
    }' $headers
}

# Layers say what is computed, in kernels; they hold no instruction, no thread and nothing that touches memory itself.
verbs_in_layers() {
  awk '{ code = $0; sub(/\/\/.*/, "", code) }
       code ~ /dispatch<|parallel|Isa|q\.scratch|std::(fill|copy|mem)/ { print FILENAME ":" FNR ": " $0 }' \
    layers/*.hpp model/block.hpp
}

# A layer has a file in each room that must know of it, a line in each list of layers, its numbers in Config, and presets.
files_that_name() {
  grep -lE "$2" $headers | grep -vE "/$1\.hpp\$|^config/(config|kinds|presets)\.hpp\$|^(model/registry|exchange/layers)\.hpp\$" ||
    true
}

# Where CHIMERA_BODIES is not defined, a second half is left out in silence.
halves_without_their_macro() {
  for header in $headers; do
    case $header in core/namespace.hpp) continue ;; esac
    grep -q CHIMERA_BODIES "$header" || continue
    grep -q '^#include <chimera/core/namespace.hpp>' "$header" || echo "$header"
  done
}

# The rows of "What is public", ten or more: the header is there and declares each name of the row.
public_names() {
  awk -F'|' '/^## / { public = /What is public/ }
             public && $4 ~ /\.hpp/ { gsub(/[`,]/, " "); print $4, $3 }' README.md |
    while read -r header names; do
      [ -f "$header" ] || { echo "$header is not there"; continue; }
      for name in $names; do
        grep -qE "^ *(struct|class|enum class) (\[\[nodiscard\]\] )?$name\b|^using $name =|^[^/]*[A-Za-z>&*] $name\(" \
          "$header" ||
          echo "$header declares no $name"
      done
    done
  rows=$(awk '/^## / { public = /What is public/ } public && /\.hpp/' README.md | wc -l)
  [ "$rows" -ge 10 ] || echo "the table of public names has $rows rows"
}

status=0
# NAME of a rule, what to do if it is broken, and the command that prints its faults.
rule() {
  name=$1 advice=$2
  shift 2
  found=$("$@" | awk -v name="$name" '
    BEGIN { n = split(ENVIRON["pending"], known, "\n") }
    {
      fault = name ": " $0
      for (i = 1; i <= n; ++i) if (known[i] != "" && index(fault, known[i]) == 1) { ++count[i]; next }
      print fault
    }
    END { for (i = 1; i <= n; ++i) if (count[i]) print "pending: " known[i] " (" count[i] ")" }')
  [ -z "$found" ] || printf '%s\n' "$found"
  printf '%s\n' "$found" | grep -qvE '^(pending: .*)?$' || return 0
  printf '%s\n\n' "$advice"
  status=1
}
export pending

rule arrows 'Move what is needed to a room below; or, if the floors have changed, mend the table of README.md.' arrows
rule pack 'A program that runs a model pays for all that pack.hpp includes: break the arrow that leads there.' \
  closes_over_none_of exchange/pack.hpp '^(train|optim|align|text)/'
rule adamw 'An optimizer needs a table of weights and vectors: move what it names out of the heavy header.' \
  closes_over_at_most optim/adamw.hpp 14
rule inference 'inference.hpp brings nothing of training: take the header or the arrow to it out.' \
  closes_over_none_of inference.hpp '^(train|optim|align)/|^text/bpe_'
rule training 'training.hpp brings no sessions and no files of others: take the header or the arrow to it out.' \
  closes_over_none_of training.hpp '^(generate|exchange)/'
rule private 'Name it after its file, or make it public: a private name means one thing, in its own room.' \
  private_names
rule layers 'Make it a kernel, in kernels/, and call that: layers must run on any device.' verbs_in_layers
rule detail 'Call a private namespace after its file: x_parts for x.hpp.' grep -nwi detail $headers
rule halves 'Include core/namespace.hpp, which says whether the second half of a header is seen.' \
  halves_without_their_macro
rule rg_lru 'What the layer needs goes into its own files; let this one walk the list of layers.' \
  files_that_name rg_lru 'rg_lru|RgLru'
rule public 'The table "What is public" of README.md must be true: mend it, or bring the name back.' public_names
exit $status
