# transformers_logits.py PEER_MODELS: transformers runs our folders: the same logits, tokens and greedy continuation.
import models

try:
    import torch
    import transformers
except ImportError as missing:
    print(f"SKIPPED: {missing}")
    raise SystemExit


def compare(case):
    if not case.folder.exists():  # no class of transformers runs it
        return
    model = transformers.AutoModelForCausalLM.from_pretrained(case.folder, dtype=torch.float32,
                                                              attn_implementation="eager")
    with torch.no_grad():
        logits = model(torch.tensor([case.tokens])).logits[0].numpy()
    # An input that is rounded the other way moves logits of ternary matrices by far more than sums in other orders do.
    ternary = "ternary" in case.name
    case.compare(type(model).__name__, logits, 3e-2 if ternary else 1e-4)
    start = torch.tensor([case.tokens[:16]])
    # Token by token its Mamba-2 does not limit the step size, which it does for whole texts.
    written = model.generate(start, attention_mask=torch.ones_like(start), max_new_tokens=len(case.greedy),
                             do_sample=False, eos_token_id=None, use_cache=case.name != "limited_steps")
    if not ternary:
        models.check(f"{case.name}: the same greedy continuation", written[0, 16:].tolist() == case.greedy)
    tokenizer = transformers.AutoTokenizer.from_pretrained(case.folder)
    text = case.text_bytes.decode()
    models.check(f"{case.name}: the same tokens", tokenizer(text)["input_ids"] == case.special)
    models.check(f"{case.name}: the same text of them", tokenizer.decode(case.text) == text)
    models.check(f"{case.name}: no chat template, since it was not trained to chat", not tokenizer.chat_template)


models.run(compare)
