"""Writes a GGUF file of random weights in the form of qwen35: Gated DeltaNet, and gated attention every so many layers.

usage: make_qwen35_gguf.py FILE --width N --layers N --attention-every N --ffn N --vocab N      needs gguf and numpy

Heads have 64 channels, of which 16 turn; two query heads share a key head. For inference.py --make.
"""
import argparse

import gguf
import numpy

p = argparse.ArgumentParser()
p.add_argument("file")
for name in ("width", "layers", "attention-every", "ffn", "vocab"):
    p.add_argument(f"--{name}", type=int, required=True)
a = p.parse_args()

head, width = 64, a.width
heads, random = width // head, numpy.random.default_rng(1)
attends = [i % a.attention_every == a.attention_every - 1 for i in range(a.layers)]
w = gguf.GGUFWriter(a.file, "qwen35")
w.add_context_length(4096)
w.add_embedding_length(width)
w.add_block_count(a.layers)
w.add_feed_forward_length(a.ffn)
w.add_head_count(heads)
w.add_head_count_kv(heads // 2)
w.add_key_length(head)
w.add_value_length(head)
w.add_layer_norm_rms_eps(1e-6)
w.add_rope_dimension_count(16)
w.add_rope_freq_base(10000.0)
w.add_vocab_size(a.vocab)
w.add_array("qwen35.rope.dimension_sections", [4, 2, 2, 0])
w.add_array("qwen35.attention.recurrent_layers", [not attention for attention in attends])
w.add_ssm_conv_kernel(4)
w.add_ssm_state_size(head)
w.add_ssm_group_count(heads)
w.add_ssm_time_step_rank(heads)
w.add_ssm_inner_size(width)
w.add_tokenizer_model("none")


def matrix(name, rows, cols):
    w.add_tensor(name, random.normal(0, 0.02, (rows, cols)).astype(numpy.float32))


def vector(name, values):
    w.add_tensor(name, numpy.asarray(values, numpy.float32))


matrix("token_embd.weight", a.vocab, width)
vector("output_norm.weight", numpy.ones(width))
for i, attention in enumerate(attends):
    block = f"blk.{i}."
    vector(block + "attn_norm.weight", numpy.ones(width))
    vector(block + "post_attention_norm.weight", numpy.ones(width))
    if attention:
        matrix(block + "attn_q.weight", 2 * width, width)
        matrix(block + "attn_k.weight", width // 2, width)
        matrix(block + "attn_v.weight", width // 2, width)
        matrix(block + "attn_output.weight", width, width)
        vector(block + "attn_q_norm.weight", numpy.ones(head))
        vector(block + "attn_k_norm.weight", numpy.ones(head))
    else:
        matrix(block + "attn_qkv.weight", 3 * width, width)
        matrix(block + "attn_gate.weight", width, width)
        w.add_tensor(block + "ssm_conv1d.weight", random.uniform(-0.5, 0.5, (3 * width, 4)).astype(numpy.float32))
        matrix(block + "ssm_alpha.weight", heads, width)
        matrix(block + "ssm_beta.weight", heads, width)
        vector(block + "ssm_dt.bias", random.uniform(-6, -2, heads))
        vector(block + "ssm_a", -random.uniform(1, 16, heads))
        vector(block + "ssm_norm.weight", numpy.ones(head))
        matrix(block + "ssm_out.weight", width, width)
    matrix(block + "ffn_gate.weight", a.ffn, width)
    matrix(block + "ffn_up.weight", a.ffn, width)
    matrix(block + "ffn_down.weight", width, a.ffn)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
