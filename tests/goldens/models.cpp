#include "gguf.hpp"
#include "golden.hpp"

#include <chimera/model/any_model.hpp>

#include <map>

namespace goldens {
namespace {

using namespace chimera;

/// The tensors of a checkpoint that stand one upon the other in a weight of ours.
std::vector<std::string> checkpoint_names(std::string_view ours) {
  static const std::map<std::string, std::vector<std::string>, std::less<>> of_block{
      {"attn_norm.weight", {"input_layernorm.weight"}},
      {"ffn_norm.weight", {"post_attention_layernorm.weight"}},
      {"attn_qkv.weight", {"self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"}},
      {"attn_output.weight", {"self_attn.o_proj.weight"}},
      {"ssm_in.weight", {"mamba.in_proj.weight"}},
      {"ssm_conv1d.weight", {"mamba.conv1d.weight"}},
      {"ssm_conv1d.bias", {"mamba.conv1d.bias"}},
      {"ssm_dt.bias", {"mamba.dt_bias"}},
      {"ssm_a_log", {"mamba.A_log"}},
      {"ssm_d", {"mamba.D"}},
      {"ssm_norm.weight", {"mamba.norm.weight"}},
      {"ssm_out.weight", {"mamba.out_proj.weight"}},
      {"ffn_gate_up.weight", {"shared_mlp.input_linear.weight"}},
      {"ffn_down.weight", {"shared_mlp.output_linear.weight"}}};
  if (ours == "token_embd.weight") return {"model.embed_tokens.weight"};
  if (ours == "output_norm.weight") return {"model.norm.weight"};
  if (ours == "output.weight") return {"lm_head.weight"};
  const std::string_view rest = ours.substr(4);  // behind "blk."
  const std::size_t dot = rest.find('.');
  const auto found = of_block.find(rest.substr(dot + 1));
  if (found == of_block.end()) throw std::runtime_error("no checkpoint name for " + std::string(ours));
  std::vector<std::string> names;
  for (const std::string& name : found->second)
    names.push_back("model.layers." + std::string(rest.substr(0, dot)) + "." + name);
  return names;
}

void append(Floats& all, const Floats& part) { all.insert(all.end(), part.begin(), part.end()); }

Floats sized(Floats all, const NamedTensor& t) {
  if (static_cast<std::int64_t>(all.size()) != t.size())
    throw std::runtime_error(std::string(t.name()) + ": the file has " + std::to_string(all.size()) +
                             " values, expected " + std::to_string(t.size()));
  return all;
}

Floats stacked(const Safetensors& file, const std::string& prefix, const NamedTensor& t) {
  Floats all;
  for (const std::string& name : checkpoint_names(t.name())) append(all, file.floats(prefix + name));
  return sized(std::move(all), t);
}

/// The same weight from a GGUF file, where the rows of each head of q and k stand in the order of neighbouring pairs.
Floats from_gguf(const Gguf& file, const Config& c, const NamedTensor& t) {
  const std::string name(t.name());
  const auto sibling = [&](const char* other) {
    return name.substr(0, name.rfind('.', name.rfind('.') - 1) + 1) + other;
  };
  const auto halves = [&](const char* other, std::int64_t heads) {
    return swap_axes(file.floats(sibling(other)), heads, c.head_dim() / 2, 2, c.width);
  };
  Floats all;
  if (name.ends_with("attn_qkv.weight")) {
    append(all, halves("attn_q.weight", c.attention.heads));
    append(all, halves("attn_k.weight", c.kv_heads()));
    append(all, file.floats(sibling("attn_v.weight")));
  } else if (name.ends_with("ffn_gate_up.weight")) {
    append(all, file.floats(sibling("ffn_gate.weight")));
    append(all, file.floats(sibling("ffn_up.weight")));
  } else if (name.ends_with("ssm_a_log")) {
    all = file.floats(name.substr(0, name.size() - 4));
    for (float& a : all) a = std::log(-a);
  } else {
    all = file.floats(name);
  }
  return sized(std::move(all), t);
}

void compare_decoding(Golden& g, const Cpu& q, const AnyModel& model, const float* weights,
                      const std::vector<std::int32_t>& tokens, const Floats& want) {
  const std::size_t V = static_cast<std::size_t>(model.config->vocab), T = tokens.size() / 2;
  Floats decoded(want.size());
  for (const std::size_t cut : {std::size_t{0}, T / 2}) {
    for (std::size_t b = 0; b < 2; ++b) {
      Floats state(model.state_floats, 0.f);
      Arena step_memory(static_cast<std::int64_t>(model.decode_floats())),
          memory(static_cast<std::int64_t>(model.prefill_floats(static_cast<std::int64_t>(T))));
      const std::int32_t* text = tokens.data() + b * T;
      if (cut > 0) {
        float* logits = decoded.data() + (b * T + cut - 1) * V;
        model.prefill(q, weights, text, static_cast<std::int64_t>(cut), 0, state.data(), memory.data(), logits);
      }
      for (std::size_t t = cut; t < T; ++t)
        model.step(q, weights, text[t], static_cast<std::int64_t>(t), state.data(), step_memory.data(),
                   decoded.data() + (b * T + t) * V);
      if (!step_memory.intact() || !memory.intact()) g.fail("decoding writes behind its memory");
    }
    g.compare(cut ? "out.logits, half, then token by token" : "out.logits, token by token", decoded, want,
              logits_tolerance);
  }
}

void compare_greedy(Golden& g, const Cpu& q, const AnyModel& model, const float* weights) {
  const std::vector<std::int32_t> prompt = g.data().integers("in.prompt"), want = g.data().integers("out.greedy");
  Floats state(model.state_floats, 0.f), logits(static_cast<std::size_t>(model.config->vocab));
  Arena memory(static_cast<std::int64_t>(model.prefill_floats(static_cast<std::int64_t>(prompt.size()))));
  Arena step_memory(static_cast<std::int64_t>(model.decode_floats()));
  auto position = static_cast<std::int64_t>(prompt.size());
  model.prefill(q, weights, prompt.data(), position, 0, state.data(), memory.data(), logits.data());
  int wrong = 0;
  for (const std::int32_t token : want) {
    const auto best = static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    wrong += best != token;
    model.step(q, weights, token, position++, state.data(), step_memory.data(), logits.data());
  }
  g.record("out.greedy, tokens that differ", wrong, 0.5);
}

/// The two rows of tokens, each with its next token as target.
struct Text {
  std::vector<std::int32_t> tokens, targets;
  TokenBatch batch;

  explicit Text(const Golden& g) : tokens(g.data().integers("in.tokens")), targets(tokens.begin() + 1, tokens.end()) {
    targets.push_back(-1);
    targets[tokens.size() / 2 - 1] = -1;
    batch.sequences = 2, batch.length = static_cast<std::int64_t>(tokens.size()) / 2;
    batch.inputs = tokens.data(), batch.targets = targets.data();
  }
};

void compare_logits(Golden& g, const Cpu& q, const AnyModel& model, const float* weights, const Text& text,
                    const std::string& name) {
  const Floats want = g.get(name, text.batch.tokens() * model.config->vocab);
  Floats logits(want.size());
  Arena memory(static_cast<std::int64_t>(model.loss_floats(2, text.batch.length)));
  model.forward(q, weights, text.batch, memory.data(), logits.data());
  g.compare(name, logits, want, logits_tolerance);
  if (!memory.intact()) g.fail("the forward pass writes behind its memory");
}

void compare_checkpoint(Golden& g, const Cpu& q, const AnyModel& model, const float* weights, const Text& text) {
  const TokenBatch& batch = text.batch;
  Arena memory(static_cast<std::int64_t>(model.loss_floats(2, batch.length)));
  const float loss = static_cast<float>(model.loss(q, weights, batch, memory.data()).mean());
  g.compare("out.loss", {&loss, 1}, g["out.loss"], forward_tolerance);
  if (!memory.intact()) g.fail("the loss writes behind its memory");
  compare_logits(g, q, model, weights, text, "out.logits");
  compare_decoding(g, q, model, weights, text.tokens, g["out.logits"]);
  compare_greedy(g, q, model, weights);
  if (!g.data().has("grad.model.norm.weight")) return;

  Arena training(static_cast<std::int64_t>(model.train_floats(2, batch.length))),
      gradients(static_cast<std::int64_t>(model.arena_floats));
  std::fill_n(gradients.data(), gradients.size(), 0.f);
  const TrainingStep step{.scale = 1.f / static_cast<float>(batch.counted())};
  const float trained =
      static_cast<float>(model.train(q, weights, batch, step, training.data(), gradients.data()).mean());
  g.compare("out.loss, in training", {&trained, 1}, g["out.loss"], forward_tolerance);
  for (const NamedTensor& t : model.tensors)
    g.compare("grad." + std::string(t.name()), {gradients.data() + t.offset, static_cast<std::size_t>(t.size())},
              stacked(g.data(), "grad.", t), model_gradient_tolerance);
  if (!training.intact() || !gradients.intact()) g.fail("training writes behind its memory");
}

}  // namespace

void run_granite(Golden& g, const Cpu& q, const AnyModel& model) {
  const Text text(g);
  Arena weights(static_cast<std::int64_t>(model.arena_floats));
  const auto fill = [&](auto&& values_of) {
    for (const NamedTensor& t : model.tensors) {
      const Floats values = values_of(t);
      std::copy(values.begin(), values.end(), weights.data() + t.offset);
    }
  };
  bool found = false;
  if (const auto path = g.checkpoint() / "model.safetensors"; std::filesystem::exists(path)) {
    const Safetensors file(path);
    fill([&](const NamedTensor& t) { return stacked(file, "", t); });
    compare_checkpoint(g, q, model, weights.data(), text);
    found = true;
  }
  for (const std::string type : {"f32", "q8_0", "q4_0", "q4_k_m"}) {
    const auto path = g.checkpoint() / ("model-" + type + ".gguf");
    if (!std::filesystem::exists(path)) continue;
    const Gguf file(path);
    fill([&](const NamedTensor& t) { return from_gguf(file, *model.config, t); });
    compare_logits(g, q, model, weights.data(), text, type == "f32" ? "out.logits" : "out." + type + ".logits");
    found = true;
  }
  if (!found) g.skip("the folder has no weights of this model");
}

}  // namespace goldens
