"""Trains a small model with outlier channels, and compares its perplexity in each format with llama.cpp's. By hand:

outliers.py FOLDER_OF_PROGRAMS TEXT FOLDER [--factor 30] [--channels 4] [--steps 600] [--formats q8_0,q4_0,...]
needs llama-cpp-python, gguf and numpy

Large models have a few channels that are many times the others wherever a norm ends. Here the weights of all norms
before a mixer or a feed-forward are multiplied by the factor in some channels, at the start of training: the matrices
behind them learn with it, and are of usual size.
"""
import argparse
import os
import shutil
import subprocess
import sys

import gguf
import numpy

p = argparse.ArgumentParser()
p.add_argument("programs")
p.add_argument("text")
p.add_argument("folder")
p.add_argument("--factor", type=float, default=30)
p.add_argument("--channels", type=int, default=4)
p.add_argument("--steps", type=int, default=600)
p.add_argument("--formats", default="f32,q8_0,q4_0,q4_k_m,q6_k")
a = p.parse_args()
MODEL = "nano width=256 count=6 heads=4 hidden=768 embedding_scale=24".split()


def program(name, *arguments):
    subprocess.run([f"{a.programs}/{name}", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def largest_of_the_rest(path):
    """How far the scaled channels stand out of the norms when training has ended."""
    for t in gguf.GGUFReader(path).tensors:
        if t.name.endswith(("attn_norm.weight", "ffn_norm.weight")):
            sizes = numpy.sort(numpy.abs(t.data))
            yield sizes[-a.channels] / numpy.median(sizes)


os.makedirs(a.folder, exist_ok=True)
start, scaled, trained = (f"{a.folder}/{name}" for name in ("start.gguf", "scaled.gguf", "trained.gguf"))
for run in ("first", "run"):
    shutil.rmtree(f"{a.folder}/{run}", ignore_errors=True)
program("chimera-tokenize", "train", "--vocab", 2048, "--input", a.text, "--out", f"{a.folder}/words.json")
program("chimera-train", "--config", *MODEL, "--tokenizer", f"{a.folder}/words.json", "--data", a.text, "--steps", 1,
        "--lr", 1e-6, "--validation-interval", 0, "--out", f"{a.folder}/first")
program("chimera-convert", f"{a.folder}/first", start, "--force")
shutil.copy(start, scaled)
reader = gguf.GGUFReader(scaled, "r+")
for t in reader.tensors:
    if t.name.endswith(("attn_norm.weight", "ffn_norm.weight")):
        t.data[7::len(t.data) // a.channels] *= a.factor
reader.data.flush()
program("chimera-train", "--from", scaled, "--data", a.text, "--steps", a.steps, "--batch", 16, "--context", 128, "--lr",
        3e-3, "--clip", 1, "--validation-interval", 0, "--out", f"{a.folder}/run")
program("chimera-convert", f"{a.folder}/run", trained, "--force")
outliers = list(largest_of_the_rest(trained))
print(f"the scaled channels of the norms are {min(outliers):.0f} to {max(outliers):.0f} times the median")
bad = 0
for name in a.formats.split(","):
    path = f"{a.folder}/{name}.gguf"
    program("chimera-quantize", trained, path, name)
    bad += subprocess.run([sys.executable, f"{os.path.dirname(os.path.abspath(__file__))}/perplexity.py",
                           f"{a.programs}/chimera-perplexity", path, a.text, "--chunks", "40"]).returncode != 0
sys.exit(bad > 0)
