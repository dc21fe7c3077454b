"""Whole AdamW training steps of the same models: chimera against PyTorch, in turns, on this machine.

usage: train_step.py PATH_TO_train_step [--bf16] [--rounds N]      needs torch and transformers from PyPI
"""
import argparse
import os
import subprocess
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB, WIDTH, T = 4096, 512, 256


class Block(nn.Module):
    """The block of nanoGPT: pre-norm attention and a GELU feed-forward of four times the width, no biases."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln1, self.ln2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.ln2(x))))


class NanoGpt(nn.Module):
    def __init__(self, vocab=VOCAB, width=WIDTH, length=T, layers=10, heads=8):
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02 / (2 * layers) ** 0.5 if name.endswith(("out.weight", "down.weight")) else 0.02)
        self.head.weight = self.token.weight

    def forward(self, tokens):
        x = self.token(tokens) + self.position.weight[:tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def hybrid():
    from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM
    model = GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4,
        intermediate_size=1280, shared_intermediate_size=1280, num_local_experts=0, num_experts_per_tok=0,
        layer_types=["attention" if i % 4 == 3 else "mamba" for i in range(12)], mamba_n_heads=16, mamba_d_head=64,
        mamba_d_state=128, mamba_n_groups=1, max_position_embeddings=T, tie_word_embeddings=True,
        position_embedding_type="rope", rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))
    return lambda tokens: model(input_ids=tokens, use_cache=False).logits, model


def gdn():
    from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig
    model = Qwen3_5ForCausalLM(Qwen3_5TextConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=4,
        head_dim=64, intermediate_size=1280, linear_num_key_heads=8, linear_num_value_heads=8, linear_key_head_dim=64,
        linear_value_head_dim=64, max_position_embeddings=T, tie_word_embeddings=True,
        layer_types=["full_attention" if i % 4 == 3 else "linear_attention" for i in range(12)],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
                         "mrope_section": [4, 2, 2]}))
    return lambda tokens: model(input_ids=tokens, use_cache=False).logits, model


def xlstm():
    from transformers import xLSTMConfig, xLSTMForCausalLM
    model = xLSTMForCausalLM(xLSTMConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, num_hidden_layers=10, num_heads=4, ffn_proj_factor=1368 / WIDTH,
        ffn_round_up_to_multiple_of=8, tie_word_embeddings=True, mode="train", chunk_size=64,
        autocast_kernel_dtype="float32"))
    return lambda tokens: model(input_ids=tokens, use_cache=False).logits, model


def peer(kind, bf16):
    torch.manual_seed(1)
    if kind == "attention":
        model = NanoGpt()
        forward, batch = model, 8
    elif kind == "xlstm":
        forward, model = xlstm()
        batch = 8
    else:
        forward, model = hybrid() if kind == "hybrid" else gdn()
        batch = 4
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1)
    tokens = torch.randint(0, VOCAB, (batch, T + 1))

    def step():
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):  # rounds the inputs of products
            logits = forward(tokens[:, :-1])
        loss = F.cross_entropy(logits.float().reshape(-1, VOCAB), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return batch * T / (time.perf_counter() - start)

    step()
    return step, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    for kind in ("attention", "hybrid", "gdn", "xlstm"):
        if args.only not in (None, kind):
            continue
        step, parameters = peer(kind, args.bf16)
        ours, theirs = [], []
        for _ in range(args.rounds):
            out = subprocess.run([args.program, kind, "2", "bf16" if args.bf16 else "f32"], capture_output=True, text=True, check=True).stdout.split()
            ours.append(float(out[out.index("tokens_per_second") + 1]))
            theirs.append(max(step() for _ in range(2)))
        ratios = sorted(a / b for a, b in zip(ours, theirs))
        print(f"{kind}: chimera {max(ours):.0f} tok/s, PyTorch {max(theirs):.0f} tok/s ({parameters} parameters), "
              f"ratio {ratios[0]:.2f} / {ratios[len(ratios) // 2]:.2f} / {ratios[-1]:.2f} (min / median / max)", flush=True)
