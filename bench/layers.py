"""Each kind of layer alone: models of one word of the pattern and of equal size, trained alike on one text. A table of the
validation loss, tokens a second of training, bytes of state, and tokens a second of writing after 1k and after 100k tokens
(or as many as --deep says: of attention alone the 100k take minutes).

usage: layers.py FOLDER_OF_PROGRAMS TEXT [--words A,M,...] [--steps N] [--width N] [--weights N] [--seeds N] [--deep N] [--json FILE]

FOLDER_OF_PROGRAMS: build/release/examples. A model that is no preset is compiled when it is first met, some seconds each.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile

LAYERS = 4
# What a word's own numbers are at a width: heads of 64, or as near to it as the layer has them.
SHAPES = {
    "A": lambda width: {"heads": width // 64},
    "M": lambda width: {"mamba2.head_dim": 64, "mamba2.state": 64},
    "R": lambda width: {"rg_lru.heads": width // 64},
    "GD": lambda width: {"gated_deltanet.key_heads": width // 64, "gated_deltanet.value_heads": width // 64,
                         "gated_deltanet.key_dim": 64},
    "XM": lambda width: {"mlstm.heads": max(1, width // 128)},
    "TM": lambda width: {"titans.heads": width // 64},
    "SK": lambda width: {"span_knot.heads": width // 64},
}


def run(program, *arguments):
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{os.path.basename(program)}: {done.stderr.strip()}")
    return done.stdout


class Bench:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder

    def program(self, name):
        return os.path.join(self.args.programs, "chimera-" + name)

    def train(self, word, hidden, out, steps, seed=1):
        numbers = {"vocab": 256, "width": self.args.width, "context": 102400, "ffn.hidden": hidden, **SHAPES[word](self.args.width)}
        return run(self.program("train"), "--config", "nano", f"layers={word}", f"count={LAYERS}",
                   *(f"{k}={v}" for k, v in numbers.items()), "--data", self.args.text, "--out", out, "--steps", steps,
                   "--batch", 8, "--context", 256, "--lr", 2e-3, "--seed", seed)

    def weights(self, out):
        return int(re.search(r"([0-9,]+) weights", run(self.program("info"), "-m", out)).group(1).replace(",", ""))

    def hidden(self, word):
        """Of the feed-forward layers, that make the model as large as all others."""
        out = os.path.join(self.folder, "probe-" + word)
        self.train(word, 16, out, 1)
        return 16 + max(0, round((self.args.weights - self.weights(out)) / (3 * self.args.width * LAYERS) / 8)) * 8

    def measure(self, word):
        hidden, losses = self.hidden(word), []
        for seed in range(1, self.args.seeds + 1):
            out = os.path.join(self.folder, f"{word}-{seed}")
            text = self.train(word, hidden, out, self.args.steps, seed)
            losses.append(float(re.findall(r"val loss ([0-9.]+)", text)[-1]))
        with open(os.path.join(out, "metrics.jsonl")) as lines:
            rates = [row["tokens_per_second"] for row in map(json.loads, lines) if "tokens_per_second" in row]
        row = {"word": word, "weights": self.weights(out), "hidden": hidden, "loss": statistics.mean(losses),
               "spread": max(losses) - min(losses), "train_tps": statistics.median(rates)}
        for depth in (1024, self.args.deep):
            info = run(self.program("info"), "-m", out, "-c", depth + 64)
            row[f"state_{depth}"] = re.search(r"keys and values f16 ([0-9.,]+ \w+)", info).group(1)
            timed = json.loads(run(self.program("bench"), "-m", out, "-p", depth, "-n", 64, "-r", 1 if depth > 9999 else 3, "--json",
                                   "--no-roofline"))
            row[f"decode_{depth}"] = timed["decode_tps"]
        return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("programs")
    parser.add_argument("text")
    parser.add_argument("--words", default=",".join(SHAPES))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--weights", type=int, default=900_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--deep", type=int, default=100352)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    found = []
    print("| word | weights | validation loss | training, tok/s | state at 1k; {0:,} | writing after 1k; {0:,}, tok/s |\n|---|--:|--:|--:|--:|--:|".format(arguments.deep))
    with tempfile.TemporaryDirectory() as place:
        bench = Bench(arguments, place)
        for name in arguments.words.split(","):
            r = bench.measure(name)
            found.append(r)
            print(f"| `{name}` | {r['weights']:,} | {r['loss']:.3f} | {r['train_tps']:,.0f} | {r['state_1024']}; {r[f'state_{arguments.deep}']} | "
                  f"{r['decode_1024']:,.0f}; {r[f'decode_{arguments.deep}']:,.0f} |", flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)
