#!/usr/bin/env python3
"""Learns 32,768 tokens with chimera-tokenize and with the tokenizers package, the same files and threads, taking turns:

    python3 bench/tokenizer_train.py BUILD/examples/chimera-tokenize TEXT... [--parallel FILE.jsonl] [--unseen TEXT...]

Ours twice: a mix that is given, and the whole search for the mix that brings parity. Ours is the wall time of the program,
reading and writing files with it; theirs is that of `train` alone. Both have other work of the machine in them, so only
the ratios of one round count. Then bytes per token on texts that nobody learned from, and parity on aligned sentences."""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("texts", nargs="+")
parser.add_argument("--parallel")
parser.add_argument("--unseen", nargs="*", default=[])
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()
os.environ["RAYON_NUM_THREADS"] = str(args.threads)

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers  # reads the variable when loaded

QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
VOCAB = 32768


def theirs(pattern):
    tokenizer = Tokenizer(models.BPE())
    if pattern:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                                           pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    start = time.perf_counter()
    tokenizer.train(args.texts, trainer)
    return time.perf_counter() - start, tokenizer


def ours(out, *words):
    command = [args.program, "train", "--vocab", str(VOCAB), "--threads", str(args.threads), "--out", out, "--input",
               *args.texts, *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start, Tokenizer.from_file(out)


with tempfile.TemporaryDirectory() as folder:
    search = ["--parallel", args.parallel] if args.parallel else []
    runs = {
        "chimera, given mix": lambda: ours(folder + "/given.json", "--weight", "en=1", "--weight", "hi=1"),
        "chimera, search for parity": lambda: ours(folder + "/search.json", *search),
        "tokenizers, GPT-2": lambda: theirs(None),
        "tokenizers, qwen35": lambda: theirs(QWEN35),
    }
    seconds = {name: [] for name in runs}
    made = {}
    for _ in range(args.rounds):
        for name, run in runs.items():
            taken, made[name] = run()
            seconds[name].append(taken)
    for name, times in seconds.items():
        ratios = [", %s of %s" % (f"{statistics.median(a / b for a, b in zip(times, seconds[peer])):.2f}", peer)
                  for peer in ("tokenizers, GPT-2", "tokenizers, qwen35") if name.startswith("chimera")]
        print(f"{name:28} {min(times):6.2f} s" + "".join(ratios))
    print(f"{'bytes per token':28}" + "".join(f"{os.path.basename(path)[:18]:>20}" for path in args.unseen))
    for name, tokenizer in made.items():
        row = ""
        for path in args.unseen:
            text = open(path, encoding="utf-8", newline="").read()
            row += f"{len(text.encode()) / len(tokenizer.encode(text).ids):20.3f}"
        if args.parallel:
            pairs = [json.loads(line) for line in open(args.parallel, encoding="utf-8")]
            hi, en = (sum(len(tokenizer.encode(pair[key]).ids) for pair in pairs) for key in ("hi", "en"))
            row += f"   parity {hi / en:.3f}"
        print(f"{name:28}{row}")
