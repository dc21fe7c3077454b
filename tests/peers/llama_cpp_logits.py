# llama_cpp_logits.py PEER_MODELS: llama.cpp runs our GGUF files: the same logits, tokens and greedy continuation.
import models

try:
    import numpy
    from llama_cpp import Llama
except ImportError as missing:
    print(f"SKIPPED: {missing}")
    raise SystemExit


def compare(case):
    if not case.llama_cpp[0]:  # it has no architecture for it
        return
    # Keys and values in F32, as ours are.
    llama = Llama(str(case.gguf), n_ctx=256, n_batch=256, n_threads=1, logits_all=True, verbose=False, type_k=0,
                  type_v=0, flash_attn=False)
    llama.eval(case.tokens)
    # Its products of ternary matrices round activations to eight bits.
    ternary = "ternary" in case.name
    case.compare("llama.cpp", numpy.array(llama.scores[:len(case.tokens)]), 3e-2 if ternary else 2e-3)
    llama.reset()
    llama.eval(case.tokens[:16])
    greedy = []
    while len(greedy) < len(case.greedy):
        greedy.append(int(numpy.argmax(llama.scores[llama.n_tokens - 1])))
        llama.eval(greedy[-1:])
    if not ternary:
        models.check(f"{case.name}: the same greedy continuation", greedy == case.greedy)
    models.check(f"{case.name}: the same tokens",
                 llama.tokenize(case.text_bytes, add_bos=True, special=False) == case.text)
    models.check(f"{case.name}: the same tokens, special ones included",
                 llama.tokenize(case.text_bytes, add_bos=True, special=True) == case.special)


models.run(compare)
