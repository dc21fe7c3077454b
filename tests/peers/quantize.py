"""chimera-quantize beside llama.cpp's quantizer: the same format for each tensor, no larger error, and llama.cpp runs
what it writes.

usage: quantize.py PATH_TO_chimera-quantize MODEL.gguf...    (f32 models that llama.cpp runs)
needs llama-cpp-python, gguf and numpy from PyPI
"""
import argparse
import ctypes
import os
import subprocess
import sys
import tempfile

sys.path.pop(0)  # this folder: its scripts are no modules
import gguf
import llama_cpp
import numpy as np

TYPES = dict(F16=1, Q4_0=2, Q4_1=3, Q8_0=7, Q5_0=8, Q5_1=9, Q4_K_S=14, Q4_K_M=15, Q5_K_S=16, Q5_K_M=17, Q6_K=18,
             BF16=32, TQ1_0=36, TQ2_0=37)

quiet = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))


def llama_quantize(source, out, kind):
    p = llama_cpp.llama_model_quantize_default_params()
    p.ftype, p.nthread = TYPES[kind], 2
    assert llama_cpp.llama_model_quantize(source.encode(), out.encode(), p) == 0, f"llama.cpp cannot write {kind}"


def numbers(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(-1).astype(np.float64)


def metadata(reader):
    return {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}


def compare(source, ours, theirs):
    """What is wrong, in words; and how many tensors have the very bytes of llama.cpp's."""
    wrong, same, worst = [], 0, 0.0
    original = {t.name: t for t in gguf.GGUFReader(source).tensors}
    reader, other = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    if metadata(reader) != metadata(other):
        wrong.append("the metadata differ")
    peers = {t.name: t for t in other.tensors}
    for t in reader.tensors:
        peer = peers.pop(t.name)
        if t.tensor_type != peer.tensor_type:
            wrong.append(f"{t.name} is {t.tensor_type.name}, llama.cpp's {peer.tensor_type.name}")
            continue
        if np.array_equal(t.data.reshape(-1).view(np.uint8), peer.data.reshape(-1).view(np.uint8)):
            same += 1
            continue
        x = numbers(original[t.name])
        ratio = np.linalg.norm(numbers(t) - x) / np.linalg.norm(numbers(peer) - x)
        worst = max(worst, ratio)
        if ratio > 1:
            wrong.append(f"{t.name} has {ratio:.4f} of the error of llama.cpp's")
    if peers:
        wrong.append(f"{len(peers)} tensors are missing")
    rest = f", the others at most {worst:.4f} of the error" if same < len(original) else ""
    return wrong, f"{same} of {len(original)} tensors have equal bytes" + rest


def runs(path):
    model = llama_cpp.Llama(path, n_ctx=32, n_threads=2, logits_all=True, verbose=False)
    model.eval([1, 2, 3, 4])
    return np.isfinite(np.array(model.scores[:4])).all()


p = argparse.ArgumentParser()
p.add_argument("program")
p.add_argument("models", nargs="+")
a = p.parse_args()
failed = 0
with tempfile.TemporaryDirectory() as folder:
    ours, theirs = os.path.join(folder, "ours.gguf"), os.path.join(folder, "theirs.gguf")
    for model in a.models:
        for kind in TYPES:
            subprocess.run([a.program, model, ours, kind], check=True, capture_output=True)
            llama_quantize(model, theirs, kind)
            wrong, line = compare(model, ours, theirs)
            if not runs(ours):
                wrong.append("llama.cpp gets no finite logits from it")
            failed += bool(wrong)
            print(f"{os.path.basename(model)} {kind}: {line}" + "".join(f"\n  FAIL {w}" for w in wrong), flush=True)
raise SystemExit(failed > 0)
