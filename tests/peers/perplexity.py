"""Perplexity of a GGUF file on a text: ours beside llama.cpp's, with the same chunks. By hand:

perplexity.py PATH_TO_chimera-perplexity MODEL.gguf TEXT [--context N] [--chunks N] [--threads N] [--kv f16]
needs llama-cpp-python and numpy
"""
import argparse
import ctypes
import json
import subprocess
import sys

import llama_cpp
import numpy

p = argparse.ArgumentParser()
p.add_argument("program")
p.add_argument("model")
p.add_argument("text")
p.add_argument("--context", type=int, default=512)
p.add_argument("--chunks", type=int, default=20)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--kv", default="f16", choices=["f32", "f16", "q8_0", "q4_0"])
a = p.parse_args()


@llama_cpp.llama_log_callback
def quiet(*_):
    pass


def llama_perplexity():
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(a.model.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = a.context
    settings.n_threads = settings.n_threads_batch = a.threads
    settings.type_k = settings.type_v = dict(f32=0, f16=1, q4_0=2, q8_0=8)[a.kv]
    context = llama_cpp.llama_init_from_model(model, settings)
    vocab = llama_cpp.llama_model_get_vocab(model)
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    with open(a.text, "rb") as f:
        text = f.read()
    ids = (llama_cpp.llama_token * (len(text) + 8))()
    count = llama_cpp.llama_tokenize(vocab, text, len(text), ids, len(ids), True, False)
    first, nlls = a.context // 2, []
    batch = llama_cpp.llama_batch_init(a.context, 0, 1)
    chunks = min(count // a.context, a.chunks) if a.chunks else count // a.context
    for chunk in range(chunks):
        tokens = ids[chunk * a.context:(chunk + 1) * a.context]
        if llama_cpp.llama_vocab_get_add_bos(vocab):
            tokens[0] = llama_cpp.llama_vocab_bos(vocab)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = a.context
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
            batch.logits[i] = i >= first
        assert llama_cpp.llama_decode(context, batch) == 0
        for i in range(first, a.context - 1):
            logits = numpy.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (size,)).astype(numpy.float64)
            top = logits.max()
            nlls.append(top + numpy.log(numpy.exp(logits - top).sum()) - logits[tokens[i + 1]])
    return numpy.exp(numpy.mean(nlls)), len(nlls)


theirs, count = llama_perplexity()
out = subprocess.run([a.program, a.text, "--model", a.model, "--context", str(a.context), "--chunks", str(a.chunks),
                      "--threads", str(a.threads), "--kv", a.kv, "--json"], check=True, stdout=subprocess.PIPE).stdout
ours = json.loads(out)
change = ours["perplexity"] / theirs - 1
good = abs(change) < 0.005 and ours["tokens"] == count
print(f"{'ok  ' if good else 'FAIL'} {a.model}: {count} tokens, ours {ours['perplexity']:.5f} +/- {ours['error']:.5f}, "
      f"llama.cpp {theirs:.5f}: {100 * change:+.4f} %")
sys.exit(not good)
