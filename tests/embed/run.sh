#!/bin/sh
# run.sh CASE COMPILER CHIMERA BUILD WORK: uses the library in one way an application may, in the folder WORK, and runs
# the result. BUILD is where chimera itself was built.
set -eu
how=$1 compiler=$2 chimera=$3 build=$4 work=$5
host=$chimera/tests/embed/host.cpp
export CMAKE_GENERATOR=Ninja
plain="-O2 -std=c++20 -I $chimera/include"
quick="-O0 -DCHIMERA_ISA=base" # where how it is found matters, not how fast it is
rm -rf "$work"
mkdir -p "$work"
cd "$work"

install_to() { # install_to PREFIX
  CXX=$compiler cmake -S "$chimera" -B chimera -DCMAKE_INSTALL_PREFIX="$1" -DCHIMERA_BUILD_TESTS=OFF \
    -DCHIMERA_BUILD_EXAMPLES=OFF -DCHIMERA_BUILD_BENCH=OFF
  cmake --install chimera # nothing was built: headers need no more
}

case $how in
  plain)
    "$compiler" $plain "$host" -o host
    (ulimit -s 256 && ./host)
    ;;
  no_exceptions)
    "$compiler" $plain -O0 -fno-exceptions -fno-rtti "$host" -o host
    ;;
  one_level)
    "$compiler" $plain -O1 -DCHIMERA_ISA=base "$host" -o host
    ;;
  mixed_flags)
    "$compiler" $plain -O1 -Dmain=host_plain -c "$host" -o plain.o
    "$compiler" $plain -O1 -Dmain=host_avx2 -mavx2 -mfma -c "$host" -o avx2.o
    "$compiler" $plain "$chimera/tests/embed/mixed.cpp" avx2.o plain.o -o host
    ;;
  pkg_config)
    install_to "$work/prefix"
    mv prefix moved
    flags=$(PKG_CONFIG_PATH=$work/moved/share/pkgconfig pkg-config --cflags --libs chimera)
    "$compiler" $quick -std=c++20 "$host" $flags -o host
    ;;
  find_package)
    install_to "$work/prefix"
    CXX=$compiler CXXFLAGS="$quick" cmake -S "$chimera/tests/embed/project" -B . -DHOW="$how" -DCHIMERA="$work/prefix"
    cmake --build .
    ;;
  compiled) # a debug build of a host, and what depends on no config optimised and from where it was installed
    cmake --install "$build" --prefix "$work/prefix"
    mv prefix moved
    CXX=$compiler cmake -S "$chimera/tests/embed/project" -B . -DHOW="$how" -DCHIMERA="$work/moved" \
      -DCMAKE_BUILD_TYPE=Debug
    cmake --build .
    ;;
  by_hand)
    "$compiler" $plain $quick -DCHIMERA_EXTERN -c "$host" -o host.o
    "$compiler" $plain $quick -O1 -DCHIMERA_EXTERN -DCHIMERA_COMPILE -c "$chimera/cmake/compiled.cpp" -o compiled.o
    "$compiler" host.o compiled.o -pthread -o host
    ;;
  add_subdirectory | fetch_content)
    CXX=$compiler CXXFLAGS="$quick" cmake -S "$chimera/tests/embed/project" -B . -DHOW="$how" -DCHIMERA="$chimera"
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
  embedded) # the model's file becomes part of the program, which without it is small
    "$build/examples/odd_model" model.gguf
    cmake --install "$build" --prefix "$work/prefix"
    echo '{}' >config.json
    ! CXX=$compiler cmake -S "$chimera/examples/embed" -B wrong -Dchimera_ROOT="$work/prefix" \
      -DMODEL="$work/config.json" 2>why
    tr -s '\n ' ' ' <why | grep -q 'EMBED takes a .gguf file, found .*config.json' # CMake breaks lines
    CXX=$compiler CXXFLAGS=-O2 cmake -S "$chimera/examples/embed" -B . -Dchimera_ROOT="$work/prefix" \
      -DMODEL="$work/model.gguf"
    cmake --build .
    cmake --build . | grep -q 'no work to do'
    strip host
    weights=$(wc -c <model.gguf) code=$(($(wc -c <host) - $(wc -c <model.gguf)))
    echo "$code bytes and $weights of weights"
    test $code -le 1048576

    printf x | dd of=model.gguf bs=1 seek=$((weights - 4)) conv=notrunc
    cmake --build . --target host_file
    at=$(LC_ALL=C grep -obUaP 'GGUF\x03\0\0\0' libhost_file.a | head -n 1 | cut -d : -f 1)
    tail -c +$((at + 1)) libhost_file.a | head -c "$weights" | cmp - model.gguf
    rm model.gguf
    test "$(./host | wc -c)" -ge 20
    ;;
esac
./host
