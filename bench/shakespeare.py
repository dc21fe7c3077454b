"""Tiny Shakespeare: nanoGPT's published CPU recipe (4 layers of width 128, 2,000 steps of 12 x 64 characters) in PyTorch, and
`chimera-train --recipe shakespeare`, one after the other on this machine: wall time of training and validation loss.

usage: shakespeare.py PATH_TO_chimera-train TEXT [--rounds N]      needs torch from PyPI
"""
import argparse
import math
import os
import re
import subprocess
import tempfile
import time

import torch
import torch.nn.functional as F

from train_step import NanoGpt

STEPS, BATCH, T = 2000, 12, 64


def nano_gpt(text):
    torch.manual_seed(1337)
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    data = torch.tensor([letters[c] for c in text])
    cut = int(0.9 * len(data))
    train, val = data[:cut], data[cut:]
    model = NanoGpt(vocab=len(letters), width=128, length=T, layers=4, heads=4)
    decay = [p for p in model.parameters() if p.dim() == 2]
    other = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": other, "weight_decay": 0.0}], lr=1e-3,
                                  betas=(0.9, 0.99))
    start = time.perf_counter()
    for step in range(STEPS):
        rate = 1e-3 * (step + 1) / 101 if step < 100 else 1e-4 + 4.5e-4 * (1 + math.cos(math.pi * (step - 100) / (STEPS - 100)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        at = torch.randint(len(train) - T, (BATCH,))
        x, y = (torch.stack([train[i + shift:i + shift + T] for i in at]) for shift in (0, 1))
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        rows = (len(val) - 1) // T
        x, y = val[:rows * T].view(rows, T), val[1:rows * T + 1].view(rows, T)
        total = sum(float(F.cross_entropy(model(a).flatten(0, 1), b.flatten(), reduction="sum")) for a, b in zip(x.split(64), y.split(64)))
    return seconds, total / (rows * T)


def chimera(program, path):
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = subprocess.run([program, "--recipe", "shakespeare", "--data", path, "--out", os.path.join(folder, "run")],
                             capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - start
    return seconds, float(re.search(r"val loss ([0-9.]+)", run.stdout).group(1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("text")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    with open(args.text) as f:
        text = f.read()
    for _ in range(args.rounds):
        ours, theirs = chimera(args.program, args.text), nano_gpt(text)
        print(f"chimera {ours[0]:.1f} s (whole program), val loss {ours[1]:.3f};  nanoGPT {theirs[0]:.1f} s (training loop), "
              f"val loss {theirs[1]:.3f};  time ratio {ours[0] / theirs[0]:.2f}", flush=True)
