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
  libcxx) # another standard library, whose std::from_chars takes no floats
    echo '#include <version>
int main() {}' >none.cpp
    "$compiler" -stdlib=libc++ none.cpp -o none || { echo "SKIPPED: libc++ is not installed"; exit; }
    "$compiler" $plain -O0 -stdlib=libc++ "$chimera/tests/core/read_number.cpp" "$chimera/tests/core/fields.cpp" \
      "$chimera/tests/main.cpp" -o numbers
    ./numbers
    "$compiler" $plain $quick -stdlib=libc++ "$host" -o host
    ;;
  one_level)
    "$compiler" $plain -O1 -DCHIMERA_ISA=base "$host" -o host
    ;;
  floating_point) # flags and pragmas that bend its rules: no compilation with one sentence, or right numbers
    exact() { "$compiler" $plain -DCHIMERA_ISA=base "$@" "$chimera/tests/embed/exact.cpp" -pthread -o host; }
    refused() { # refused SENTENCE FLAGS
      sentence=$1 && shift
      ! exact "$@" 2>errors || { echo "it compiled: $*"; exit 1; }
      grep -m 1 'error:' errors | grep -F "$sentence" || { cat errors; exit 1; }
    }
    right() { exact -w "$@" && ./host || { echo "with $*"; exit 1; }; }
    rules='chimera: its numbers need the rules of floating point; compile files that include it with -fno-fast-math'
    refused "$rules" -ffast-math
    refused "$rules" -Ofast
    refused "$rules" -ffinite-math-only
    right -Ofast -fno-fast-math -fno-signed-zeros -fno-trapping-math -fno-math-errno -ffp-contract=off
    if "$compiler" --version | grep -q clang; then # knows no macros for parts of -ffast-math
      right -funsafe-math-optimizations -fno-math-errno -fno-honor-nans
      right -fno-honor-infinities -freciprocal-math -ffp-contract=fast
      right -DPRAGMAS='"float_control(precise, off)"'
    else
      refused "$rules" -fassociative-math -fno-signed-zeros -fno-trapping-math
      refused "$rules" -freciprocal-math
      refused 'chimera: it needs double constants; compile without -fsingle-precision-constant' \
        -fsingle-precision-constant
      right -DPRAGMAS='"GCC optimize (\"fast-math\")"'
    fi
    ;;
  mixed_flags)
    "$compiler" $plain -O0 -Dmain=host_plain -c "$host" -o plain.o
    "$compiler" $plain -O0 -Dmain=host_avx2 -mavx2 -mfma -c "$host" -o avx2.o
    "$compiler" $plain "$chimera/tests/embed/mixed.cpp" avx2.o plain.o -o host
    ;;
  pkg_config)
    install_to "$work/prefix"
    mv prefix moved
    flags=$(PKG_CONFIG_PATH=$work/moved/share/pkgconfig pkg-config --cflags --libs chimera)
    "$compiler" $quick -std=c++20 "$chimera/tests/embed/found.cpp" $flags -o host
    ;;
  install_paths) # folders that are absolute, have spaces, lie below DESTDIR; Hana alone; what is installed goes again
    work=$(mktemp -d) # CMake installs to no absolute folder inside the project
    trap 'rm -rf "$work"' EXIT
    cd "$work"
    cat >small.cpp <<'END'
#include <chimera/io/json.hpp>
#include <cstdio>
int main() { std::puts(chimera::Json::parse("[1]") ? "read" : "not read"); }
END
    mkdir user
    cat >user/CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.23)
project(user LANGUAGES CXX)
find_package(chimera CONFIG REQUIRED)
add_executable(small ../small.cpp)
target_link_libraries(small PRIVATE chimera::chimera)
END
    built=0
    install_with() { # install_with OPTIONS...: into a build folder of its own
      built=$((built + 1))
      CXX=$compiler cmake -S "$chimera" -B "build $built" -DCHIMERA_BUILD_TESTS=OFF -DCHIMERA_BUILD_EXAMPLES=OFF \
        -DCHIMERA_BUILD_BENCH=OFF "$@"
      cmake --install "build $built"
    }
    use() { # use FOLDER...: of a chimera.pc, of a package
      test -f "$1/chimera.pc"
      (eval "\"\$compiler\" -std=c++20 small.cpp $(PKG_CONFIG_PATH=$1 pkg-config --cflags --libs chimera) -o small")
      test "$(./small)" = read
      rm -rf small used
      CXX=$compiler cmake -S user -B used -Dchimera_DIR="$2"
      cmake --build used
      test "$(used/small)" = read
    }
    whole() { # whole PREFIX: nothing that README names is missing
      for file in share/doc/chimera/LICENSE include/chimera/chimera.hpp share/pkgconfig/chimera.pc; do
        test -f "$1/$file"
      done
    }
    echo "== a prefix with a space, moved"
    install_with -DCMAKE_INSTALL_PREFIX="$work/a prefix"
    mv "a prefix" "another prefix"
    whole "another prefix"
    use "$work/another prefix/share/pkgconfig" "$work/another prefix/share/cmake/chimera"
    echo "== absolute folders"
    install_with -DCMAKE_INSTALL_PREFIX="$work/out" -DCMAKE_INSTALL_INCLUDEDIR="$work/dev out/include"
    use "$work/out/share/pkgconfig" "$work/out/share/cmake/chimera"
    install_with -DCMAKE_INSTALL_PREFIX="$work/b" -DCMAKE_INSTALL_INCLUDEDIR="$work/c/include" \
      -DCMAKE_INSTALL_DATADIR="$work/d e/share" -DCMAKE_INSTALL_LIBDIR="$work/f/lib" \
      -DCMAKE_INSTALL_BINDIR="$work/g/bin"
    use "$work/d e/share/pkgconfig" "$work/d e/share/cmake/chimera"
    echo "== DESTDIR, and uninstalling"
    DESTDIR="$work/stage" install_with -DCMAKE_INSTALL_PREFIX=/usr
    whole stage/usr
    use "$work/stage/usr/share/pkgconfig" "$work/stage/usr/share/cmake/chimera"
    touch stage/usr/include/of_others.h
    DESTDIR="$work/stage" cmake --build "build $built" --target uninstall
    test "$(find stage -type f)" = stage/usr/include/of_others.h -a -z "$(find stage -name '*chimera*')"
    echo "== Boost.Hana alone"
    mkdir -p "hana alone/boost"
    for folder in /usr/include /usr/local/include; do
      if [ -d $folder/boost/hana ]; then cp -r $folder/boost/hana "hana alone/boost/"; break; fi
    done
    install_with -DCMAKE_INSTALL_PREFIX="$work/h" -DBOOST_HANA="$work/hana alone" -DCMAKE_DISABLE_FIND_PACKAGE_Boost=ON
    CXX=$compiler cmake -S user -B alone -Dchimera_DIR="$work/h/share/cmake/chimera" \
      -DCMAKE_DISABLE_FIND_PACKAGE_Boost=ON
    cmake --build alone
    test "$(alone/small)" = read
    ! cmake -S "$chimera" -B none -DBOOST_HANA="$work/user" 2>why
    tr -s '\n ' ' ' <why | grep -q 'BOOST_HANA must be a folder with boost/hana/tuple.hpp, found .*/user'
    echo "== what is compiled once is optimised in any build, and an empty build type is told once"
    CXX=$compiler cmake -S "$chimera" -B debug -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS=-O0 \
      -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCHIMERA_BUILD_TESTS=OFF -DCHIMERA_BUILD_EXAMPLES=OFF \
      -DCHIMERA_BUILD_BENCH=OFF
    test "$(grep -o ' -O[^ ]*' debug/compile_commands.json | tail -n 1)" = ' -O2'
    CXX=$compiler cmake -S "$chimera" -B empty -DCHIMERA_BUILD_TESTS=OFF -DCHIMERA_BUILD_EXAMPLES=OFF \
      -DCHIMERA_BUILD_BENCH=OFF 2>first
    cmake empty 2>second
    grep -q 'CMAKE_BUILD_TYPE is empty' first
    if grep -q 'CMAKE_BUILD_TYPE is empty' second; then exit 1; fi
    exit 0
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
    "$compiler" $plain $quick -DCHIMERA_EXTERN -DCHIMERA_COMPILE -c "$chimera/cmake/compiled.cpp" -o compiled.o
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
    case $compiler in *clang*) most=997143 ;; *) most=954204 ;; esac # 0.91 MiB; clang makes 4.5 % more of it
    test $code -le $most

    printf x | dd of=model.gguf bs=1 seek=$((weights - 4)) conv=notrunc
    cmake --build . --target host_file
    at=$(LC_ALL=C grep -obUaP 'GGUF\x03\0\0\0' libhost_file.a | head -n 1 | cut -d : -f 1)
    tail -c +$((at + 1)) libhost_file.a | head -c "$weights" | cmp - model.gguf
    rm model.gguf
    test "$(./host | wc -c)" -ge 20
    ;;
esac
./host
