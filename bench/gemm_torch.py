#!/usr/bin/env python3
"""Compares bench/gemm with PyTorch in one run: python3 bench/gemm_torch.py BUILD/bench/gemm [THREADS] [ROUNDS]

The two take turns, round by round, so that both see the same noise; each side counts its best time."""
import subprocess
import sys
import time

import torch

THREADS = sys.argv[2] if len(sys.argv) > 2 else str(torch.get_num_threads())
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 5
PRODUCTS = [  # m, n, k, layout of A, layout of B: n is row-major, t is transposed in memory
    ("width 512, forward", 2048, 1536, 512, "n", "t"), ("width 512, dX", 2048, 512, 1536, "n", "n"),
    ("width 512, dW", 1536, 512, 2048, "t", "n"), ("vocab 4096, forward", 2048, 4096, 512, "n", "t"),
    ("vocab 4096, dX", 2048, 512, 4096, "n", "n"), ("vocab 4096, dW", 4096, 512, 2048, "t", "n"),
    ("Mamba in_proj, forward", 1024, 2320, 512, "n", "t"), ("Mamba in_proj, dX", 1024, 512, 2320, "n", "n"),
    ("Mamba in_proj, dW", 2320, 512, 1024, "t", "n"), ("width 128, forward", 768, 384, 128, "n", "t"),
    ("width 128, dX", 768, 128, 384, "n", "n"), ("width 128, dW", 384, 128, 768, "t", "n"),
    ("width 128, ffn", 768, 128, 512, "n", "t"), ("decode, one token", 1, 4096, 512, "n", "t"),
    ("decode, 8 tokens", 8, 4096, 512, "n", "t"), ("matrix-vector", 4096, 1, 4096, "n", "n"),
]


def torch_seconds(m, n, k, a, b, budget=0.2):
    x = torch.randn(k, m).t() if a == "t" else torch.randn(m, k)
    y = torch.randn(n, k).t() if b == "t" else torch.randn(k, n)
    out = torch.empty(m, n)
    best, start = 1e30, time.perf_counter()
    while time.perf_counter() - start < budget:
        t = time.perf_counter()
        torch.mm(x, y, out=out)
        best = min(best, time.perf_counter() - t)
    return best


torch.set_num_threads(int(THREADS))
ours = subprocess.Popen([sys.argv[1], THREADS, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(f"{'':24} {'chimera':>9} {'PyTorch':>9}  GFLOP/s")
for name, m, n, k, a, b in PRODUCTS:
    best = [1e30, 1e30]
    for _ in range(ROUNDS):
        print(m, n, k, a, b, file=ours.stdin, flush=True)
        best[0] = min(best[0], float(ours.stdout.readline()))
        time.sleep(0.01)
        best[1] = min(best[1], torch_seconds(m, n, k, a, b))
        time.sleep(0.01)
    rate = [2 * m * n * k / t * 1e-9 for t in best]
    print(f"{name:24} {rate[0]:9.1f} {rate[1]:9.1f}  ratio {rate[0] / rate[1]:.2f}", flush=True)
