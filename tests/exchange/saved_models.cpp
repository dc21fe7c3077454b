#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/model_card.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

#include "models.hpp"
#include "temporary_folder.hpp"

using namespace chimera;

namespace {

Status save(const Cpu& q, const std::string& path, const AnyModel& m, const Floats& w, const char* type = "f32") {
  return save_gguf(q, path, m, w.data(), *file_type_named(type), m.name,
                   [&](GgufWriter& f) { set_tokenizer(f, *byte_tokenizer(m.config->vocab), m.config->vocab); });
}

Status load(const Cpu& q, const std::string& path, const AnyModel& m, Floats& w) {
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  w.assign(m.arena_floats, 0.f);
  return load_gguf(q, *file, m, w.data());
}

/// The largest difference, of numbers that are 1 at most.
float difference(const Floats& a, const Floats& b) {
  float most = a.size() == b.size() ? 0.f : 1e9f;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

const std::vector<AnyModel>& models() {
  static const std::vector<AnyModel> all{table_of<hybrid>("hybrid"),
                                         table_of<hybrid_in_halves>("hybrid_in_halves"),
                                         table_of<no_positions>("no_positions"),
                                         table_of<plain>("plain"),
                                         table_of<qwen2>("qwen2"),
                                         table_of<qwen3>("qwen3"),
                                         table_of<qwen3_in_halves>("qwen3_in_halves"),
                                         table_of<qwen35>("qwen35"),
                                         table_of<mistral>("mistral"),
                                         table_of<biased>("biased"),
                                         table_of<granite>("granite"),
                                         table_of<griffin>("griffin"),
                                         table_of<recurrent_gemma>("recurrent_gemma"),
                                         table_of<xlstm>("xlstm"),
                                         table_of<bitnet>("bitnet"),
                                         table_of<ternary_relu2>("ternary_relu2")};
  return all;
}

}  // namespace

TEST_CASE("weights go through GGUF in every format") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  struct Case {
    const char* type;
    float error;
  };
  for (const auto& [type, error] :
       {Case{"f32", 2e-7f}, Case{"f16", 3e-4f}, Case{"bf16", 2e-3f}, Case{"q8_0", 5e-3f}, Case{"q4_0", 0.14f}})
    for (const AnyModel& m : models()) {
      if (m.config->ternary.on && error > 2e-3f) continue;  // there is no such file
      CAPTURE(m.name);
      CAPTURE(type);
      const std::string path = folder / "m.gguf";
      const Floats w = weights_of(m);
      Floats back;
      const Status saved = save(q, path, m, w, type);
      REQUIRE_MESSAGE(saved.ok(), message(saved));
      const Status loaded = load(q, path, m, back);
      REQUIRE_MESSAGE(loaded.ok(), message(loaded));
      CHECK(difference(w, back) <= error);
    }
}

TEST_CASE("a ternary file holds -1, 0 and 1, and the mean magnitude of each matrix") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  const AnyModel m = table_of<bitnet>("bitnet");
  const Floats w = weights_of(m);
  for (const char* type : {"tq1_0", "tq2_0"}) {
    CAPTURE(type);
    const Status saved = save(q, folder / "m.gguf", m, w, type);
    REQUIRE_MESSAGE(saved.ok(), message(saved));
    Floats back, again;
    const Status loaded = load(q, folder / "m.gguf", m, back);
    REQUIRE_MESSAGE(loaded.ok(), message(loaded));
    for (const NamedTensor& t : m.tensors) {
      if (t.rows == 1 || !t.name().starts_with("blk.")) continue;
      CAPTURE(t.name());
      // The rows of k and v, and those of up, are matrices of their own.
      const std::int64_t rows = t.name().ends_with("attn_qkv.weight")  ? 256
                                : t.name().ends_with("gate_up.weight") ? 256
                                                                       : t.rows;
      double sum = 0;
      for (std::int64_t i = 0; i < rows * t.cols; ++i)
        sum += std::abs(double{w[t.offset + static_cast<std::size_t>(i)]});
      const auto mean = static_cast<float>(sum / static_cast<double>(rows * t.cols));
      int wrong = 0;
      for (std::int64_t i = 0; i < rows * t.cols; ++i) {
        const std::size_t at = t.offset + static_cast<std::size_t>(i);
        const float code = std::clamp(std::round(w[at] / mean), -1.f, 1.f);
        wrong += std::abs(back[at] - code * mean) > 1e-6f;
      }
      CHECK(wrong == 0);
    }
    // What is ternary stays as it is.
    REQUIRE(save(q, folder / "f32.gguf", m, back).ok());
    REQUIRE(load(q, folder / "f32.gguf", m, again).ok());
    CHECK(difference(back, again) == 0.f);
    CHECK(Gguf::open(folder / "m.gguf")->tensor("blk.1.ffn_down.scale"));
  }
}

TEST_CASE("weights go through a Hugging Face folder; the order of channels that turn is the reader's") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  for (const AnyModel& m : models()) {
    CAPTURE(m.name);
    const Floats w = weights_of(m);
    if (m.name == "griffin") {
      CHECK(contains(message(save_hugging_face(q, folder / "no", m, w.data(), Format::f32, {})), "no layer like R"));
      CHECK_FALSE(exists(folder / "no"));
      continue;
    }
    for (const Format format : {Format::f32, Format::f16, Format::bf16}) {
      const Status saved = save_hugging_face(q, folder / "m", m, w.data(), format, {1, 2, 3});
      REQUIRE_MESSAGE(saved.ok(), message(saved));
      Floats back(m.arena_floats, 0.f);
      const Status loaded = load_hugging_face(q, folder / "m", m, back.data());
      REQUIRE_MESSAGE(loaded.ok(), message(loaded));
      const float exact = m.name == "qwen35" || m.name == "recurrent_gemma"
                              ? 1e-7f
                              : 0.f;  // norms, less 1, are rounded, and twice as large
      const float rounded = format == Format::f32 ? 0.f : format == Format::f16 ? 3e-4f : 2e-3f;
      CHECK(difference(w, back) <= (exact > 0 ? exact + 2 * rounded : rounded));
    }
  }
  // Rows 2i and 2i + 1 of a head are i and 8 + i in the other order.
  const AnyModel adjacent = models()[0], halves = models()[1];
  const Floats w = weights_of(adjacent);
  REQUIRE(save_hugging_face(q, folder / "m", adjacent, w.data(), Format::f32, {}).ok());
  Floats turned(halves.arena_floats, 0.f);
  REQUIRE(load_hugging_face(q, folder / "m", halves, turned.data()).ok());
  for (const NamedTensor& t : adjacent.tensors) {
    const bool qkv = t.name().ends_with("attn_qkv.weight");
    for (std::int64_t r = 0; r < t.rows; ++r) {
      const std::int64_t i = r % 16, there = qkv && r < 6 * 16 ? r - i + i / 2 + i % 2 * 8 : r;
      for (std::int64_t c = 0; c < t.cols; ++c)
        if (w[t.offset + static_cast<std::size_t>(r * t.cols + c)] !=
            turned[t.offset + static_cast<std::size_t>(there * t.cols + c)])
          FAIL(t.name() << " row " << r);
    }
  }
  REQUIRE(save(q, folder / "a.gguf", adjacent, w).ok());
  REQUIRE(save(q, folder / "b.gguf", halves, turned).ok());
  const auto data = [](const std::string& path) {
    const std::string bytes = read_file(path);
    return bytes.substr(bytes.size() - 4u * LanguageModel<hybrid>::parameters);
  };
  CHECK(data(folder / "a.gguf") == data(folder / "b.gguf"));
}

TEST_CASE("a Hugging Face folder holds ternary matrices in two bits, and their scales") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 2);
  const AnyModel m = table_of<ternary_relu2>("ternary_relu2");
  const Floats w = weights_of(m);
  const auto load = [&](const std::string& path, Floats& back) {
    back.assign(m.arena_floats, 0.f);
    return load_hugging_face(q, path, m, back.data());
  };
  REQUIRE(message(save_hugging_face(q, folder / "m", m, w.data(), Format::tq2_0, {})) == "");
  Floats back, again;
  REQUIRE(message(load(folder / "m", back)) == "");
  const auto rounded = [&](const Floats& weights) {
    Floats all;
    for (const NamedTensor& t : m.tensors) {
      if (!t.packed() || !t.name().starts_with("blk.")) continue;
      const TernaryShape shape{t.rows, t.cols, 0, t.parts};
      Floats scales = zeros(t.rows), values = zeros(t.size());
      ternary_scales(q, shape, weights.data() + t.offset, scales.data());
      ternary_weights(q, shape, weights.data() + t.offset, scales.data(), values.data());
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  CHECK(difference(rounded(back), rounded(w)) <= 1e-6f);
  REQUIRE(save_hugging_face(q, folder / "again", m, back.data(), Format::tq2_0, {}).ok());
  REQUIRE(load(folder / "again", again).ok());
  CHECK(difference(rounded(again), rounded(w)) <= 1e-6f);

  const std::string weights = folder / "m/model.safetensors", config = folder / "m/config.json";
  const std::string bytes = read_file(weights), text = read_file(config);
  // Its other class divides by the scale that it calls the same.
  const auto replaced = [](std::string where, std::string_view what, std::string_view by) {
    REQUIRE(where.find(what) != where.npos);
    return where.replace(where.find(what), what.size(), by);
  };
  write_file(config, replaced(text, "autobitlinear", "bitlinear"));
  REQUIRE(load(folder / "m", again).ok());
  const NamedTensor& down = *std::find_if(m.tensors.begin(), m.tensors.end(),
                                          [](const NamedTensor& t) { return t.name() == "blk.0.ffn_down.weight"; });
  double mean = 0, inverse = 0;
  for (std::int64_t i = 0; i < down.size(); ++i)
    mean += std::abs(double{back[down.offset + static_cast<std::size_t>(i)]}) / static_cast<double>(down.size()),
        inverse +=
        std::abs(double{again[down.offset + static_cast<std::size_t>(i)]}) / static_cast<double>(down.size());
  CHECK(mean * inverse == doctest::Approx(1.0).epsilon(1e-5));

  write_file(config, text);
  {
    const auto file = Safetensors::open(weights);
    const auto codes = file->tensor("model.layers.1.mlp.up_proj.weight")->data;
    const std::string start(reinterpret_cast<const char*>(codes.data()), 256);
    write_file(folder / "broken", replaced(bytes, start, "\x03" + start.substr(1)));
  }
  write_file(weights, read_file(folder / "broken"));
  CHECK(contains(message(load(folder / "m", again)),
                 "expected the codes 0, 1 and 2 of the weights -1, 0 and 1, found 3"));
  write_file(weights, replaced(bytes, "down_proj.weight_scale", "down_proj.weight_xcale"));
  CHECK(contains(message(load(folder / "m", again)), "expected F32, F16 or BF16, found U8"));
  CHECK(contains(message(save_hugging_face(q, folder / "no", table_of<bitnet>("bitnet"), w.data(), Format::tq2_0, {})),
                 "TQ2_0 of ternary matrices"));
}

TEST_CASE("biases, and norms of queries and keys, turn with the channels that they are of") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 1);
  static constexpr Config adjacent = [] {
    Config c = qwen3_in_halves;
    c.attention.rope.layout = RopeLayout::adjacent;
    return c;
  }();
  const AnyModel from = table_of<qwen3_in_halves>("halves"), to = table_of<adjacent>("adjacent");
  const Floats w = weights_of(from);
  REQUIRE(save_hugging_face(q, folder / "m", from, w.data(), Format::f32, {}).ok());
  REQUIRE(save(q, folder / "m.gguf", from, w).ok());
  Floats turned(to.arena_floats, 0.f), from_gguf;
  REQUIRE(load_hugging_face(q, folder / "m", to, turned.data()).ok());
  REQUIRE(load(q, folder / "m.gguf", to, from_gguf).ok());
  CHECK(turned == from_gguf);
  constexpr std::int64_t head = 24, turning = 6 * head;  // four heads of queries, two of keys
  for (const NamedTensor& t : from.tensors) {
    const bool bias = t.name().ends_with("attn_qkv.bias");
    const bool norm = t.name().ends_with("attn_q_norm.weight") || t.name().ends_with("attn_k_norm.weight");
    if (!bias && !norm) continue;
    for (std::int64_t i = 0; i < t.cols; ++i) {
      const std::int64_t c = i % head, there = i >= turning ? i : i - c + (c < head / 2 ? 2 * c : 2 * c - head + 1);
      if (w[t.offset + static_cast<std::size_t>(i)] != turned[t.offset + static_cast<std::size_t>(there)])
        FAIL(t.name() << " channel " << i);
    }
  }
}

TEST_CASE("a file that is not the model's is an error that names what differs") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 1);
  const AnyModel& m = models()[0];
  const Floats w = weights_of(m);
  Floats back;
  const std::string path = folder / "m.gguf", changed = folder / "changed.gguf";
  REQUIRE(save(q, path, m, w).ok());
  for (const AnyModel& other : {models()[2], models()[3], models()[4]})
    CHECK(contains(message(load(q, path, other, back)), "is not that of the model"));

  /// The file again, each tensor as `change` leaves it; null data: without it.
  const auto rewrite = [&](auto change) {
    const auto file = Gguf::open(path);
    REQUIRE(file.ok());
    GgufWriter out;
    out.set_all(*file);
    std::vector<GgufTensor> kept;
    for (GgufTensor t : file->tensors()) {
      change(t);
      if (t.data.data() == nullptr) continue;
      REQUIRE(out.add(t.name, std::span(t.ne).first(static_cast<std::size_t>(t.dims)), t.format).ok());
      kept.push_back(t);
    }
    REQUIRE(out.begin(changed).ok());
    for (const GgufTensor& t : kept) REQUIRE(out.append(t.data).ok());
    REQUIRE(out.commit().ok());
    return message(load(q, changed, m, back));
  };
  const auto named = [](std::string_view name, auto change) {
    return [=](GgufTensor& t) {
      if (t.name == name) change(t);
    };
  };
  static const std::vector<float> nan(512, std::numeric_limits<float>::quiet_NaN()), one(512, 1.f);
  CHECK(rewrite([](GgufTensor&) {}) == "");
  CHECK(contains(rewrite(named("blk.1.attn_k.weight", [](GgufTensor& t) { t.data = {}; })),
                 "no tensor blk.1.attn_k.weight"));
  CHECK(contains(rewrite(named("blk.1.attn_k.weight", [](GgufTensor& t) { t.name = "blk.1.attn_x.weight"; })),
                 "no tensor blk.1.attn_k.weight"));
  CHECK(contains(rewrite(named("blk.1.attn_q.weight",
                               [](GgufTensor& t) { std::swap(t.ne[0], t.ne[1]), t.ne[0] *= 2, t.ne[1] /= 2; })),
                 "tensor blk.1.attn_q.weight: expected the shape [64 x 64], found [32 x 128]"));
  CHECK(contains(
      rewrite(named("blk.0.attn_norm.weight", [](GgufTensor& t) { t.data = std::as_bytes(std::span(nan).first(64)); })),
      "tensor blk.0.attn_norm.weight: expected numbers"));
  CHECK(contains(rewrite(named("blk.0.ssm_a", [](GgufTensor& t) { t.data = std::as_bytes(std::span(one).first(8)); })),
                 "tensor blk.0.ssm_a: expected numbers below 0"));
  CHECK(contains(rewrite(named("blk.0.ssm_a", [](GgufTensor& t) { t.format = Format::i32; })),
                 "expected a format of weights, found I32"));
  // A tensor too many.
  {
    const auto file = Gguf::open(path);
    GgufWriter out;
    out.set_all(*file);
    for (const GgufTensor& t : file->tensors())
      REQUIRE(out.add(t.name, std::span(t.ne).first(static_cast<std::size_t>(t.dims)), t.format).ok());
    REQUIRE(out.add("blk.1.attn_q_norm.weight", {16}, Format::f32).ok());
    REQUIRE(out.begin(changed).ok());
    for (const GgufTensor& t : file->tensors()) REQUIRE(out.append(t.data).ok());
    REQUIRE(out.append(std::as_bytes(std::span(one).first(16))).ok());
    REQUIRE(out.commit().ok());
    CHECK(contains(message(load(q, changed, m, back)), "no place for: blk.1.attn_q_norm.weight"));
  }
}

TEST_CASE("a folder that is not the model's is an error") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 1);
  const AnyModel& m = models()[0];
  const Floats w = weights_of(m);
  Floats back(m.arena_floats, 0.f);
  REQUIRE(save_hugging_face(q, folder / "m", m, w.data(), Format::f32, {}).ok());
  CHECK(contains(message(load_hugging_face(q, folder / "m", models()[3], back.data())), "is not that of the model"));
  CHECK(contains(message(save_hugging_face(q, folder / "m", m, w.data(), Format::q8_0, {})), "F32, F16 or BF16"));
  const std::string weights = read_file(folder / "m/model.safetensors"), config = read_file(folder / "m/config.json");
  write_file(folder / "m/model.safetensors", weights.substr(0, weights.size() - 1));
  CHECK_FALSE(load_hugging_face(q, folder / "m", m, back.data()).ok());
  std::string renamed = weights;
  renamed.replace(renamed.find("A_log"), 5, "B_log");
  write_file(folder / "m/model.safetensors", renamed);
  CHECK(contains(message(load_hugging_face(q, folder / "m", m, back.data())),
                 "has no tensor model.layers.0.mamba.A_log"));
  write_file(folder / "m/model.safetensors", weights);
  write_file(folder / "m/config.json", config.substr(0, config.size() / 2));
  CHECK(contains(message(load_hugging_face(q, folder / "m", m, back.data())), "config.json"));
}

TEST_CASE("a model's tokenizer is the one in its file or folder, or bytes") {
  const TemporaryFolder folder;
  const Cpu q = cpu(Isa::base, 1);
  const AnyModel& m = models()[0];
  Vocabulary v = byte_vocabulary();
  v.tokens.push_back({"ab", TokenType::normal});
  v.merges = {{'a', 'b'}};
  const auto merging = Tokenizer::create(v);
  REQUIRE(merging.ok());
  const std::string gguf = folder / "m.gguf";
  REQUIRE(save_gguf(q, gguf, m, weights_of(m).data(), file_types[0], "m", [&](GgufWriter& f) {
            set_tokenizer(f, *merging, m.config->vocab);
          }).ok());
  REQUIRE(make_folder(folder / "run").ok());
  const std::string checkpoint = folder / "run/checkpoint-000001.chimera";
  CHECK(tokenizer_of(checkpoint, 272)->encode("ab") == std::vector<std::int32_t>{'a', 'b'});
  REQUIRE(save_tokenizer(folder / "run", *merging).ok());
  for (const std::string& path : {gguf, folder / "run", checkpoint}) {
    const auto found = tokenizer_of(path, 272);
    REQUIRE_MESSAGE(found.ok(), message(found));
    CHECK(found->encode("abc") == std::vector<std::int32_t>{265, 'c'});
    CHECK(found->decode(std::vector<std::int32_t>{265, 270, 271}) == "ab");
    CHECK(found->vocabulary().eos == end_of_text);
  }
  CHECK(contains(message(tokenizer_of(folder / "run", 265)), "has 266 tokens, the model 265"));
  v.bos = v.eos = v.eot = v.padding = -1;
  const auto silent = Tokenizer::create(v);
  const auto told = with_special_ids(*silent);
  REQUIRE(told.ok());
  CHECK(told->vocabulary().bos == end_of_text);
  CHECK(told->vocabulary().eos == end_of_text);
  CHECK(told->vocabulary().eot == 258);
  CHECK(told->vocabulary().padding == 264);
  CHECK(told->vocabulary().chat_template.empty());
  CHECK(byte_tokenizer(512)->vocabulary().chat_template.empty());
  CHECK(contains(message(byte_tokenizer(255)), "needs 256"));
  CHECK(byte_tokenizer(256)->vocabulary().eos == -1);
  CHECK(byte_tokenizer(257)->ends_text(end_of_text));
}

TEST_CASE("llama.cpp's architectures, and the reasons why there is none") {
  CHECK(gguf_architecture(hybrid) == "granitehybrid");
  CHECK(gguf_architecture(plain) == "llama");
  CHECK(gguf_architecture(griffin) == "chimera");
  CHECK(gguf_architecture(bitnet) == "bitnet");
  CHECK(gguf_architecture(qwen2) == "qwen2");
  CHECK(gguf_architecture(qwen3) == "qwen3");
  CHECK(gguf_architecture(qwen35) == "qwen35");
  CHECK(gguf_architecture(granite) == "granite");
  CHECK(gguf_architecture(mistral) == "chimera");
  CHECK(hugging_face_architecture(plain) == "LlamaForCausalLM");
  CHECK(hugging_face_architecture(mistral) == "MistralForCausalLM");
  CHECK(hugging_face_architecture(qwen2) == "Qwen2ForCausalLM");
  CHECK(hugging_face_architecture(qwen3_in_halves) == "Qwen3ForCausalLM");
  CHECK(hugging_face_architecture(qwen35) == "Qwen3_5ForCausalLM");
  CHECK(hugging_face_architecture(granite) == "GraniteForCausalLM");
  CHECK(hugging_face_architecture(hybrid) == "GraniteMoeHybridForCausalLM");
  CHECK(gguf_architecture(xlstm) == "chimera");
  CHECK(hugging_face_architecture(xlstm) == "xLSTMForCausalLM");
  Config c = plain;
  c.residual_scale = 0.5f;
  CHECK(gguf_architecture(c) == "granite");
  c = plain, c.attention.position = Position::none;
  CHECK(gguf_architecture(c) == "granite");
  c = plain, c.attention.window = 16;
  CHECK(contains(unknown_to_llama_cpp(c), "sliding window"));
  c = hybrid, c.attention.qk_norm = true;
  CHECK(contains(unknown_to_llama_cpp(c), "attention layers alone"));
  CHECK(contains(unknown_to_transformers(c), "attention layers alone"));
  c = qwen3, c.residual_scale = 0.5f;
  CHECK(contains(unknown_to_llama_cpp(c), "no multipliers"));
  CHECK(contains(unknown_to_transformers(c), "no multipliers"));
  c = qwen3, c.attention.rope.scaling = RopeScaling::llama3, c.attention.rope.factor = 8;
  CHECK(contains(unknown_to_llama_cpp(c), "without factors"));
  c = qwen2, c.attention.rope.scaling = RopeScaling::llama3, c.attention.rope.factor = 8;
  CHECK(gguf_architecture(c) == "llama");
  c = plain, c.attention.output_bias = true;
  CHECK(contains(unknown_to_transformers(c), "biases of all"));
  c = granite, c.attention.window = 16;
  CHECK(contains(unknown_to_transformers(c), "its granite has no sliding window"));
  c = bitnet, c.attention.qkv_bias = true;
  CHECK(contains(unknown_to_llama_cpp(c), "no biases"));
  c = hybrid, c.mamba2.dt_max = 0.1f;
  CHECK(contains(unknown_to_llama_cpp(c), "step size"));
  c = hybrid, c.mamba2.expand = 3;
  CHECK(contains(unknown_to_llama_cpp(c), "expand"));
  c = bitnet, c.tied = false;
  CHECK(contains(unknown_to_llama_cpp(c), "output matrix"));
  c = hybrid, c.sub_norm = true;
  CHECK(contains(unknown_to_llama_cpp(c), "attention layers alone"));
  c = plain, c.attention.position = Position::alibi;
  CHECK(contains(unknown_to_llama_cpp(c), "ALiBi"));
  c = plain, c.attention.output_gate = true;
  CHECK(contains(unknown_to_llama_cpp(c), "wants Gated DeltaNet"));
  c = qwen35, c.attention.output_gate = false;
  CHECK(contains(unknown_to_llama_cpp(c), "output gates"));
  CHECK(contains(unknown_to_transformers(c), "output gates"));
  c = qwen35, c.layers = pattern("GD A M");
  CHECK(contains(unknown_to_llama_cpp(c), "no layer like M"));
  CHECK_FALSE(unknown_to_transformers(c).empty());
  c = qwen35, c.layers = pattern("GD");
  CHECK(contains(unknown_to_llama_cpp(c), "an attention layer"));
  c = qwen35, c.gated_deltanet.negative_eigenvalues = true;
  CHECK(contains(unknown_to_llama_cpp(c), "negative eigenvalues"));
  c = qwen35, c.gated_deltanet.value_dim = 16;
  CHECK(contains(unknown_to_llama_cpp(c), "to be equal"));
  CHECK(unknown_to_transformers(c).empty());
  c = qwen35, c.attention.rope.scaling = RopeScaling::linear, c.attention.rope.factor = 2;
  CHECK(contains(unknown_to_llama_cpp(c), "no scaling"));
  c = plain, c.logit_cap = 30.f;
  CHECK(contains(unknown_to_llama_cpp(c), "cap of logits"));
  CHECK(contains(unknown_to_transformers(c), "its llama has no cap of logits"));
  c = plain, c.loop = {.first = 0, .last = 1};
  CHECK(contains(unknown_to_llama_cpp(c), "pass through their layers once"));
  CHECK(contains(unknown_to_transformers(c), "pass through their layers once"));
  c = plain, c.embedding_rank = 16;
  CHECK(contains(unknown_to_llama_cpp(c), "embeddings of the whole width"));
  CHECK(contains(unknown_to_transformers(c), "an embedding of the whole width"));
  CHECK(gguf_architecture(recurrent_gemma) == "chimera");
  CHECK(hugging_face_architecture(recurrent_gemma) == "RecurrentGemmaForCausalLM");
  c = recurrent_gemma, c.embedding_scale = 1.f;
  CHECK(contains(unknown_to_transformers(c), "root of the width in BF16, 8"));
  c = recurrent_gemma, c.rg_lru.bias = false;
  CHECK(contains(unknown_to_transformers(c), "rg_lru.bias must be true"));
  c = recurrent_gemma, c.ffn.activation = Activation::swiglu;
  CHECK(contains(unknown_to_transformers(c), "GeGLU with biases"));
  c = recurrent_gemma, c.attention.output_bias = false;
  CHECK(contains(unknown_to_transformers(c), "bias of attention's output"));
  c = recurrent_gemma, c.logit_cap = 0;
  CHECK(contains(unknown_to_transformers(c), "caps logits"));
  c = recurrent_gemma, c.layers = pattern("R M A");
  CHECK_FALSE(unknown_to_transformers(c).empty());
  c = xlstm, c.tied = true;
  CHECK(contains(unknown_to_transformers(c), "tied must be false"));
  c = xlstm, c.logit_cap = 0;
  CHECK(contains(unknown_to_transformers(c), "logit_cap must be above 0"));
  c = xlstm, c.mlstm.qk = 48;
  CHECK(contains(unknown_to_transformers(c), "multiples of 64"));
  c = xlstm, c.norm_eps = 1e-5f;
  CHECK(contains(unknown_to_transformers(c), "mlstm.norm_eps must be norm_eps"));
  c = xlstm, c.layers = pattern("XM A"), c.attention.heads = 4;
  CHECK(contains(unknown_to_transformers(c), "its xlstm has no layer like A"));
  c = xlstm, c.residual_scale = 0.5f;
  CHECK(contains(unknown_to_transformers(c), "its xlstm has no multipliers"));
}

TEST_CASE("a model card says what a model is and what a run did") {
  CardFacts facts{.name = "a|b\nc",
                  .file = "m.gguf",
                  .architecture = "granitehybrid",
                  .format = "Q8_0",
                  .tokenizer = "bytes",
                  .source = "",
                  .run = CardRun{.data = "tales.txt",
                                 .updates = 12,
                                 .validation_loss = 1.25,
                                 .validation_step = 12,
                                 .settings = "batch 8\nname with two words\n"},
                  .llama_cpp = true};
  const std::string card = model_card(models()[0], facts);
  for (const char* part : {"license: unknown", "# a\\|b c\n", "| stored as | Q8_0 |", "| layers | 3: M A M |",
                           "| data | tales.txt |", "| validation loss after update 12 | 1.2500 nats",
                           "llama-cli -m m.gguf", "| batch | 8 |", "| name | with two words |"})
    CHECK_MESSAGE(contains(card, part), part);
  facts.run.reset(), facts.llama_cpp = false, facts.transformers = true, facts.file = "";
  const std::string other = model_card(models()[0], facts);
  CHECK(contains(other, "from transformers import"));
  CHECK_FALSE(contains(other, "## Training"));
  CHECK_FALSE(contains(other, "llama-cli"));
}
