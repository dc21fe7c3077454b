// peer_models FOLDER: random models of several kinds as GGUF files and Hugging Face folders, and NAME.txt for each with
// what we make of them: the tokens of a text, the logits of other tokens, the likeliest continuation.
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/pack.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/generate/session.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/model/language_model.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

using namespace chimera;

namespace {

constexpr AttentionConfig attention{.heads = 4, .kv_heads = 2};
constexpr Mamba2Config mamba2{.head_dim = 16, .state = 16, .groups = 2, .chunk = 16};

constexpr Config hybrid{.vocab = 280,
                        .width = 64,
                        .context = 256,
                        .layers = pattern("M A M A"),
                        .attention = attention,
                        .mamba2 = mamba2,
                        .ffn = {.hidden = 96},
                        .tied = false,
                        .embedding_scale = 3.f,
                        .residual_scale = 0.7f,
                        .logit_scale = 0.5f};
constexpr Config no_positions = [] {
  Config c = hybrid;
  c.attention.position = Position::none, c.attention.scale = 0.2f, c.tied = true;
  return c;
}();
constexpr Config llama3_positions = [] {
  Config c = hybrid;
  c.attention.rope = {.scaling = RopeScaling::llama3, .factor = 8, .original_context = 64};
  return c;
}();
constexpr Config plain{.vocab = 280,
                       .width = 64,
                       .context = 256,
                       .layers = pattern("A A A"),
                       .attention = attention,
                       .ffn = {.hidden = 96}};
constexpr Config yarn = [] {
  Config c = plain;
  c.attention.rope = {.layout = RopeLayout::halves, .scaling = RopeScaling::yarn, .factor = 4, .original_context = 64};
  c.embedding_scale = 2.f;
  return c;
}();

constexpr Config qwen2 = [] {
  Config c = plain;
  c.attention.qkv_bias = true;
  return c;
}();
constexpr Config qwen3 = [] {
  Config c = plain;
  c.attention.head_dim = 24, c.attention.qk_norm = true, c.tied = false;
  return c;
}();
constexpr Config mistral = [] {
  Config c = plain;
  c.attention.window = 20;
  return c;
}();
constexpr Config granite = [] {
  Config c = hybrid;
  c.layers = pattern("A A"), c.attention.scale = 0.1f;
  c.attention.qkv_bias = c.attention.output_bias = true;
  return c;
}();
constexpr Config limited_steps = [] {
  Config c = hybrid;
  c.mamba2.dt_min = 0.05f, c.mamba2.dt_max = 0.2f;
  return c;
}();
constexpr Config longrope = [] {
  Config c = plain;
  c.attention.rope = {.scaling = RopeScaling::longrope, .factor = 4, .original_context = 64};
  for (std::size_t i = 0; i < 8; ++i)
    c.attention.rope.short_factor[i] = 1, c.attention.rope.long_factor[i] = 1.f + static_cast<float>(i);
  return c;
}();
constexpr Config dynamic_positions = [] {
  Config c = plain;
  c.attention.rope = {.scaling = RopeScaling::dynamic_ntk, .factor = 4, .original_context = 64};
  return c;
}();

constexpr Config bitnet{.vocab = 280,
                        .width = 256,
                        .context = 256,
                        .layers = pattern("A A"),
                        .attention = attention,
                        .ffn = {.hidden = 512},
                        .sub_norm = true};

/// As transformers has it, and alone: weights that it rounds, and weights that were rounded.
constexpr Config bitnet_relu2 = [] {
  Config c = bitnet;
  c.ffn.activation = Activation::relu2_gate, c.ternary.on = true;
  return c;
}();

constexpr Config qwen35{
    .vocab = 280,
    .width = 64,
    .context = 256,
    .layers = pattern("GD GD GD A", 8),
    .attention =
        {.heads = 4, .kv_heads = 2, .head_dim = 24, .rope = {.dims = 12}, .qk_norm = true, .output_gate = true},
    .gated_deltanet = {.key_heads = 2, .value_heads = 6, .key_dim = 16},
    .ffn = {.hidden = 96},
    .tied = false};
/// In another pattern, in the files' order of channels, with as many value heads as key heads.
constexpr Config qwen35_in_halves = [] {
  Config c = qwen35;
  c.layers = pattern("GD A GD"), c.tied = true, c.attention.rope.layout = RopeLayout::halves;
  c.gated_deltanet = {.key_heads = 4, .key_dim = 8, .conv = 3, .chunk = 16};
  return c;
}();
/// transformers' alone: values of another size than keys.
constexpr Config qwen3_5 = [] {
  Config c = qwen35;
  c.gated_deltanet.value_dim = 12;
  return c;
}();
constexpr Config xlstm{.vocab = 280,
                       .width = 96,
                       .context = 256,
                       .layers = pattern("XM", 3),
                       .mlstm = {.heads = 2, .qk = 64, .v = 128, .chunk = 16},
                       .ffn = {.hidden = 93},
                       .tied = false,
                       .norm_eps = 1e-6f,
                       .logit_cap = 20.f};

constexpr Config recurrent_gemma{
    .vocab = 280,
    .width = 96,
    .context = 256,
    .layers = pattern("R R A", 5),
    .attention = {.heads = 4, .kv_heads = 1, .window = 20, .rope = {.dims = 12}, .output_bias = true},
    .rg_lru = {.inner = 128, .bias = true},
    .ffn = {.hidden = 80, .activation = Activation::geglu, .bias = true},
    .norm_eps = 1e-6f,
    .embedding_scale = 9.8125f,
    .logit_cap = 30.f};

constexpr int length = 128, continued = 32;

/// Matrices larger than those that training begins with, so that logits differ clearly.
void draw(const AnyModel& m, float* weights) {
  m.initialize(weights, 7);
  for (const NamedTensor& t : m.tensors) {
    Random random{5, t.offset, 0};
    for (std::int64_t i = 0; i < t.size(); ++i) {
      float& w = weights[t.offset + static_cast<std::size_t>(i)];
      const bool norm = t.name().ends_with("q_norm.weight") || t.name().ends_with("k_norm.weight");
      const float most = norm || t.name().ends_with(".bias") ? 0.5f : 0.1f;
      w = t.rows > 1 ? 4 * w : w + random.uniform(-most, most);
    }
  }
}

template <class T>
void line(std::FILE* file, const char* name, const std::vector<T>& values) {
  std::fprintf(file, "%s", name);
  for (const T v : values) std::fprintf(file, " %.9g", static_cast<double>(v));
  std::fprintf(file, "\n");
}

template <const Config& C>
Status write(const Cpu& q, const std::string& folder, const std::string& name, const char* type = "f32") {
  const AnyModel m = any_model<C>(name);
  auto weights = Buffer::create(m.arena_floats), memory = Buffer::of_bytes(m.loss_bytes(1, length));
  const auto tokenizer = byte_tokenizer(C.vocab);
  draw(m, weights->data());
  const Vocabulary& v = tokenizer->vocabulary();
  const std::string path = folder + "/" + name;
  if (Status s = save_gguf(q, path + ".gguf", m, weights->data(), *file_type_named(type), name,
                           [&](GgufWriter& f) { set_tokenizer(f, *tokenizer, C.vocab); });
      !s)
    return s;
  if (unknown_to_transformers(C).empty() && type == std::string_view("f32")) {
    const Format format = name.ends_with("packed") ? Format::tq2_0 : Format::f32;
    if (Status s = save_hugging_face(q, path, m, weights->data(), format, {v.bos, v.eos, v.padding}); !s) return s;
    if (Status s = save_tokenizer(path, *tokenizer); !s) return s;
  }
  const auto stored = Gguf::open(path + ".gguf");
  if (!stored) return stored.error();
  if (Status s = load_gguf(q, *stored, m, weights->data()); !s) return s;

  std::vector<std::int32_t> tokens, greedy;
  for (int i = 0; i < length; ++i) tokens.push_back((i * 37 + i * i) % 256);
  TokenBatch batch;
  batch.sequences = 1, batch.length = length, batch.inputs = tokens.data();
  std::vector<float> logits(static_cast<std::size_t>(length * C.vocab));
  m.forward(q, weights->data(), batch, memory->bytes(), logits.data());

  const auto packed = pack_gguf(q, *stored, m);
  if (!packed) return packed.error();
  auto session = Session::create(q, *packed);
  if (!session) return session.error();
  for (auto next = session->prefill(std::span(tokens).first(16)); next && greedy.size() < continued;) {
    greedy.push_back(static_cast<std::int32_t>(std::max_element(next->begin(), next->end()) - next->begin()));
    next = session->step(greedy.back());
  }
  const std::string text = "Hello, \u0928\u092E\u0938\u094D\u0924\u0947 12\n\t<|im_end|>x";
  std::FILE* file = std::fopen((path + ".txt").c_str(), "w");
  if (!file) return file_error("write", path + ".txt");
  line(file, "llama_cpp", std::vector<int>{unknown_to_llama_cpp(C).empty()});
  line(file, "bytes", encode_bytes(text));
  line(file, "text", tokenizer->encode(text));
  line(file, "special", tokenizer->encode(text, Special::as_token));
  line(file, "tokens", tokens), line(file, "greedy", greedy), line(file, "logits", logits);
  return std::fclose(file) == 0 ? Status{} : file_error("write", path + ".txt");
}

Status write_all(const std::string& folder) {
  const auto q = Cpu::create(1);
  if (!q) return q.error();
  if (Status s = make_folder(folder); !s) return s;
  for (const Status& s : {write<hybrid>(*q, folder, "hybrid"),
                          write<no_positions>(*q, folder, "no_positions"),
                          write<llama3_positions>(*q, folder, "llama3_positions"),
                          write<plain>(*q, folder, "plain"),
                          write<yarn>(*q, folder, "yarn"),
                          write<qwen2>(*q, folder, "qwen2"),
                          write<qwen3>(*q, folder, "qwen3"),
                          write<mistral>(*q, folder, "mistral"),
                          write<granite>(*q, folder, "granite"),
                          write<limited_steps>(*q, folder, "limited_steps"),
                          write<longrope>(*q, folder, "longrope"),
                          write<qwen35>(*q, folder, "qwen35"),
                          write<qwen35_in_halves>(*q, folder, "qwen35_in_halves"),
                          write<qwen3_5>(*q, folder, "qwen3_5"),
                          write<dynamic_positions>(*q, folder, "dynamic_positions"),
                          write<xlstm>(*q, folder, "xlstm"),
                          write<recurrent_gemma>(*q, folder, "recurrent_gemma"),
                          write<bitnet>(*q, folder, "bitnet"),
                          write<bitnet>(*q, folder, "bitnet_ternary", "tq2_0"),
                          write<bitnet_relu2>(*q, folder, "ternary_relu2"),
                          write<bitnet_relu2>(*q, folder, "ternary_relu2_packed")})
    if (!s) return s;
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const Status status = argc == 2 ? write_all(argv[1]) : Status(Error{"expected a folder to write to"});
  if (!status) std::fprintf(stderr, "peer_models: %s\n", status.error().message.c_str());
  return !status;
}
