#!/bin/sh
# What a newcomer meets: a bare Debian 12 and a bare Ubuntu 24.04 in a temporary folder, a clone of this project, the
# quickstart, then ten commands; with the seconds that each takes. By hand, as root; it takes a quarter of an hour for
# each system. bare_root.sh [debian] [ubuntu]
# Environment: DEBIAN_MIRROR, UBUNTU_MIRROR, UBUNTU_KEYRING; CHIMERA_PYTHON: a Python with gguf and transformers,
# outside the roots.
set -eu
project=$(cd "$(dirname "$0")/.." && pwd)
[ "$#" -gt 0 ] || set -- debian ubuntu
[ "$(id -u)" -eq 0 ] || { echo "SKIPPED: only root can make a root"; exit 0; }
sh "$project/cmake/install-missing.sh" debootstrap git
work=$(mktemp -d)
mounted=
leave() {
  [ -z "$mounted" ] || umount "$mounted"
  rm -rf --one-file-system "$work"
}
trap leave EXIT
trap 'exit 1' INT TERM

# The mirror that apt uses here, if this is a Debian.
apt_mirror() {
  apt-cache policy base-files 2>/dev/null | sed -n 's|.* \(https*://[^ ]*debian[^ ]*\) .*/main .*|\1|p' | head -n 1
}

# Ubuntu's key, from its own package if no package of this system brings it, and then by its fingerprint.
ubuntu_keyring() {
  for keyring in "${UBUNTU_KEYRING:-}" /usr/share/keyrings/ubuntu-archive-keyring.gpg; do
    [ ! -s "$keyring" ] || { echo "$keyring"; return; }
  done
  wget -q -T 20 -O "$work/keyring.deb" "$1/pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb" || return
  dpkg-deb -x "$work/keyring.deb" "$work/keyring"
  key=$work/keyring/etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg
  prints=$(gpg --homedir "$work" --show-keys --with-colons "$key" 2>/dev/null | awk -F: '/^fpr/ { print $10 }')
  [ "$prints" != F6ECB3762474EDA9D21B7022871920D1991BC93C ] || echo "$key"
}

# in_root COMMAND...: in the clone, as a newcomer's shell would be
in_root() {
  chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} sh -c "cd /root/chimera && $1"
}

# Seconds of processors that the commands so far took, which other load does not change much.
processors() {
  times >"$work/times"
  awk 'NR == 2 { split($0, t, /[ms ]+/); printf "%d", 60 * (t[1] + t[3]) + t[2] + t[4] }' "$work/times"
}

# told RESULT NAME LINES: how long it took, and the last lines it printed
told() {
  processors >"$work/after"
  printf '%-7s %4d s, %4d s of processors  %s\n' "$1" $(($(date +%s) - begin)) $(($(cat "$work/after") - before)) "$2"
  tail -n "${3:-2}" "$work/log" | cut -c 1-160 | sed 's/^/                  /'
}

# timed NAME COMMAND
failed=0
timed() {
  begin=$(date +%s)
  processors >"$work/before"
  before=$(cat "$work/before")
  if in_root "$2" >"$work/log" 2>&1 </dev/null; then result=ok; else result=FAILED failed=$((failed + 1)); fi
  told $result "$1" "${3:-2}"
}

try() {
  system=$1 suite=$2 mirror=$3 script=$4 parts=$5 keyring=$6
  printf '\n== %s %s from %s, %s processors\n' "$system" "$suite" "$mirror" "$(nproc)"
  root=$work/$system
  if [ -z "$mirror" ]; then
    echo "SKIPPED: no archive of it; name one in DEBIAN_MIRROR or UBUNTU_MIRROR"
    return
  fi
  if [ -z "$keyring" ]; then
    echo "SKIPPED: no key of its archive; name one in UBUNTU_KEYRING"
    return
  fi
  if ! debootstrap --variant=minbase --keyring="$keyring" --components="$parts" "$suite" "$root" "$mirror" $script \
    >"$work/log" 2>&1; then
    echo "SKIPPED: $(tail -n 1 "$work/log")"
    return
  fi
  apt-config dump 2>/dev/null | grep -i '^Acquire::https*::Proxy ' >"$root/etc/apt/apt.conf.d/90proxy" || :
  cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || :
  mount -t proc proc "$root/proc" && mounted=$root/proc
  git clone -q "$project" "$root/root/chimera"

  timed 'quickstart, from the clone to the sample' 'sh examples/quickstart.sh' 40
  timed 'build all the programs' 'cmake --build build/programs'
  cat >"$root/root/chimera/path" <<'END'
PATH=$PWD/build/programs/examples:$PATH
run=$(ls -d runs/quickstart-*)
END
  timed '1 train a tokenizer' '. ./path; chimera-tokenize train --vocab 1000 --input $run/text.txt --out words.json'
  timed '2 train with it' '. ./path; chimera-train --tokenizer words.json --data $run/text.txt --out runs/first --minutes 0.5'
  timed '3 resume' '. ./path; chimera-train --resume --out runs/first --minutes 0.6'
  timed '4 generate' '. ./path; chimera-generate --model runs/first --prompt "The" --tokens 40'
  timed '5 chat, from standard input' '. ./path; echo "Hello" | chimera-chat --model runs/first --tokens 40'
  timed '6 convert' '. ./path; chimera-convert runs/first first.gguf && chimera-convert runs/first first/'
  timed '7 quantize' '. ./path; chimera-quantize first.gguf small.gguf q8_0 --text words.json'
  if [ -n "${CHIMERA_PYTHON:-}" ]; then
    begin=$(date +%s) before=$(cat "$work/after")
    if (cd "$root/root/chimera" && "$CHIMERA_PYTHON" -c '
import gguf, transformers
print(len(gguf.GGUFReader("first.gguf").tensors), "tensors in GGUF")
model = transformers.AutoModelForCausalLM.from_pretrained("first")
words = transformers.AutoTokenizer.from_pretrained("first")
print(words.decode(model.generate(**words("The", return_tensors="pt"), max_new_tokens=20)[0]))') >"$work/log" 2>&1; then
      result=ok
    else
      result=FAILED failed=$((failed + 1))
    fi
    told $result '8 open in transformers and gguf'
  else
    echo 'SKIPPED         8 open in transformers and gguf: CHIMERA_PYTHON names no Python'
  fi
  timed '9 embed' 'cmake -G Ninja -S examples/embed -B build/embed -DMODEL=$PWD/small.gguf >/dev/null && cmake --build build/embed &&
    build/embed/host'
  timed '10 game' '. ./path; find build/programs -name game_loop -type f -exec {} --model small.gguf --frames 300 \;'
  [ -z "$mounted" ] || umount "$mounted"
  mounted=
}

for system; do
  case $system in
    debian)
      mirror=${DEBIAN_MIRROR:-$(apt_mirror)}
      try debian bookworm "$mirror" '' main /usr/share/keyrings/debian-archive-keyring.gpg
      ;;
    ubuntu)
      mirror=${UBUNTU_MIRROR:-}
      try ubuntu noble "$mirror" /usr/share/debootstrap/scripts/gutsy main,universe "$(ubuntu_keyring "$mirror" || :)"
      ;;
    *) echo "bare_root.sh: expected debian or ubuntu, found $system" >&2 && exit 2 ;;
  esac
done
[ "$failed" -eq 0 ] || { printf '\n%s failures\n' "$failed"; exit 1; }
