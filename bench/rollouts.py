#!/usr/bin/env python3
"""Completions a second of a model that learns: chimera-align grpo beside transformers' generate, same weights, one run.

usage: rollouts.py PROGRAMS MODEL [--group 8] [--completion 64] [--threads 2] [--rounds 2]
MODEL is what chimera-align opens and chimera-convert makes a Hugging Face folder of. The two take turns; of each the
best round counts. Ours also packs the weights anew for each step, and says what share of a step that and writing take.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser()
p.add_argument("programs")
p.add_argument("model")
p.add_argument("--group", type=int, default=8)
p.add_argument("--completion", type=int, default=64)
p.add_argument("--prompt", type=int, default=48, help="tokens of transformers' prompt; ours has about as many")
p.add_argument("--threads", type=int, default=2)
p.add_argument("--rounds", type=int, default=2)
a = p.parse_args()
torch.set_num_threads(a.threads)


def ours(folder, number, flags):
    out = folder / f"run{number}{''.join(flags)}"
    subprocess.run([f"{a.programs}/chimera-align", "grpo", "--model", a.model, "--out", out,
                    "--threads", str(a.threads), "--group", str(a.group), "--batch", str(a.group),
                    "--accumulation", "1", "--steps", "3", "--draws", "1",
                    "--completion", str(a.completion), "--context", str(a.completion + 64), "--no-instruction",
                    "--lr", "1e-9", "--held-out-problems", "1", "--validation-interval", "0", *flags],
                   check=True, capture_output=True)
    lines = [json.loads(x) for x in (out / "metrics.jsonl").read_text().splitlines()]
    return max(((x["rollout_tokens_per_second"], x["rollout_seconds"], x["step_seconds"])
                for x in lines if "rollout_seconds" in x))


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    subprocess.run([f"{a.programs}/chimera-convert", a.model, folder / "hf"], check=True, capture_output=True)
    peer = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
    prompt = torch.randint(0, 256, (1, a.prompt)).repeat(a.group, 1)
    best = {}
    for number in range(a.rounds):
        for flags in ([], ["--q8-rollouts"]):
            key = "chimera, " + ("Q8_0" if flags else "f32")
            best[key] = max(best.get(key, (0, 0, 1)), ours(folder, number, flags))
        start = time.perf_counter()
        with torch.no_grad():
            peer.generate(prompt, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=a.completion,
                          min_new_tokens=a.completion, pad_token_id=0)
        seconds = time.perf_counter() - start
        best["transformers"] = max(best.get("transformers", (0,)), (a.group * a.completion / seconds,))
    for key, (speed, *step) in best.items():
        share = f", {100 * step[0] / step[1]:.0f} % of a step of {step[1]:.2f} s" if step else ""
        print(f"{key:16} {speed:9.1f} tokens/s, {speed / best['transformers'][0]:6.1f} x{share}")
