"""A model of random weights in chimera and in llama.cpp: tokens a second in turns on the same file, and the first token.

usage: inference.py PATH_TO_chimera-bench FOLDER [--make make_hybrid_gguf.py] [--cases 43m-q4_0,870m-q8_0] [--rounds N]
                    [--threads N] [--first-token]
needs llama-cpp-python, gguf and numpy from PyPI

FOLDER holds the models as SHAPE-FORMAT.gguf. --make names the script that writes a model of random weights; with it what
is missing is made (and with --rounds 0 no more): the largest takes 3.5 GB of disk and memory meanwhile, 0.9 GB in the end.

A round is one run of each program: a prompt of 256 tokens in one batch, then 64 tokens one by one, after a warm-up of
the same. The ratio is the median of the rounds' ratios. --first-token: whole processes from a cold file cache, a prompt
of 401 tokens; of llama.cpp without the time and memory of Python itself.
"""
import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

import llama_cpp

SHAPES = {
    "43m": "--width 512 --layers 12 --attention-every 4 --ffn 1280 --vocab 4096",
    "870m": "--width 1536 --layers 24 --attention-every 6 --ffn 4096 --vocab 65536",
}
FILE_TYPES = dict(q4_0=2, q8_0=7, q4_k_m=15, tq2_0=37)
CASES = ("43m-q4_0", "43m-tq2_0", "870m-q4_0", "870m-q4_k_m", "870m-tq2_0", "870m-q8_0")
PROMPT, GENERATE, FIRST = 256, 64, 401


@llama_cpp.llama_log_callback
def quiet(*_):
    pass


llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


def make(folder, cases, script):
    """Writes the models that are missing."""
    for shape, flags in SHAPES.items():
        missing = [c for c in cases if c.split("-")[0] == shape and not os.path.exists(f"{folder}/{c}.gguf")]
        if not missing:
            continue
        whole = f"{folder}/{shape}-f32.gguf"
        subprocess.run([sys.executable, script, whole, *flags.split()], check=True)
        for case in missing:
            p = llama_cpp.llama_model_quantize_default_params()
            p.ftype = FILE_TYPES[case.split("-")[1]]
            code = llama_cpp.llama_model_quantize(whole.encode(), f"{folder}/{case}.partial".encode(), p)
            assert code == 0, f"llama.cpp cannot make {case}"
            os.rename(f"{folder}/{case}.partial", f"{folder}/{case}.gguf")
        os.remove(whole)


class Llama:
    """llama.cpp with a file open."""

    def __init__(self, path, threads, batch):
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        p = llama_cpp.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch = 1024, batch, batch, threads, threads
        self.context = llama_cpp.llama_init_from_model(self.model, p)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def read(self, tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(array, len(tokens))) == 0
        llama_cpp.llama_synchronize(self.context)

    def run(self):
        """Tokens a second of the prompt and of writing."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        tokens = [(i * 7919 + 1) % self.vocab for i in range(PROMPT + GENERATE)]
        start = time.perf_counter()
        self.read(tokens[:PROMPT])
        middle = time.perf_counter()
        for token in tokens[PROMPT:]:
            self.read([token])
        return PROMPT / (middle - start), GENERATE / (time.perf_counter() - middle)


def chimera(program, path, threads):
    out = subprocess.run([program, "--model", path, "--threads", str(threads), "--prompt", str(PROMPT), "--generate",
                          str(GENERATE), "--repeat", "1", "--json", "--no-roofline"], check=True, stdout=subprocess.PIPE).stdout
    figures = json.loads(out)
    return figures["prefill_tps"], figures["decode_tps"]


def compare(program, path, threads, rounds):
    llama = Llama(path, threads, PROMPT)
    llama.run()
    ours, theirs = [], []
    for i in range(rounds):
        for side in ("ours", "theirs") if i % 2 == 0 else ("theirs", "ours"):
            if side == "ours":
                ours.append(chimera(program, path, threads))
            else:
                theirs.append(llama.run())
    llama.close()
    cells = []
    for i in range(2):
        ratios = [a[i] / b[i] for a, b in zip(ours, theirs)]
        cells += [f"{max(a[i] for a in ours):8.1f}", f"{max(b[i] for b in theirs):9.1f}",
                  f"{statistics.median(ratios):6.2f}", f"{min(ratios):6.2f}"]
    return " ".join(cells)


def memory(key):
    """Bytes of this process: VmHWM at most so far, VmRSS now. (What getrusage tells may be the parent's.)"""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key))


def llama_first_token(path, threads):
    """Of this process: seconds and bytes from before the file is opened."""
    before, start = memory("VmRSS"), time.perf_counter()
    llama = Llama(path, threads, 512)
    llama.read([(i * 7919 + 1) % llama.vocab for i in range(FIRST)])
    llama_cpp.llama_get_logits_ith(llama.context, -1)
    print(json.dumps({"seconds": time.perf_counter() - start, "bytes": memory("VmHWM") - before}))


def first_token(program, path, threads):
    """Seconds and bytes of ours and of theirs."""
    def cold():
        with open(path, "rb") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    cold()
    start = time.perf_counter()
    out = subprocess.run([program, "--model", path, "--threads", str(threads), "--prompt", str(FIRST), "--generate", "0",
                          "--repeat", "0", "--json", "--no-roofline"], check=True, stdout=subprocess.PIPE).stdout
    seconds, figures = time.perf_counter() - start, json.loads(out)
    cold()
    out = subprocess.run([sys.executable, __file__, "--child", path, "-", "--threads", str(threads)], check=True,
                         stdout=subprocess.PIPE).stdout
    theirs = json.loads(out)
    return seconds, figures["memory"], theirs["seconds"], theirs["bytes"]


p = argparse.ArgumentParser()
p.add_argument("program")
p.add_argument("folder")
p.add_argument("--make")
p.add_argument("--cases", default=",".join(CASES))
p.add_argument("--rounds", type=int, default=5)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--first-token", action="store_true")
p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
a = p.parse_args()
if a.child:
    llama_first_token(a.program, a.threads)
    sys.exit()
cases = a.cases.split(",")
if a.make:
    make(a.folder, cases, a.make)
if a.rounds == 0:
    sys.exit()
paths = {case: f"{a.folder}/{case}.gguf" for case in cases}

print(f"tokens a second, best of {a.rounds} rounds, {a.threads} threads; ratios: median and least")
print(f"{'':12} {'prefill':>8} {'llama.cpp':>9} {'ratio':>6} {'least':>6} {'decode':>8} {'llama.cpp':>9} {'ratio':>6} "
      f"{'least':>6}")
for case, path in paths.items():
    print(f"{case:12} {compare(a.program, path, a.threads, a.rounds)}", flush=True)
if a.first_token:
    print(f"\nfirst token after a prompt of {FIRST} tokens, cold: best of {a.rounds}")
    print(f"{'':12} {'file, MB':>9} {'s':>6} {'llama.cpp':>9} {'ratio':>6} {'MB':>7} {'llama.cpp':>9}")
    for case, path in paths.items():
        runs = [first_token(a.program, path, a.threads) for _ in range(a.rounds)]
        own, own_bytes, other, other_bytes = (min(column) for column in zip(*runs))
        print(f"{case:12} {os.path.getsize(path) / 1e6:9.1f} {own:6.2f} {other:9.2f} {other / own:6.2f} "
              f"{own_bytes / 1e6:7.1f} {other_bytes / 1e6:9.1f}", flush=True)
