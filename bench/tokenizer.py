#!/usr/bin/env python3
"""Encodes texts with bench/tokenizer, tiktoken and splintr, o200k, one thread, taking turns:

    python3 bench/tokenizer.py BUILD/bench/tokenizer o200k_base.tiktoken TEXT...

Seconds are of the process, not of the clock, and each side counts its best round."""
import base64
import os
import subprocess
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
import splintr
import tiktoken

ROUNDS = 5
PATTERN = splintr.O200K_BASE_PATTERN


def rate(encode, text, size):
    start = time.process_time()
    ids = encode(text)
    return size / (time.process_time() - start) * 1e-6, ids


program, ranks_file, files = sys.argv[1], sys.argv[2], sys.argv[3:]
ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, open(ranks_file, "rb"))}
peers = {"tiktoken": tiktoken.Encoding("o200k", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={}).encode_ordinary}
for name in ("jit", "pcre2"):
    try:
        peers["splintr " + name] = getattr(splintr.Tokenizer.from_pretrained("o200k_base"), name)(True).encode_ordinary
    except Exception as error:  # not every build has both engines
        print("splintr", name, "left out:", error)
print(f"{'MB/s':24} {'chimera':>9}" + "".join(f"{name:>16} {'':6}" for name in peers))
for file in files:
    text = open(file, encoding="utf-8").read()
    size = len(text.encode())
    ours, theirs = 0.0, dict.fromkeys(peers, 0.0)
    for _ in range(ROUNDS):
        out = subprocess.run([program, ranks_file, file], capture_output=True, text=True, check=True).stdout.splitlines()[1]
        ours = max(ours, float(out.split()[-4]))
        for name, encode in peers.items():
            speed, ids = rate(encode, text, size)
            assert len(ids) == int(out.split()[-2]), (name, len(ids), out)
            theirs[name] = max(theirs[name], speed)
    print(f"{os.path.basename(file):24} {ours:9.1f}" + "".join(f"{v:16.1f} x{ours / v:5.2f}" for v in theirs.values()), flush=True)
