"""Tokenizers that chimera-tokenize learned give the same ids in the tokenizers package.

Run as: python3 tokenizer_train.py BUILD/examples/chimera-tokenize [TEXT...]; the texts, and what is below, are learned from
and encoded.
"""
import json
import random
import subprocess
import sys
import tempfile

try:
    from tokenizers import Tokenizer
except ImportError as missing:
    print("SKIPPED:", missing)
    sys.exit()

program, files = sys.argv[1], sys.argv[2:]
folder = tempfile.TemporaryDirectory()

words = ["the", "The", "don't", "I'LL", "we're", "river", "naïve", "नमस्ते", "दुनिया", "क्षेत्र", "क्‍ष", "र्‌य", "स्कूल", "कॉलेज",
         "ज़रूरत", "है।", "१२३", "2024", "3.14", "🦁", "👩‍👩‍👧", "🇮🇳", "❤️", "日本語", "한국어", "กำลัง", "العَرَبِيَّة", "e\u0301", "ſ", "'ſ"]
gaps = [" ", " ", " ", "  ", "\n", "\r\n", "\n\n", " \n", "\t", "\u00a0", "\u3000", "", ", ", "... ", "—", "\u200d", "\u200c", "\r"]
draw = random.Random(4)
mixed = ["".join(draw.choice(words) + draw.choice(gaps) for _ in range(draw.randrange(1, 30))) for _ in range(3000)]
scalars = [c for c in range(0x20000) if not 0xD800 <= c < 0xE000]
mixed += ["".join(chr(draw.choice(scalars if draw.random() < 0.5 else range(256))) for _ in range(20)) for _ in range(500)]
mixed += ["".join(chr(draw.choice([*range(0x900, 0x980), 32, 10, 0x200C, 0x200D])) for _ in range(20)) for _ in range(500)]

texts = []
for file in files:
    with open(file, encoding="utf-8", newline="") as f:
        texts.append(f.read())
mix = folder.name + "/mix.txt"
with open(mix, "w", encoding="utf-8", newline="") as f:
    f.write("\n".join(mixed[:3000]))
strings = mixed + [line for text in texts for line in text.split("\n")[:20000]] + [text[:300000] for text in texts]
lines = folder.name + "/lines.jsonl"
with open(lines, "w", encoding="utf-8") as f:
    for special in (False, True):
        for s in strings + ["a<|im_start|>b <|endoftext|>\n<|im_end|>"]:
            f.write(json.dumps({"text": s, "special": special}, ensure_ascii=bool(len(s) % 2)) + "\n")

for rules in ("qwen35", "o200k", "llama3", "gpt2"):
    out = folder.name + "/tokenizer.json"
    subprocess.run([program, "train", "--vocab", "9000", "--pretokenizer", rules, "--out", out, "--input", mix, *files],
                   check=True, capture_output=True)
    peer = Tokenizer.from_file(out)
    ours = subprocess.run([program, "encode", "--tokenizer", out, "--jsonl", lines], check=True, capture_output=True, text=True)
    back = subprocess.run([program, "decode", "--tokenizer", out, "--jsonl"], input=ours.stdout, check=True, capture_output=True,
                          text=True)
    compared = wrong = 0
    assert ours.stdout.count("\n") == back.stdout.count("\n") == 2 * len(strings) + 2
    for asked, ids, text in zip(open(lines, encoding="utf-8"), ours.stdout.split("\n"), back.stdout.split("\n")):
        asked, ids, text = json.loads(asked), json.loads(ids)["ids"], json.loads(text)["text"]
        assert text == asked["text"], asked
        if not asked["special"] and "<|" in asked["text"]:
            continue  # in the package special tokens always count
        compared += 1
        expected = peer.encode(asked["text"], add_special_tokens=False).ids
        if ids != expected:
            wrong += 1
            if wrong < 5:
                print(rules, repr(asked["text"][:200]), ids[:40], expected[:40])
    print(f"{rules}: {compared} strings, {wrong} differ")
    assert wrong == 0
