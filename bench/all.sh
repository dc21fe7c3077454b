#!/bin/sh
# All measurements of this folder that have a share of what the machine can do, in one table: some ten minutes on two
# quiet cores.
#
#   sh bench/all.sh [--json FILE] [--models FOLDER] [--make make_hybrid_gguf.py] [--only PROGRAM,...]
#
# --json: the figures, too (figures.json by default, in the build folder). --models: a folder of GGUF files; each is run,
# and, if this Python has llama-cpp-python, timed beside llama.cpp. --make: the script that writes those that
# inference.py names and that are missing.
set -eu
cd "$(dirname "$0")/.."
cmake --preset release >/dev/null
cmake --build --preset release --target bench_roofline bench_packed_matrix bench_gemm bench_train_step chimera-bench \
  >/dev/null
exec python3 bench/all.py build/release "$@"
