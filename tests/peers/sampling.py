"""Candidates and probabilities of our sampler beside those of llama.cpp's chain, on random logits, tokens and settings;
then the time of a draw beside its chain's.

Run as: python3 sampling.py PROGRAM, where PROGRAM is built from sampling.cpp.
"""
import ctypes
import random
import subprocess
import sys
import time

try:
    import llama_cpp
    import numpy as np
except ImportError as missing:
    print("SKIPPED:", missing)
    sys.exit()

ours = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
random.seed(23)
rng = np.random.default_rng(23)
token_data = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Vector(ctypes.Structure):
    """A std::vector of libstdc++."""
    _fields_ = [("begin", ctypes.c_void_p), ("end", ctypes.c_void_p), ("room", ctypes.c_void_p)]

    @classmethod
    def of(cls, array):
        start = ctypes.addressof(array)
        vector = cls(start, start + ctypes.sizeof(array), start + ctypes.sizeof(array))
        vector.kept = array
        return vector


# Takes breakers as tokens, so that no model's vocabulary is needed.
library = ctypes.CDLL(llama_cpp.llama_cpp._lib._name)
init_dry = library["_Z30llama_sampler_init_dry_testingffiiRKSt6vectorIS_IiSaIiEESaIS1_EE"]
init_dry.restype = llama_cpp.llama_cpp.llama_sampler_p_ctypes
init_dry.argtypes = [ctypes.c_float, ctypes.c_float, ctypes.c_int, ctypes.c_int, ctypes.POINTER(Vector)]


def dry(s):
    inner = [Vector.of((ctypes.c_int32 * len(b))(*b)) for b in s["breakers"]]
    outer = Vector.of((Vector * len(inner))(*inner))
    return init_dry(s["dry_multiplier"], s["dry_base"], s["dry_allowed_length"], s["dry_last_n"], ctypes.byref(outer))


def chain(s, vocab, draw):
    c = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    add = lambda sampler: llama_cpp.llama_sampler_chain_add(c, sampler)
    if "bias" in s:
        bias = (llama_cpp.llama_logit_bias * 1)(llama_cpp.llama_logit_bias(s["biased"], s["bias"]))
        add(llama_cpp.llama_sampler_init_logit_bias(vocab, 1, bias))
    if s.get("mirostat"):
        add(llama_cpp.llama_sampler_init_temp(s["temperature"]))
        add(llama_cpp.llama_sampler_init_mirostat_v2(1, s["mirostat_tau"], 0.1))
        return c
    add(llama_cpp.llama_sampler_init_penalties(vocab, s.get("repeat_last_n", 64), s.get("repeat_penalty", 1),
                                               s.get("frequency_penalty", 0), s.get("presence_penalty", 0)))
    if s.get("dry_multiplier"):
        add(dry(s))
    add(llama_cpp.llama_sampler_init_top_n_sigma(s.get("top_n_sigma", 0)))
    add(llama_cpp.llama_sampler_init_top_k(s["top_k"]))
    add(llama_cpp.llama_sampler_init_typical(s.get("typical_p", 1), 0))
    add(llama_cpp.llama_sampler_init_top_p(s["top_p"], 0))
    add(llama_cpp.llama_sampler_init_min_p(s["min_p"], 0))
    add(llama_cpp.llama_sampler_init_xtc(s.get("xtc_probability", 0), s.get("xtc_threshold", 0.1), 0, 1))
    add(llama_cpp.llama_sampler_init_temp_ext(s["temperature"], s.get("temperature_range", 0),
                                              s.get("temperature_exponent", 1)))
    if draw:
        add(llama_cpp.llama_sampler_init_dist(1))
    return c


def theirs_of(s, past, logits):
    c = chain(s, len(logits), False)
    for token in past:
        llama_cpp.llama_sampler_accept(c, int(token))
    data = np.zeros(len(logits), token_data)
    data["id"], data["logit"] = np.arange(len(logits)), logits
    array = llama_cpp.llama_token_data_array(data.ctypes.data_as(llama_cpp.llama_cpp.llama_token_data_p), len(data), -1, False)
    llama_cpp.llama_sampler_apply(c, ctypes.byref(array))
    llama_cpp.llama_sampler_free(c)
    start = ctypes.cast(array.data, ctypes.c_void_p).value
    offset = (start - data.ctypes.data) // token_data.itemsize
    left = data[offset:offset + array.size]
    left = left[np.isfinite(left["logit"])]
    p = np.exp(left["logit"].astype(np.float64) - left["logit"].max())
    return dict(zip(left["id"].tolist(), (p / p.sum()).tolist()))


def send(s, past, logits, **more):
    words = " ".join(f"{k} {v!r}" for k, v in s.items() if k != "breakers")
    words += "".join(f" breaker {len(b)} " + " ".join(map(str, b)) for b in s.get("breakers", []))
    words += "".join(f" {k} {v}" for k, v in more.items())
    ours.stdin.write(f"vocab {len(logits)} past {len(past)} {words}\n".encode() +
                     past.astype(np.int32).tobytes() + logits.astype(np.float32).tobytes())
    ours.stdin.flush()
    return ours.stdout.readline()


def ours_of(s, past, logits):
    count = int(send(s, past, logits))
    rows = np.frombuffer(ours.stdout.read(12 * count), [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
    return dict(zip(rows["id"].tolist(), rows["p"].tolist()))


def settings(vocab):
    some = lambda name, usual, *values: {name: random.choice(values)} if random.random() < 0.4 else usual
    s = {"temperature": random.choice([0.5, 0.8, 1.0, 1.7]), "top_k": random.choice([0, 1, 5, 40, 200]),
         "top_p": random.choice([0.3, 0.9, 0.95, 1.0]), "min_p": random.choice([0.0, 0.05, 0.2])}
    if random.random() < 0.15:
        return {"temperature": s["temperature"], "mirostat": 1, "mirostat_tau": random.choice([0.1, 1.0, 2.5, 5.0])}
    s |= some("top_n_sigma", {}, 0.5, 1.0, 3.0) | some("typical_p", {}, 0.2, 0.7, 0.95)
    s |= some("xtc_probability", {}, 1.0) | some("xtc_threshold", {}, 0.01, 0.1, 0.3, 0.6)
    s |= some("temperature_range", {}, 0.3, 1.0) | some("temperature_exponent", {}, 0.5, 2.0)
    s |= some("repeat_penalty", {}, 1.1, 1.5, 0.9) | some("repeat_last_n", {}, 0, 5, 64)
    s |= some("frequency_penalty", {}, 0.3, -0.1) | some("presence_penalty", {}, 0.5)
    if random.random() < 0.4:
        s |= {"biased": random.randrange(min(vocab, 8)), "bias": random.choice([2.0, -3.0])}
    if random.random() < 0.6:
        s |= {"dry_multiplier": random.choice([0.5, 2.0]), "dry_base": random.choice([1.0, 1.75, 3.0]),
              "dry_allowed_length": random.choice([1, 2, 4]), "dry_last_n": random.choice([10, 64, 500]),
              "breakers": [[random.randrange(6) for _ in range(random.choice([1, 1, 2, 3]))]
                           for _ in range(random.randrange(1, 4))]}
    if "top_n_sigma" in s:  # whose victims llama.cpp keeps, at probability 0: typical makes NaN of them, and they count here
        s.pop("typical_p", 0), s.pop("temperature_range", 0)
    return s


def compare(rounds):
    differ = []
    for i in range(rounds):
        vocab = random.choice([3, 40, 257, 1000, 5000])
        s = settings(vocab)
        past = rng.integers(0, min(vocab, 6 if i % 2 else 3), random.choice([0, 1, 30, 300]))
        logits = (rng.standard_normal(vocab) * random.choice([1, 3, 6])).astype(np.float32)
        a, b = ours_of(s, past, logits), theirs_of(s, past, logits)
        apart = max(abs(a.get(t, 0) - b.get(t, 0)) for t in a | b)
        if apart > 2e-5:
            differ.append((apart, len(a), len(b), vocab, s))
    # Few remain: where the f32 sums of typical come to other ends at its border.
    print(f"{rounds} settings: {len(differ)} differ by more than 2e-5")
    for d in differ:
        print("  ", d)


def measure(name, s, vocab, past, rounds):
    logits = (rng.standard_normal(vocab) * 2).astype(np.float32)
    logits[rng.integers(0, vocab, 100)] += rng.exponential(4, 100).astype(np.float32)  # some are likely, as in a text
    full = dict(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05) | s
    c = chain(full, vocab, True)
    for token in past:
        llama_cpp.llama_sampler_accept(c, int(token))
    mine = their = 1e30
    data = np.zeros(vocab, token_data)
    for _ in range(5):  # in turns, the best of all
        mine = min(mine, float(send(full, past, logits, rounds=rounds)))
        for _ in range(rounds):
            data["id"], data["logit"] = np.arange(vocab), logits
            array = llama_cpp.llama_token_data_array(data.ctypes.data_as(llama_cpp.llama_cpp.llama_token_data_p), vocab, -1, False)
            start = time.perf_counter()
            llama_cpp.llama_sampler_apply(c, ctypes.byref(array))
            their = min(their, (time.perf_counter() - start) * 1e6)
    llama_cpp.llama_sampler_free(c)
    print(f"{name:34} {mine:8.1f} us, llama.cpp {their:8.1f} us (its array of candidates made before): {their / mine:.1f} x")


compare(int(sys.argv[2]) if len(sys.argv) > 2 else 2000)
past = rng.integers(0, 1000, 2000)
for vocab in 4096, 65536:
    measure(f"{vocab}: defaults", {}, vocab, past, 50)
    measure(f"{vocab}: with penalties and DRY",
            {"repeat_penalty": 1.1, "dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_last_n": 1024,
             "breakers": [[13]]}, vocab, past, 50)
    measure(f"{vocab}: min-p alone", {"top_k": 0, "top_p": 1.0}, vocab, past, 20)
    measure(f"{vocab}: top-p alone", {"top_k": 0, "min_p": 0.0}, vocab, past, 20)
    measure(f"{vocab}: typical alone", {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 0.9}, vocab, past, 10)
    measure(f"{vocab}: mirostat", {"mirostat": 1, "mirostat_tau": 5.0}, vocab, past, 10)
