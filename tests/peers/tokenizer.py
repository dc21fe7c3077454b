"""Ids of ours beside those of tokenizers, tiktoken and llama.cpp, on random and on real strings, with every set of rules.

Run as: python3 tokenizer.py PROGRAM [DATA], where PROGRAM is built from tokenizer.cpp and DATA is a folder with the rank
file and the texts of shared data. Packages that are missing are left out.
"""
import base64
import gzip
import json
import os
import random
import subprocess
import sys
import tempfile

try:
    import tokenizers
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
except ImportError as missing:
    print("SKIPPED:", missing)
    sys.exit()

program = sys.argv[1]
data = sys.argv[2] if len(sys.argv) > 2 else ""
here = os.path.dirname(os.path.abspath(__file__))
folder = tempfile.TemporaryDirectory()
random.seed(17)

LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+@|"
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*@|"
        r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
RULES = {
    "gpt2": "", "llama3": LLAMA, "qwen2": LLAMA.replace("{1,3}", ""),
    "qwen35": LLAMA.replace("{1,3}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"\s\p{L}\p{N}", r"\s\p{L}\p{M}\p{N}"),
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": WORD.replace("@", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"), "tekken": WORD.replace("@", "").replace("{1,3}", ""),
}
RULES["qwen2 with NFC"] = RULES["qwen2"]
RULES["default"] = (r"[\p{P}\$\+<=>\^~\|]+" "\n" r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)" "\n"
                    r"\p{N}+" "\n" r"[0-9][0-9][0-9]")  # llama.cpp's, one behind the other
RULES["smollm"] = r"\p{N}"  # and gpt2's behind it
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<x>", "<x>y"]


def scalar():
    while True:
        code = random.choice([random.randrange(0x300), random.randrange(0x900, 0xE00), random.randrange(0x3000),
                              random.randrange(0x10000), random.randrange(0x110000)])
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def strings(count):
    usual = [" ", " ", "  ", "\n", "\r\n", "\t", "'s", "'Re", "'", "a", "the", "Word", "ABC", "123", "!", "/", "न", "मस्ते", "क्ष",
             "\u200d", "\u200c", "é", "ſ", "日本", "🦁", "\u0301", "\u00a0", "।", "\u0323", "e", "क़", "\u093c", "\u1112\u1161",
             "\u11ab", "가", "<é>", "<e\u0301>", "$", "~"] + SPECIALS
    return ["".join(random.choice(usual) if random.random() < 0.7 else scalar() for _ in range(random.randrange(1, 24)))
            for _ in range(count)]


def lines_of(path, most=3000):
    raw = gzip.open(path).read() if path.endswith(".gz") else open(path, "rb").read()
    lines = raw.decode().split("\n\n")
    return [line for line in lines if line][:most]


def ours(tokenizer, texts, special="text"):
    out = subprocess.run([program, "encode", tokenizer, special], check=True, capture_output=True,
                         input="".join(json.dumps(t) + "\n" for t in texts).encode()).stdout.decode()
    return [[int(i) for i in line.split()] for line in out.split("\n")[:-1]]


def compare(name, texts, found, expected):
    wrong = [i for i, (a, b) in enumerate(zip(found, expected)) if a != b]
    print(f"{name}: {len(texts)} texts, {len(wrong)} differ", flush=True)
    for i in wrong[:3]:
        print("   ", ascii(texts[i]), found[i], expected[i])
    return len(wrong)


real = [open(__file__).read(), open(here + "/../../README.md").read(), open(here + "/../../include/chimera/README.md").read()]
if data:
    real += lines_of(data + "/corpora/hindi_stories.txt.gz", 300) + lines_of(data + "/corpora/english_books.txt.gz", 300)
texts = strings(5000) + real
failures = 0

try:
    import llama_cpp
except ImportError as missing:
    llama_cpp = None
    print("llama.cpp left out:", missing)


def beside_llama(name, path):
    """llama.cpp reads our GGUF. Its rules are approximations for some sets; its Unicode tables are of another version."""
    model = llama_cpp.Llama(model_path=path, vocab_only=True, verbose=False)
    known = [t for t in texts if "\0" not in t and len(t) < 1000]  # its regular expressions are slow
    expected = [model.tokenize(t.encode(), add_bos=False, special=False) for t in known]
    return compare(name, known, ours(path, known), expected)


for name, regex in RULES.items():
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=name in ("llama3", "o200k", "tekken")))
    if name == "smollm":
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif regex:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r), "isolated") for r in regex.split("\n")] +
                                                     [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if "NFC" in name:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(real, trainers.BpeTrainer(vocab_size=1500, show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    made.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIALS[:2]])
    made.add_tokens([AddedToken(t, normalized=False) for t in SPECIALS[2:]])
    if "NFC" in name:
        made.add_tokens([AddedToken("<é>", normalized=True), AddedToken("~", normalized=True)])
    path = f"{folder.name}/{name}.json"
    made.save(path)
    expected = [made.encode(t).ids for t in texts]
    failures += compare(f"{name}: tokenizers' file", texts, ours(path, texts, "special"), expected)
    again = f"{folder.name}/{name}-again.json"
    subprocess.run([program, "write", path, again], check=True)
    read = tokenizers.Tokenizer.from_file(again)
    failures += compare(f"{name}: our file in tokenizers", texts, [read.encode(t).ids for t in texts], expected)
    if llama_cpp and "NFC" not in name:  # which it does not know
        gguf = f"{folder.name}/{name}.gguf"
        subprocess.run([program, "write", path, gguf], check=True)
        wrong = beside_llama(f"{name}: our file in llama.cpp", gguf)
        failures += wrong if name in ("qwen35", "default", "smollm") else 0

if data:
    ranks_file = folder.name + "/o200k_base.tiktoken"
    open(ranks_file, "wb").write(gzip.open(data + "/tokenizer/o200k_base.tiktoken.gz").read())
    try:
        import tiktoken
        ranks = {base64.b64decode(token): int(rank) for token, rank in map(bytes.split, open(ranks_file, "rb"))}
        peer = tiktoken.Encoding("o200k", pat_str=RULES["o200k"], mergeable_ranks=ranks, special_tokens={})
        failures += compare("o200k: tiktoken", texts, ours(ranks_file, texts), [peer.encode_ordinary(t) for t in texts])
    except ImportError as missing:
        print("tiktoken left out:", missing)
    try:
        import splintr
        peer = splintr.Tokenizer.from_pretrained("o200k_base")
        compare("o200k: splintr", texts, ours(ranks_file, texts), [peer.encode_ordinary(t) for t in texts])
    except ImportError as missing:
        print("splintr left out:", missing)
    again = folder.name + "/o200k.json"
    subprocess.run([program, "write", ranks_file, again], check=True)
    read = tokenizers.Tokenizer.from_file(again)
    plain = [t for t in texts if not any(s in t for s in SPECIALS)]
    failures += compare("o200k: our file in tokenizers", plain, [read.encode(t).ids for t in plain], ours(ranks_file, plain))
    if llama_cpp:
        gguf = folder.name + "/o200k.gguf"
        subprocess.run([program, "write", ranks_file, gguf], check=True)
        beside_llama("o200k: our file in llama.cpp", gguf)
        for name in ("gpt-2", "llama-bpe", "qwen2", "qwen35"):
            beside_llama(f"{name}: llama.cpp's file", f"{data}/tokenizer/ggml-vocab-{name}.gguf")

sys.exit(failures > 0)
