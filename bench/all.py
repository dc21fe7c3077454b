"""Runs the measurements and makes one table of their figures, and a file of JSON. See all.sh, which builds them first."""
import argparse
import glob
import importlib.util
import json
import os
import re
import subprocess
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("--json")
parser.add_argument("--models")
parser.add_argument("--make")
parser.add_argument("--only", default="roofline,packed_matrix,gemm,train_step,chimera-bench,llama.cpp")
options = parser.parse_args()
bench, wanted = f"{options.build}/bench", options.only.split(",")

FORMATS = ["Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "BF16", "F32"]
PROGRAMS = [("roofline",), ("packed_matrix", "2048", "1", *FORMATS), ("gemm", "1")]
PROGRAMS += [("train_step", model, "3", precision) for model in ("attention", "hybrid") for precision in ("f32", "bf16")]

figures, start = [], time.monotonic()


def add(program, figure):
    figures.append({"program": program, **figure})
    share = f"{100 * figure['share']:5.0f} % of {figure['of']}" if figure["share"] else ""
    print(f"{program:14} {figure['what']:36} {figure['value']:10.4g} {figure['unit']:12} {share}", flush=True)


def run(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_model(path):
    """A prompt of 256 tokens and 64 after it: shares of the peak and of the bandwidth measured in the same run."""
    f = json.loads(run([f"{options.build}/examples/chimera-bench", "-m", path, "-p", "256", "-n", "64", "-r", "3", "--json"]))
    name = os.path.basename(path).removesuffix(".gguf")
    integers = not f["format"].endswith(("F32", "F16"))
    add("chimera-bench", dict(what=f"{name}, prompt", value=f["prefill_tps_best"], unit="tok/s", share=f["peak_share"],
                              of="int8 peak" if integers else "f32 peak"))
    add("chimera-bench", dict(what=f"{name}, token by token", value=f["decode_tps_best"], unit="tok/s",
                              share=f["bandwidth_share"], of="read"))


def beside_llama(names):
    """Medians of three rounds' ratios."""
    table = run([sys.executable, f"{os.path.dirname(__file__)}/inference.py", f"{options.build}/examples/chimera-bench",
                 options.models, "--cases", ",".join(names), "--rounds", "3"])
    for name, *cells in re.findall(r"^(\S+)" + r"\s+([\d.]+)" * 8 + "$", table, re.M):
        for what, ratio in (("prompt", cells[2]), ("token by token", cells[6])):
            add("inference.py", dict(what=f"{name}, {what}", value=float(ratio), unit="x llama.cpp", share=0, of=""))


for program, *arguments in PROGRAMS:
    if program in wanted:
        for line in run([f"{bench}/{program}", "--json", *arguments]).splitlines():
            add(program, json.loads(line))
if options.models:
    has_llama = importlib.util.find_spec("llama_cpp") is not None
    if options.make and has_llama:
        run([sys.executable, f"{os.path.dirname(__file__)}/inference.py", "-", options.models, "--make", options.make,
             "--rounds", "0"])
    paths = sorted(glob.glob(f"{options.models}/*.gguf"))
    if "chimera-bench" in wanted:
        for path in paths:
            run_model(path)
    if "llama.cpp" in wanted and has_llama:
        beside_llama([os.path.basename(path).removesuffix(".gguf") for path in paths])

file = options.json or f"{options.build}/figures.json"
with open(file, "w") as f:
    json.dump(figures, f, indent=1)
print(f"\n{time.monotonic() - start:.0f} s; the figures are in {file}")
