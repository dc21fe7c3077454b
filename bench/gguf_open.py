"""Time to open a GGUF file: gguf_open, and llama.cpp's reader of the llama-cpp-python package, in turns.

Run as: python3 gguf_open.py PROGRAM FILE
"""
import ctypes
import pathlib
import subprocess
import sys
import time

import llama_cpp

program, path = sys.argv[1:3]
ggml = ctypes.CDLL(next(pathlib.Path(llama_cpp.__file__).parent.glob("lib/libggml-base.so")))
ggml.gguf_free.argtypes = [ctypes.c_void_p]
ggml.gguf_init_from_file.restype = ctypes.c_void_p


class Parameters(ctypes.Structure):
    _fields_ = [("no_alloc", ctypes.c_bool), ("context", ctypes.c_void_p)]


ggml.gguf_init_from_file.argtypes = [ctypes.c_char_p, Parameters]


def theirs():
    start = time.perf_counter()
    file = ggml.gguf_init_from_file(path.encode(), Parameters(True, None))
    ggml.gguf_free(file)
    return 1e3 * (time.perf_counter() - start)


times = []
for _ in range(5):
    ours = float(subprocess.run([program, path], check=True, capture_output=True, text=True).stdout)
    times.append((ours, min(theirs() for _ in range(5))))
ours, other = map(min, zip(*times))
print(f"chimera {ours:.2f} ms, llama.cpp {other:.2f} ms, {other / ours:.0f} times as long")
