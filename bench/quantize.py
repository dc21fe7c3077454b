"""Quantizing a GGUF file: chimera-quantize against llama.cpp's quantizer, in turns, on this machine and this disk.

usage: quantize.py PATH_TO_chimera-quantize MODEL.gguf [--types Q4_0,Q4_K_M] [--rounds N] [--threads N] [--folder DIR]
needs llama-cpp-python, gguf and numpy from PyPI; the model is read once before the first turn

chimera-quantize decodes what it wrote to report the errors, and brings the file to the disk before it gives it its
name. llama.cpp does neither, so its time is given with and without an fsync of its file.
"""
import argparse
import ctypes
import os
import subprocess
import tempfile
import time

import gguf
import llama_cpp
import numpy as np

TYPES = dict(F16=1, Q4_0=2, Q4_1=3, Q8_0=7, Q5_0=8, Q5_1=9, Q4_K_S=14, Q4_K_M=15, Q5_K_S=16, Q5_K_M=17, Q6_K=18,
             BF16=32, TQ1_0=36, TQ2_0=37)


def quiet(*_):
    pass


quiet = llama_cpp.llama_log_callback(quiet)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))


def llama_quantize(source, out, kind, threads):
    """Seconds without and with fsync."""
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.nthread = TYPES[kind], threads
    start = time.perf_counter()
    code = llama_cpp.llama_model_quantize(source.encode(), out.encode(), p)
    alone = time.perf_counter() - start
    assert code == 0, f"llama.cpp cannot quantize {source} to {kind}"
    with open(out, "rb") as f:
        os.fsync(f.fileno())
    return alone, time.perf_counter() - start


def chimera_quantize(program, source, out, kind, threads):
    start = time.perf_counter()
    subprocess.run([program, source, out, kind, "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def error(source, path):
    """Root mean square error of the tensors of `path` whose format is not the source's, row by row to save memory."""
    squares = count = 0
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for t in gguf.GGUFReader(source).tensors:
        other = theirs[t.name]
        if other.tensor_type == t.tensor_type:
            continue
        a, b = t.data.reshape(-1, t.data.shape[-1]), other.data.reshape(-1, other.data.shape[-1])
        for i in range(0, len(a), 1024):
            x = gguf.quants.dequantize(a[i:i + 1024], t.tensor_type)
            y = gguf.quants.dequantize(b[i:i + 1024], other.tensor_type)
            squares += float(np.square(x - y, dtype=np.float64).sum())
            count += x.size
    return (squares / max(count, 1)) ** 0.5


p = argparse.ArgumentParser()
p.add_argument("program")
p.add_argument("model")
p.add_argument("--types", default="Q4_0,Q8_0,Q4_K_M")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--folder", help="where both write; a temporary one if not given")
p.add_argument("--errors", action="store_true", help="compare the errors, too")
a = p.parse_args()

with open(a.model, "rb") as f:
    while f.read(1 << 24):
        pass
print(f"{os.path.getsize(a.model) / 1e6:.0f} MB, {a.threads} threads, best of {a.rounds}; seconds")
print(f"{'type':8} {'chimera':>8} {'llama.cpp':>9} {'+ fsync':>8} {'ratio':>6} {'+ fsync':>8}" +
      (f" {'rmse':>10} {'llama.cpp':>10}" if a.errors else ""))
with tempfile.TemporaryDirectory(dir=a.folder) as folder:
    ours, theirs = os.path.join(folder, "ours.gguf"), os.path.join(folder, "theirs.gguf")
    for kind in a.types.split(","):
        own, other = [], []
        for _ in range(a.rounds):
            own.append(chimera_quantize(a.program, a.model, ours, kind, a.threads))
            other.append(llama_quantize(a.model, theirs, kind, a.threads))
        best, alone, synced = min(own), min(t for t, _ in other), min(t for _, t in other)
        line = f"{kind:8} {best:8.2f} {alone:9.2f} {synced:8.2f} {alone / best:6.2f} {synced / best:8.2f}"
        if a.errors:
            line += f" {error(a.model, ours):10.3e} {error(a.model, theirs):10.3e}"
        print(line, flush=True)
