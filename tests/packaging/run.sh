#!/bin/sh
# run.sh CHIMERA WORK: the Conan recipe makes a package that its test program uses. SKIPPED without Conan or what it
# could be installed with.
set -eu
chimera=$1 work=$2
rm -rf "$work"
mkdir -p "$work"
cd "$work"
conan=$(command -v conan || true)
if [ -z "$conan" ]; then
  python3 -m venv venv && venv/bin/pip install -q conan || { echo "SKIPPED: Conan is not there"; exit; }
  conan=$work/venv/bin/conan
fi
export CONAN_HOME="$work/home"
"$conan" profile detect
cp -r "$chimera/cmake/packaging/conan/test_package" . # it is built where it lies
"$conan" create "$chimera/cmake/packaging/conan" --test-folder "$work/test_package" -s compiler.cppstd=20 \
  -o 'chimera/*:hana=system' -c tools.cmake.cmaketoolchain:generator=Ninja >log 2>&1 || { tail -n 30 log; exit 1; }
grep 'chimera reads JSON' log
