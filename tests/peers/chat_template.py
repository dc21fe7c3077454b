# chat_template.py PROGRAM: conversations as text: ours (PROGRAM, built from chat_template.cpp) beside llama.cpp's, and
# beside the Jinja sources of models, run by jinja2. Either package may be missing.
import ctypes
import json
import random
import subprocess
import sys

SOURCES = {
    "chatml": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
              "'<|im_end|>' + '\\n' }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{% set loop_messages = messages %}{% for message in loop_messages %}"
              "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ "
              "message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}"
              "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "granite": "{%- for message in messages %}{%- if message['role'] == 'system' %}"
               "{{- '<|start_of_role|>system<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}"
               "{%- elif message['role'] == 'user' %}"
               "{{- '<|start_of_role|>user<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}"
               "{%- elif message['role'] == 'assistant' %}"
               "{{- '<|start_of_role|>assistant<|end_of_role|>' + message['content'] + '<|end_of_text|>\\n' }}"
               "{%- endif %}{%- endfor %}"
               "{%- if add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}",
    "unknown": "{% for message in messages %}{{ '[INST]' + message['content'] + '[/INST]' }}{% endfor %}",
    "phi4": "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + "
            "'<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
}
KNOWN = ("chatml", "llama3", "granite")
random.seed(5)


def conversation():
    words = ["hello", " ", "\n", "  ", "नमस्ते", "<|im_end|>", "x", "\t", "🦁", '"', "\\", "{{ x }}", "."]
    text = lambda: "".join(random.choice(words) for _ in range(random.randrange(6)))
    messages = [("system", text())] if random.random() < 0.5 else []
    for _ in range(random.randrange(4)):
        messages += [("user", text()), ("assistant", text())]
    return messages + [("user", text())]


def ours(cases):
    lines = "".join(json.dumps({"template": SOURCES[name], "begin": begin,
                                "messages": [{"role": r, "content": c} for r, c in messages]}) + "\n"
                    for name, messages, begin in cases)
    out = subprocess.run([sys.argv[1]], input=lines, text=True, stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line) for line in out.splitlines()]


def llama_cpp_text():
    import llama_cpp

    def text(name, messages, begin):
        array = (llama_cpp.llama_chat_message * len(messages))(
            *[llama_cpp.llama_chat_message(role=r.encode(), content=c.encode()) for r, c in messages])
        size = 1 << 16
        buffer = ctypes.create_string_buffer(size)
        n = llama_cpp.llama_chat_apply_template(SOURCES[name].encode(), array, len(messages), begin, buffer, size)
        return buffer.raw[:n].decode() if n >= 0 else None
    return text


def jinja_text():
    import jinja2
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    compiled = {name: environment.from_string(source) for name, source in SOURCES.items()}
    return lambda name, messages, begin: compiled[name].render(
        messages=[{"role": r, "content": c} for r, c in messages], add_generation_prompt=begin)


cases = [(name, conversation(), begin) for name in SOURCES for begin in (False, True) for _ in range(100)]
texts = ours(cases)
failures = 0
for what, make in (("llama.cpp", llama_cpp_text), ("jinja2", jinja_text)):
    try:
        text = make()
    except ImportError as missing:
        print("SKIPPED:", missing)
        continue
    wrong = [(case, mine, theirs) for case, mine in zip(cases, texts) if case[0] in KNOWN
             for theirs in [text(*case)] if mine != theirs]
    failures += len(wrong)
    print(f"{'FAIL' if wrong else 'ok'}   {what}: {sum(c[0] in KNOWN for c in cases)} conversations, {len(wrong)} differ")
    for case, mine, theirs in wrong[:3]:
        print(f"  {case}\n  ours   {mine!r}\n  theirs {theirs!r}")
others = [mine for case, mine in zip(cases, texts) if case[0] not in KNOWN]
if any(mine is not None for mine in others):
    failures += 1
    print("FAIL a template was recognised that is not known")
sys.exit(failures > 0)
