# families.py PEER_LOGITS [COUNT [SEED]]: random shapes and settings of dense Llama, Mistral, Qwen2, Qwen3 and Granite
# models, of Qwen3.5 hybrids and of xLSTMs, drawn anew at each run, as Hugging Face folders of transformers and as GGUF
# files of gguf-py: our logits beside those of transformers, and of llama.cpp where it is there. Half of them can be GGUF
# files: 126, which is the default, give some 65 in both forms. Every shape is compiled: minutes.
import concurrent.futures
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time

try:
    import gguf
    import numpy
    import torch
    import transformers
except ImportError as missing:
    print(f"SKIPPED: {missing}")
    raise SystemExit
try:
    import llama_cpp
except ImportError:
    llama_cpp = None

FAMILIES = ["llama", "mistral", "qwen2", "qwen3", "granite", "qwen3_5_text", "xlstm"]
CLASSES = dict(llama="Llama", mistral="Mistral", qwen2="Qwen2", qwen3="Qwen3", granite="Granite",
               qwen3_5_text="Qwen3_5", xlstm="xLSTM")
ALLOWED = 1e-4  # of the range of logits


def allowed(what):
    # llama.cpp divides keys by max(length, eps), transformers and we by sqrt(length^2 + eps).
    return 10 * ALLOWED if "qwen3_5_text" in what and what.endswith("llama.cpp") else ALLOWED


def draw_xlstm(r):
    heads = r.choice([1, 2, 4, 8])
    width = heads * r.randint(2, 24) * 2

    def share(n):
        return next(f for f in (n / width, math.nextafter(n / width, n)) if int(width * f) == n)

    return dict(model_type="xlstm", vocab_size=r.randint(40, 400), hidden_size=width, num_heads=heads,
                num_hidden_layers=r.randint(1, 3), max_position_embeddings=r.choice([64, 96, 128, 200]),
                norm_eps=r.choice([1e-6, 1e-5, 1e-3]),
                qk_dim_factor=share(r.choice([64, 128])), v_dim_factor=share(r.choice([64, 128, 192])),
                ffn_proj_factor=round(0.5 + 2 * r.random(), 3), ffn_round_up_to_multiple_of=r.choice([1, 7, 64]),
                gate_soft_cap=r.choice([15.0, 5.0]), output_logit_soft_cap=r.choice([30.0, 7.5]),
                chunk_size=r.choice([16, 64]), tie_word_embeddings=r.random() < 0.5)


def draw(family, r):
    """The members of a config.json, beside what is no number of the model."""
    if family == "xlstm":
        return draw_xlstm(r)
    heads = r.choice([1, 2, 3, 4, 6, 8])
    head_dim = r.choice([8, 10, 16, 18, 24, 32, 40, 64])
    width = heads * head_dim if r.random() < 0.5 else heads * r.randint(2, 24) * 2
    if family != "llama" and r.random() < 0.3:
        width += 2 * r.randint(1, 5)
    context = r.choice([64, 96, 128, 200])
    c = dict(model_type=family, vocab_size=r.randint(40, 400), hidden_size=width, intermediate_size=r.randint(8, 200),
             num_hidden_layers=r.randint(1, 3), num_attention_heads=heads,
             num_key_value_heads=r.choice([n for n in range(1, heads + 1) if heads % n == 0]), head_dim=head_dim,
             max_position_embeddings=context, rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3]),
             tie_word_embeddings=r.random() < 0.5)
    theta = r.choice([10000.0, 500.0, 1e6])
    if family == "qwen3_5_text":
        dims = 2 * r.randint(1, head_dim // 2)
        c["rms_norm_eps"] = 1e-6  # which llama.cpp takes for the lengths of keys, too
        third, keys, key_dim = dims // 6, r.randint(1, 4), r.choice([8, 16, 24, 64])
        c.update(num_hidden_layers=r.randint(2, 4), linear_num_key_heads=keys,
                 linear_num_value_heads=keys * r.randint(1, 3), linear_key_head_dim=key_dim,
                 linear_value_head_dim=r.choice([key_dim, key_dim, 20]), linear_conv_kernel_dim=r.randint(2, 5))
        c["layer_types"] = ["full_attention"] + [r.choice(["linear_attention", "linear_attention", "full_attention"])
                                                 for _ in range(c["num_hidden_layers"] - 1)]
        r.shuffle(c["layer_types"])
        c["rope_parameters"] = dict(rope_type="default", rope_theta=theta, partial_rotary_factor=dims / head_dim,
                                    mrope_section=[dims // 2 - 2 * third, third, third])
        return c
    scaling = r.choice(["default", "default", "linear", "dynamic", "yarn", "llama3", "longrope"])
    rope = dict(rope_type=scaling, rope_theta=theta)
    if scaling in ("linear", "dynamic", "yarn", "llama3"):
        rope["factor"] = r.choice([2.0, 4.0, 3.5])
    if scaling in ("yarn", "llama3", "longrope"):
        rope["original_max_position_embeddings"] = context // r.choice([2, 4])
    if scaling == "yarn" and r.random() < 0.3:
        rope["attention_factor"] = 0.9
    if scaling == "llama3":
        rope.update(low_freq_factor=1.0, high_freq_factor=4.0)
    if scaling == "longrope":
        pairs = head_dim // 2
        rope.update(short_factor=[1.0] * pairs, long_factor=[round(1 + r.random() * 4, 3) for _ in range(pairs)])
    if r.random() < 0.7:
        c["rope_parameters"] = rope
    else:  # as older versions wrote it
        c["rope_theta"] = rope.pop("rope_theta")
        c["rope_scaling"] = rope if scaling != "default" else None
    if family in ("llama", "qwen3", "granite"):
        c["attention_bias"] = r.random() < 0.5
    if family == "mistral":
        c["sliding_window"] = r.choice([None, r.randint(1, context)])
    if family in ("qwen2", "qwen3"):
        c["use_sliding_window"] = r.random() < 0.4
        c["sliding_window"], c["max_window_layers"] = r.randint(1, context), r.choice([0, c["num_hidden_layers"]])
    if family == "granite":
        c.update(embedding_multiplier=round(0.5 + r.random() * 4, 3), logits_scaling=round(0.5 + r.random() * 4, 3),
                 residual_multiplier=round(0.2 + r.random(), 3), attention_multiplier=round(0.05 + r.random() / 2, 3))
    return c


def write_folder(c, folder, seed):
    """The folder; the model of transformers and its weights."""
    torch.manual_seed(seed)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(c | dict(
        architectures=[CLASSES[c["model_type"]] + "ForCausalLM"], bos_token_id=0, eos_token_id=0, hidden_act="silu")))
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for name, p in model.named_parameters():
        if p.dim() > 1:
            torch.nn.init.normal_(p, std=1.5 / p.shape[-1]**0.5)
        elif name.endswith("bias"):
            torch.nn.init.normal_(p, std=0.5)
        else:
            torch.nn.init.uniform_(p, 0.6, 1.4)
    tensors = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    config_text = (folder / "config.json").read_text()
    model.save_pretrained(folder)
    (folder / "config.json").write_text(config_text)  # as it was drawn, not as this version writes it
    return model, tensors


def permuted(w, heads):
    """From channels that turn in halves to neighbours, as convert_hf_to_gguf.py has it."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def gguf_writer(c, path, architecture, rope_dims, rope_base):
    """A file with the numbers that all families have."""
    w = gguf.GGUFWriter(path, architecture)
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_dimension_count(rope_dims)
    w.add_rope_freq_base(rope_base)
    w.add_vocab_size(c["vocab_size"])
    return w


def write_qwen35(c, tensors, path):
    keys, heads, dim = c["linear_num_key_heads"], c["linear_num_value_heads"], c["linear_value_head_dim"]
    if c["linear_key_head_dim"] != dim or "linear_attention" not in c["layer_types"]:
        return False
    rope, architecture = c["rope_parameters"], "qwen35"
    dims = round(rope["partial_rotary_factor"] * c["head_dim"])
    w = gguf_writer(c, path, architecture, dims, rope["rope_theta"])
    w.add_array(f"{architecture}.rope.dimension_sections", rope["mrope_section"] + [0])
    w.add_array(f"{architecture}.attention.recurrent_layers", [kind == "linear_attention" for kind in c["layer_types"]])
    w.add_ssm_conv_kernel(c["linear_conv_kernel_dim"])
    w.add_ssm_state_size(dim)
    w.add_ssm_group_count(keys)
    w.add_ssm_time_step_rank(heads)
    w.add_ssm_inner_size(heads * dim)
    w.add_tokenizer_model("none")

    def tiled(x, before=0, size=dim):
        """Value heads go round the key heads."""
        heads_of = x[before:].reshape(keys, heads // keys, size, *x.shape[1:]).swapaxes(0, 1)
        return numpy.concatenate([x[:before], heads_of.reshape(x[before:].shape)])

    norms = dict(input_layernorm="attn_norm", post_attention_layernorm="post_attention_norm")
    plain = norms | dict(gate_proj="ffn_gate", up_proj="ffn_up", down_proj="ffn_down", q_proj="attn_q", k_proj="attn_k",
                         v_proj="attn_v", o_proj="attn_output", q_norm="attn_q_norm", k_norm="attn_k_norm")
    made = {"in_proj_qkv.weight": ("attn_qkv.weight", lambda x: tiled(x, 2 * keys * dim)),
            "in_proj_z.weight": ("attn_gate.weight", tiled),
            "conv1d.weight": ("ssm_conv1d.weight", lambda x: tiled(x[:, 0], 2 * keys * dim)),
            "in_proj_a.weight": ("ssm_alpha.weight", lambda x: tiled(x, 0, 1)),
            "in_proj_b.weight": ("ssm_beta.weight", lambda x: tiled(x, 0, 1)),
            "dt_bias": ("ssm_dt.bias", lambda x: tiled(x, 0, 1)),
            "A_log": ("ssm_a", lambda x: -numpy.exp(tiled(x, 0, 1))),
            "norm.weight": ("ssm_norm.weight", lambda x: x),
            "out_proj.weight": ("ssm_out.weight", lambda x: tiled(x.T).T)}
    ends = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
            "lm_head.weight": "output.weight"}
    for name, value in tensors.items():
        if name == "lm_head.weight" and c["tie_word_embeddings"]:
            continue
        part = name.split(".")[-2]
        if name in ends:
            theirs = ends[name]
        elif ".linear_attn." in name:
            theirs, change = made[name.split(".linear_attn.")[1]]
            value = change(value)
        else:
            theirs = plain[part] + ".weight"
        if part.endswith("norm") and ".linear_attn." not in name:
            value = value + 1  # transformers has what is added to 1
        block = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        w.add_tensor(block + theirs, numpy.ascontiguousarray(value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return True


def write_gguf(c, tensors, path):
    """False where there is no such file."""
    family = c["model_type"]
    if family == "xlstm":
        return False
    if family == "qwen3_5_text":
        return write_qwen35(c, tensors, path)
    heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
    rope = c.get("rope_parameters") or (c.get("rope_scaling") or {"rope_type": "default"}) | dict(
        rope_theta=c["rope_theta"])
    windowed = c.get("sliding_window") and c.get("use_sliding_window", family == "mistral")
    if windowed and c["sliding_window"] < c["max_position_embeddings"]:
        return False
    kind = rope["rope_type"]
    if kind in ("llama3", "longrope") and family.startswith("qwen"):
        return False
    architecture = "llama" if family == "mistral" else family
    w = gguf_writer(c, path, architecture, c["head_dim"], rope["rope_theta"])
    w.add_tokenizer_model("none")
    half = c["head_dim"] // 2
    plain = numpy.array([rope["rope_theta"]**(-i / half) for i in range(half)])
    if kind in ("linear", "yarn"):
        w.add_rope_scaling_type(gguf.RopeScalingType(kind))
        w.add_rope_scaling_factor(rope["factor"])
    if kind == "yarn":
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        if "attention_factor" in rope:
            w.add_rope_scaling_attn_factors(rope["attention_factor"] / (0.1 * numpy.log(rope["factor"]) + 1))
    if kind == "llama3":
        turns = rope["original_max_position_embeddings"] * plain / (2 * numpy.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        smooth = numpy.clip((turns - low) / (high - low), 0, 1)
        w.add_tensor("rope_freqs.weight", (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(numpy.float32))
    if kind == "longrope":
        original = rope["original_max_position_embeddings"]
        grown = c["max_position_embeddings"] / original
        w.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        w.add_rope_scaling_orig_ctx_len(original)
        w.add_rope_scaling_attn_factors(float(numpy.sqrt(1 + numpy.log(grown) / numpy.log(original))))
        w.add_tensor("rope_factors_long.weight", numpy.array(rope["long_factor"], numpy.float32))
        w.add_tensor("rope_factors_short.weight", numpy.array(rope["short_factor"], numpy.float32))
    if family == "granite":
        w.add_attention_scale(c["attention_multiplier"])
        w.add_embedding_scale(c["embedding_multiplier"])
        w.add_residual_scale(c["residual_multiplier"])
        w.add_logit_scale(c["logits_scaling"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c["num_hidden_layers"])
    for name, value in tensors.items():
        if name == "lm_head.weight" and c["tie_word_embeddings"]:
            continue
        if not family.startswith("qwen"):
            for part, count in ("q_proj", heads), ("k_proj", kv):
                if part in name:
                    value = permuted(value, count)
        own = {"q_norm": "attn_q_norm", "k_norm": "attn_k_norm"}
        part = name.split(".")[-2]
        theirs = f"blk.{name.split('.')[2]}.{own[part]}.weight" if part in own else names.get_name(
            name, try_suffixes=(".weight", ".bias"))
        w.add_tensor(theirs, numpy.ascontiguousarray(value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return True


def ours(program, path, tokens, piece, vocab):
    out = str(path) + ".logits"
    done = subprocess.run([program, path, out, "f32", str(piece), *map(str, tokens)], capture_output=True, text=True)
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1]
    return numpy.fromfile(out, numpy.float32).reshape(-1, vocab)


def llama_logits(path, c, tokens):
    try:
        llama = llama_cpp.Llama(str(path), n_ctx=c["max_position_embeddings"], n_batch=256, n_threads=1,
                                logits_all=True, verbose=False, type_k=0, type_v=0, flash_attn=False)
        llama.eval(tokens)
        return numpy.array(llama.scores[:len(tokens)])
    except Exception:  # what it cannot load
        return None


def one(program, folder, index, seed):
    """Lines of (what, worst difference or error)."""
    r = random.Random(f"{seed}/{index}")
    family = FAMILIES[index % len(FAMILIES)]
    c = draw(family, r)
    text = c["rope_parameters"] if "rope_parameters" in c else c.get("rope_scaling")
    what = f"{index} {family} " + json.dumps({k: v for k, v in c.items() if k != "model_type"})
    model, tensors = write_folder(c, folder / str(index), index)
    long = (text or {}).get("rope_type") == "longrope"  # transformers has other factors for short texts
    length = r.randint(text["original_max_position_embeddings"] + 1 if long else 20, c["max_position_embeddings"])
    tokens = [r.randrange(c["vocab_size"]) for _ in range(length)]
    with torch.no_grad():
        theirs = model(torch.tensor([tokens])).logits[0].numpy()
    spread = theirs.max() - theirs.min()
    lines = []

    def compare(form, got, want, last=False):
        if isinstance(got, str):
            return lines.append((f"{what} {form}", got))
        if last:
            got, want = got[-1:], want[-1:]
        lines.append((f"{what} {form}", float(abs(got - want).max() / spread)))

    compare("folder, transformers", ours(program, folder / str(index), tokens, 1, c["vocab_size"]), theirs)
    compare("folder, a prompt", ours(program, folder / str(index), tokens, length, c["vocab_size"]), theirs, True)
    path = folder / f"{index}.gguf"
    if write_gguf(c, tensors, path):
        got = ours(program, path, tokens, 1, c["vocab_size"])
        compare("GGUF, transformers", got, theirs)
        if llama_cpp:
            other = llama_logits(path, c, tokens)
            if other is not None and not isinstance(got, str):
                compare("GGUF, llama.cpp", got, other)
    return lines


if __name__ == "__main__":
    program = pathlib.Path(sys.argv[1]).resolve()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 126
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"seed {seed}, {count} shapes, llama.cpp {'is' if llama_cpp else 'is not'} there", flush=True)
    failures, worst, done = 0, {}, {}
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(one, program, pathlib.Path(folder), i, seed) for i in range(count)]
        for job in jobs:
            for what, got in job.result():
                form = what.split("} ")[-1]
                done[form] = done.get(form, 0) + 1
                if isinstance(got, str) or not got <= allowed(what):
                    failures += 1
                    print(f"FAIL {what}: {got}", flush=True)
                else:
                    worst[form] = max(worst.get(form, 0), got)
    for form in done:
        print(f"{form}: {done[form]} compared, worst {worst.get(form, 0):.1e} of the range, allowed {ALLOWED:.0e}")
    print("FAIL" if failures else "ok", failures)
    sys.exit(failures > 0)
