#!/bin/sh
# install-missing.sh PACKAGE...: installs those of these Debian packages that are not installed yet, as root or with
# sudo. With nothing missing it needs neither root nor a network.
set -eu

if ! command -v dpkg-query >/dev/null; then
  echo "This is no Debian or Ubuntu: please see to it that these are installed: $*"
  exit 0
fi

missing=
for package in "$@"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "Missing packages:$missing. Install them as root, or install sudo." >&2
    exit 1
  fi
  as_root=sudo
fi
echo "Installing$missing"
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing
