#!/bin/sh
# run.sh CASE COMPILER CHIMERA BUILD WORK: uses the library in one way an application may, in the folder WORK, and runs
# the result. BUILD is where chimera itself was built.
set -eu
how=$1 compiler=$2 chimera=$3 build=$4 work=$5
host=$chimera/tests/embed/host.cpp
export CMAKE_GENERATOR=Ninja
plain="-O2 -std=c++20 -I $chimera/include"
rm -rf "$work"
mkdir -p "$work"
cd "$work"

install_to() { # install_to PREFIX
  CXX=$compiler cmake -S "$chimera" -B chimera -DCMAKE_INSTALL_PREFIX="$1" -DCHIMERA_BUILD_TESTS=OFF \
    -DCHIMERA_BUILD_EXAMPLES=OFF -DCHIMERA_BUILD_BENCH=OFF
  cmake --install chimera
}

case $how in
  plain)
    "$compiler" $plain "$host" -o host
    ;;
  no_exceptions)
    "$compiler" $plain -fno-exceptions -fno-rtti "$host" -o host
    ;;
  one_level)
    "$compiler" $plain -DCHIMERA_ISA=base "$host" -o host
    ;;
  mixed_flags)
    "$compiler" $plain -Dmain=host_plain -c "$host" -o plain.o
    "$compiler" $plain -Dmain=host_avx2 -mavx2 -mfma -c "$host" -o avx2.o
    "$compiler" $plain "$chimera/tests/embed/mixed.cpp" avx2.o plain.o -o host
    ;;
  small_stack)
    "$compiler" $plain "$host" -o host
    ulimit -s 256
    ;;
  pkg_config)
    install_to "$work/prefix"
    mv prefix moved
    flags=$(PKG_CONFIG_PATH=$work/moved/share/pkgconfig pkg-config --cflags --libs chimera)
    "$compiler" -O2 -std=c++20 "$host" $flags -o host
    ;;
  find_package)
    install_to "$work/prefix"
    CXX=$compiler cmake -S "$chimera/tests/embed/project" -B . -DHOW="$how" -DCHIMERA="$work/prefix"
    cmake --build .
    ;;
  add_subdirectory | fetch_content)
    CXX=$compiler cmake -S "$chimera/tests/embed/project" -B . -DHOW="$how" -DCHIMERA="$chimera"
    cmake --build .
    ;;
  add_model | add_model_installed)
    cp "$chimera/tests/embed/model/config.json" .
    if [ $how = add_model ]; then from=$chimera; else
      cmake --install "$build" --prefix "$work/prefix"
      mv prefix moved
      from=$work/moved
    fi
    CXX=$compiler cmake -S "$chimera/tests/embed/model" -B . -DHOW="$how" -DCHIMERA="$from" -DMODEL="$work/config.json"
    cmake --build .
    test "$(./host)" = 'small: width 64; own: width 64'
    cmake --build . >again
    grep -q 'no work to do' again
    sed 's/"hidden_size": 64/"hidden_size": 96/' "$chimera/tests/embed/model/config.json" >config.json
    cmake --build .
    test "$(./host)" = 'small: width 96; own: width 96'
    ;;
esac
./host
