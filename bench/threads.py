"""Threads beside other programs: tokens a second of models by number of threads, alone and beside busy loops.

usage: threads.py PATH_TO_chimera-bench MODEL... [--before PATH_TO_another_chimera-bench] [--threads 1,2,4,16]
                  [--busy 0,1,2] [--rounds N] [--llama]

--busy: loops that run beside, for each processor that may be used. A round measures every number of threads in turn, so
that what else the machine does meets all of them. Beside other programs one run may be many times another: a round's
figure is tokens by time over all of its runs (harmonic mean). Figures are medians over the rounds, ratios medians of
each round's ratio to the first number of threads. --before measures an older build in the same rounds. --llama:
llama.cpp, too (llama-cpp-python from PyPI), on files that it opens.
"""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

PROMPT, GENERATE, RUNS = 128, 64, 9
BUSY_LOOP = "while True: pass"


def of_chimera(program, model, threads):
    """Tokens a second of a prompt, and one by one."""
    run = subprocess.run(
        [program, "--model", model, "-t", str(threads), "-p", str(PROMPT), "-n", str(GENERATE), "-r",
         str(RUNS), "--no-roofline", "--json"], capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)
    return statistics.harmonic_mean(figures["prefill_runs"]), statistics.harmonic_mean(figures["decode_runs"])


def of_llama(_, model, threads):
    run = subprocess.run([sys.executable, __file__, "--llama-run", model, str(threads)], capture_output=True, text=True,
                         check=True)
    return tuple(json.loads(run.stdout))


def run_llama(model, threads):
    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    opened = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
    p = llama_cpp.llama_context_default_params()
    p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch = 1024, PROMPT, PROMPT, threads, threads
    context = llama_cpp.llama_init_from_model(opened, p)

    def read(count):
        tokens = (llama_cpp.llama_token * count)(*[3 + i % 50 for i in range(count)])
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, count)) == 0
        llama_cpp.llama_synchronize(context)

    runs = []
    for _ in range(RUNS + 1):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        start = time.perf_counter()
        read(PROMPT)
        middle = time.perf_counter()
        for _ in range(GENERATE):
            read(1)
        runs.append((PROMPT / (middle - start), GENERATE / (time.perf_counter() - middle)))
    print(json.dumps([statistics.harmonic_mean([r[i] for r in runs[1:]]) for i in (0, 1)]))


def main():
    if sys.argv[1:2] == ["--llama-run"]:
        return run_llama(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--before")
    parser.add_argument("--threads", default="1,2,4,16")
    parser.add_argument("--busy", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama", action="store_true")
    options = parser.parse_args()
    programs = {"chimera": (of_chimera, options.program)}
    if options.before:
        programs["before"] = (of_chimera, options.before)
    if options.llama:
        programs["llama.cpp"] = (of_llama, None)
    counts = [int(n) for n in options.threads.split(",")]
    processors = len(os.sched_getaffinity(0))

    print(f"{processors} processors, load {os.getloadavg()[0]:.1f}; prompt of {PROMPT}, {GENERATE} one by one")
    print(f"{'model':24} {'busy':>4} {'program':10} {'threads':>7} {'prompt':>9} {'of 1':>5} {'one':>9} {'of 1':>5}")
    for model in options.models:
        for busy in (int(n) for n in options.busy.split(",")):
            loops = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(busy * processors)]
            try:
                rounds = {(name, n): [] for name in programs for n in counts}
                for _ in range(options.rounds):
                    for n in counts:
                        for name, (measure, program) in programs.items():
                            rounds[name, n].append(measure(program, model, n))
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()
            for (name, n), figures in rounds.items():
                cells = []
                for i in (0, 1):
                    cells.append(statistics.median(f[i] for f in figures))
                    cells.append(statistics.median(f[i] / g[i] for f, g in zip(figures, rounds[name, counts[0]])))
                print(f"{os.path.basename(model)[:24]:24} {busy:4} {name:10} {n:7} "
                      f"{cells[0]:9.0f} {cells[1]:5.2f} {cells[2]:9.1f} {cells[3]:5.2f}", flush=True)


if __name__ == "__main__":
    main()
