#include <chimera/exchange/config_from_file.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/hugging_face.hpp>

#include "models.hpp"
#include "temporary_folder.hpp"

#include <chimera/config/presets.hpp>
#include <chimera/io/gguf_writer.hpp>

#include <boost/hana/for_each.hpp>

using namespace chimera;

namespace {

/// A GGUF file with the metadata of a config and an embedding without meaning; `change` comes last.
template <class F>
std::string gguf_of(const TemporaryFolder& folder, const Config& c, F&& change) {
  const std::string path = folder / "config.gguf", architecture(gguf_architecture(c));
  GgufWriter file;
  file.set("general.architecture", architecture);
  gguf_model_parts::set_config(file, c, architecture);
  change(file);
  REQUIRE(file.add("token_embd.weight", {1, c.vocab}, Format::f32).ok());
  if (!c.tied) REQUIRE(file.add("output.weight", {1, 1}, Format::f32).ok());
  const Floats zero(static_cast<std::size_t>(c.vocab + !c.tied), 0.f), factors = attention_files_parts::rope_factors(c);
  std::vector<std::span<const float>> parts{std::span(zero).first(static_cast<std::size_t>(c.vocab)),
                                            std::span(zero).subspan(static_cast<std::size_t>(c.vocab)), factors};
  if (!factors.empty())
    REQUIRE(file.add("rope_freqs.weight", {static_cast<std::int64_t>(factors.size())}, Format::f32).ok());
  for (const auto& [there, name] :
       {std::pair(c.attention.qkv_bias, "attn_q.bias"), std::pair(c.attention.output_bias, "attn_output.bias")})
    if (there && architecture != "chimera") {
      REQUIRE(file.add(std::string("blk.0.") + name, {8}, Format::f32).ok());
      parts.push_back(std::span(zero).first(8));
    }
  REQUIRE(file.begin(path).ok());
  for (const auto& part : parts) REQUIRE(file.append(std::as_bytes(part)).ok());
  REQUIRE(file.commit().ok());
  return path;
}
std::string gguf_of(const TemporaryFolder& folder, const Config& c) {
  return gguf_of(folder, c, [](GgufWriter&) {});
}

Result<Config> config_of_json(const std::string& text) {
  const auto json = Json::parse(text);
  if (!json) return json.error();
  return config_from_hugging_face(*json);
}

std::string json_of(const Config& c) { return hugging_face_parts::config_json(c, Format::f32, {}); }

/// Rotations of every kind that files can name.
std::vector<Config> rotations() {
  std::vector<Config> configs;
  for (const RopeScaling scaling :
       {RopeScaling::linear, RopeScaling::ntk, RopeScaling::yarn, RopeScaling::llama3, RopeScaling::longrope}) {
    Config c = plain;
    Rope& r = c.attention.rope;
    r.scaling = scaling, r.factor = 4, r.original_context = 32;
    for (std::size_t i = 0; i < 8; ++i)
      r.short_factor[i] = 1.f + 0.1f * static_cast<float>(i), r.long_factor[i] = 1.f + static_cast<float>(i);
    configs.push_back(c);
  }
  configs.push_back(plain);
  configs.back().attention.rope.scaling = RopeScaling::yarn;
  configs.back().attention.rope.factor = 8, configs.back().attention.rope.attention_factor = 1.5f;
  return configs;
}

}  // namespace

TEST_CASE("a config goes through GGUF metadata and config.json") {
  const TemporaryFolder folder;
  std::vector<Config> configs = rotations();
  for (const Config& c :
       {hybrid, hybrid_in_halves, no_positions, plain, qwen2, qwen3, qwen35, qwen3_in_halves, mistral, granite, xlstm})
    configs.push_back(c);
  for (const Config& c : configs) {
    CAPTURE(config_lines(c));
    const auto from_gguf = config_from_file(gguf_of(folder, c));
    REQUIRE_MESSAGE(from_gguf.ok(), message(from_gguf));
    CHECK(same_meaning(*from_gguf, c));
    CHECK(from_gguf->context == c.context);
    const auto from_json = config_of_json(json_of(c));
    REQUIRE_MESSAGE(from_json.ok(), message(from_json));
    CHECK(same_meaning(*from_json, c));
    CHECK_FALSE(same_meaning(*from_json, griffin));
  }
  CHECK_FALSE(same_meaning(configs[0], configs[2]));
}

TEST_CASE("widths that a config.json has as shares of another come back whole") {
  for (const int width : {64, 72, 192, 384, 448, 640})
    for (const int qk : {64, 128, 320, 448, 576})
      for (const int hidden : {1, 63, 64, 93, 96, 1'001}) {
        Config c = xlstm;
        c.width = width, c.mlstm.qk = qk, c.mlstm.v = qk + 64, c.ffn.hidden = hidden;
        const auto back = config_of_json(json_of(c));
        REQUIRE_MESSAGE(back.ok(), message(back));
        CHECK(back->mlstm.qk == qk);
        CHECK(back->mlstm.v == qk + 64);
        CHECK(back->ffn.hidden == hidden);
      }
}

TEST_CASE("any config goes through text, and through a GGUF file of our own") {
  const TemporaryFolder folder;
  boost::hana::for_each(all_presets, [&](auto preset) {
    const Config& c = decltype(preset)::config;
    const auto back = config_from_lines(config_lines(c));
    REQUIRE(back.ok());
    CHECK(config_lines(*back) == config_lines(c));
    CHECK(config_hash(*back) == config_hash(c));
  });
  for (const Config& c : rotations()) CHECK(config_lines(*config_from_lines(config_lines(c))) == config_lines(c));
  const auto own = config_from_file(gguf_of(folder, griffin));
  REQUIRE_MESSAGE(own.ok(), message(own));
  CHECK(config_lines(*own) == config_lines(griffin));
  CHECK(own->loop == griffin.loop);
  CHECK(contains(message(config_from_lines("model.vocab 12")), "width must be at least 1"));
  CHECK(contains(message(config_from_lines(config_lines(griffin) + "model.loop.passes 0\n")),
                 "loop.passes must be between 1 and 32"));
  CHECK(contains(message(config_from_lines("model.vocab many")), "cannot be read"));
  CHECK(
      contains(message(config_from_lines(config_lines(plain) + "model.layers A Q1 Q2 Q3 Q4 Q5\n")), "names no layer"));
  CHECK(contains(message(config_from_lines(config_lines(plain) + "model.attention.position 9\n")), "does not exist"));
  for (const auto& [line, expected] :
       {std::pair("model.span_knot.span 0\n", "span_knot.span must be between 1 and 256"),
        std::pair("model.titans.segment 0\n", "titans.segment must be between 1 and 128"),
        std::pair("model.titans.memory_heads 3\n", "titans.memory_heads must divide width"),
        std::pair("model.titans.step_max nan\n", "titans.step_max must be above 0")})
    CHECK(contains(message(config_from_lines(config_lines(griffin) + line)), expected));
}

TEST_CASE("metadata that makes no model is an error that names the key") {
  const TemporaryFolder folder;
  const auto error = [&](const char* key, auto value, std::string_view expected) {
    const auto config = config_from_file(gguf_of(folder, hybrid, [&](GgufWriter& f) { f.set(key, value); }));
    CAPTURE(key);
    CHECK_MESSAGE(contains(message(config), expected), message(config));
  };
  error("general.architecture", "bert", "found bert");
  error("granitehybrid.block_count", std::uint32_t{100'000},
        "block_count: expected a number from 1 to 256, found 100000");
  error("granitehybrid.block_count", "three", "block_count is of type string");
  error("granitehybrid.block_count", std::uint32_t{4}, "expected one number for each of 4 layers, found 3");
  error("granitehybrid.embedding_length", std::uint32_t{0}, "embedding_length: expected");
  error("granitehybrid.attention.head_count", std::uint32_t{3}, "kv_heads must divide");
  error("granitehybrid.attention.head_count_kv", std::vector<std::int32_t>{0, -2, 0}, "head_count_kv: expected");
  error("granitehybrid.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN(),
        "rms_epsilon: expected");
  error("granitehybrid.feed_forward_length", std::vector<std::int32_t>{96, 96, 97}, "the same number in all layers");
  error("granitehybrid.expert_count", std::uint32_t{8}, "no experts");
  error("granitehybrid.ssm.inner_size", std::uint32_t{100}, "ssm.inner_size: expected a multiple");
  error("granitehybrid.ssm.time_step_rank", std::uint32_t{0}, "ssm.time_step_rank: expected");
  error("granitehybrid.ssm.state_size", std::uint32_t{1 << 20}, "ssm.state_size: expected");
  error("granitehybrid.rope.freq_base", -1.f, "rope.freq_base: expected");
  error("granitehybrid.rope.dimension_count", std::uint32_t{64}, "rope.dims must be");
  error("granitehybrid.rope.scaling.type", "magic", "found magic");
  error("granitehybrid.vocab_size", std::uint32_t{7}, "vocab_size");
  error("granitehybrid.attention.value_length", std::uint32_t{8}, "value_length");
}

TEST_CASE("swish is another name of silu") {
  std::string text = json_of(hybrid);
  const std::size_t at = text.find("\"silu\"");
  REQUIRE(at != std::string::npos);
  CHECK(config_of_json(text.replace(at, 6, "\"swish\"")).ok());
}

TEST_CASE("a config.json that makes no model is an error that names the member") {
  const auto error = [&](std::string_view before, std::string_view after, std::string_view expected) {
    std::string text = json_of(hybrid);
    const std::size_t at = text.find(before);
    REQUIRE(at != std::string::npos);
    text.replace(at, before.size(), after);
    CHECK_MESSAGE(contains(message(config_of_json(text)), expected), message(config_of_json(text)));
  };
  error("granitemoehybrid", "bert", "found bert");
  error("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 300", "from 1 to 256, found 300");
  error("\"num_hidden_layers\": 3", "\"num_hidden_layers\": \"3\"", "found a string");
  error("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4", "\"layer_types\": expected 4 words, found 3");
  error("\"mamba\"", "\"mlp\"", "found mlp");
  error("\"num_local_experts\": 0", "\"num_local_experts\": 8", "num_local_experts: expected 0, found 8");
  error("\"attention_bias\": false", "\"attention_bias\": 1", "attention_bias");
  error("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"",
        "expected silu, relu2 or gelu_pytorch_tanh, found gelu");
  error("\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"", "found spiral");
  error("\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"", "rope_parameters: \"factor\"");
  error("\"rope_type\": \"default\"", "\"rope_type\": \"llama3\", \"factor\": 8", "low_freq_factor");
  error("\"rope_type\": \"default\"", "\"full_attention\": {\"rope_type\": \"default\"}",
        "found one for full_attention");
  error("\"rope_parameters\": {", "\"rope_scaling\": \"linear\", \"rope_parameters\": {",
        "\"rope_scaling\": expected an object");
  error("\"rope_type\": \"default\"", "\"partial_rotary_factor\": 0.5", "partial_rotary_factor: expected 1, found 0.5");
  error("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": {\"__float__\": \"NaN\"}", "rms_norm_eps");
  error("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": {\"__float__\": \"Infinity\"}", "rms_norm_eps");
  error("\"hidden_act\"", "\"time_step_limit\": [0.2, 0.1], \"hidden_act\"", "time_step_limit");
  error("\"hidden_act\"", "\"time_step_limit\": 0.1, \"hidden_act\"", "time_step_limit");
  error("\"hidden_act\"", "\"attn_logit_softcapping\": 50.0, \"hidden_act\"", "attn_logit_softcapping: expected 0");
  error("\"hidden_act\"", "\"normalization_function\": \"layernorm\", \"hidden_act\"", "normalization_function");
  error("\"hidden_act\"", "\"quantization_config\": {}, \"hidden_act\"", "quantization_config");
  error("\"hidden_act\"", "\"quantization_config\": {\"quant_method\": \"gptq\"}, \"hidden_act\"",
        "quant_method: expected bitnet, found gptq");
  error("\"hidden_act\"", "\"quantization_config\": {\"quant_method\": \"bitnet\"}, \"hidden_act\"",
        "expected none for a model of type granitemoehybrid");
  error("\"mamba_n_heads\": 8", "\"mamba_n_heads\": 7", "mamba_n_heads");
  error("\"vocab_size\": 272", "\"vocab_size\": 1e300", "vocab_size");
  error("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", "rms_norm_eps");
  CHECK(contains(message(config_of_json("[]")), "model_type"));
}

TEST_CASE("what a file says of Gated DeltaNet is held against itself") {
  const TemporaryFolder folder;
  const auto error = [&](const char* key, auto value, std::string_view expected) {
    const auto config = config_from_file(gguf_of(folder, qwen35, [&](GgufWriter& f) { f.set(key, value); }));
    CAPTURE(key);
    CHECK_MESSAGE(contains(message(config), expected), message(config));
  };
  error("qwen35.ssm.inner_size", std::uint32_t{100}, "expected ssm.time_step_rank * ssm.state_size");
  error("qwen35.ssm.group_count", std::uint32_t{0}, "ssm.group_count: expected");
  error("qwen35.ssm.group_count", std::uint32_t{3}, "multiple of gated_deltanet.key_heads");
  error("qwen35.ssm.state_size", std::uint32_t{257}, "ssm.state_size: expected");
  error("qwen35.ssm.conv_kernel", std::uint32_t{9}, "ssm.conv_kernel: expected");
  error("qwen35.attention.recurrent_layers", std::vector<bool>{true, false}, "expected one number for each of 3");
  error("qwen35.full_attention_interval", std::uint32_t{0}, "full_attention_interval: expected");
  const auto rest = config_from_file(gguf_of(folder, qwen35, [](GgufWriter& f) {
    f.set("qwen35.attention.recurrent_layers", std::vector<bool>{true, false, false});
  }));
  CHECK(rest->layers == pattern("GD A A"));
}

TEST_CASE("of an account of the rotation in a GGUF file that counts which counts in llama.cpp") {
  const TemporaryFolder folder;
  const auto read = [&](const Config& c, auto change) {
    const auto config = config_from_file(gguf_of(folder, c, change));
    REQUIRE_MESSAGE(config.ok(), message(config));
    return *config;
  };
  Config stretched = plain;
  stretched.attention.rope.scaling = RopeScaling::linear, stretched.attention.rope.factor = 4;
  // Granite's switch, and no other architecture's.
  CHECK(same_meaning(read(plain, [](GgufWriter& f) { f.set("llama.rope.scaling.finetuned", false); }), plain));
  const Config off = read(hybrid, [](GgufWriter& f) { f.set("granitehybrid.rope.scaling.finetuned", false); });
  CHECK(off.attention.position == Position::none);
  // A factor of 0 is none, and where the type is none any factor is.
  for (const char* type : {"linear", "none"})
    CHECK(same_meaning(
        read(plain,
             [&](GgufWriter& f) { f.set("llama.rope.scaling.type", type), f.set("llama.rope.scaling.factor", 0.f); }),
        plain));
  CHECK(same_meaning(read(plain, [](GgufWriter& f) { f.set("llama.rope.scaling.factor", -3.f); }), plain));
  CHECK(same_meaning(read(stretched, [](GgufWriter&) {}), stretched));
  // The factor's old name.
  const auto old = [](GgufWriter& f) {
    f.set("llama.rope.scaling.type", "linear"), f.set("llama.rope.scale_linear", 4.f);
  };
  CHECK(same_meaning(read(plain, old), stretched));
  // What llama.cpp's own saver writes of a model that has none of it.
  CHECK(same_meaning(read(plain,
                          [](GgufWriter& f) {
                            for (const char* key :
                                 {"logit_scale", "attention.clamp_kqv", "attention.scale", "attention.max_alibi_bias",
                                  "rope.scaling.yarn_log_multiplier", "residual_scale", "embedding_scale"})
                              f.set(std::string("llama.") + key, 0.f);
                            f.set("llama.attn_logit_softcapping", 50.f), f.set("llama.attention.causal", true);
                            f.set("llama.rope.scaling.original_context_length", std::uint32_t{0});
                            f.set("llama.attention.sliding_window", std::uint32_t{0});
                          }),
                     plain));
}

TEST_CASE("what would change results and is known to no model here is refused by name") {
  const TemporaryFolder folder;
  const auto error = [&](const char* key, auto value) {
    const auto config =
        config_from_file(gguf_of(folder, plain, [&](GgufWriter& f) { f.set(std::string("llama.") + key, value); }));
    CAPTURE(key);
    CHECK_MESSAGE(contains(message(config), key), message(config));
  };
  for (const char* key :
       {"attention.clamp_kqv", "attention.max_alibi_bias", "attn_logit_softcapping", "attention.scale",
        "final_logit_softcapping", "logit_scale", "residual_scale", "embedding_scale", "rope.scaling.alpha",
        "rope.scaling.yarn_log_multiplier", "rope.scaling.yarn_ext_factor", "attention.temperature_scale"})
    error(key, 0.7f);
  error("attention.causal", false);
  error("swin_norm", true);
  error("attention.sliding_window", std::uint32_t{16});
  error("hidden_activation", "gelu");
  error("deepstack_mapping", std::vector<std::int32_t>{-1, 0});
  error("attn_logit_softcapping", "much");
}

TEST_CASE("of an account of the rotation in a config.json that counts which counts in transformers") {
  const auto read = [](const std::string& members) {
    std::string text = json_of(plain);
    const std::size_t at = text.find("\"rope_parameters\""), end = text.find('}', at) + 1;
    const auto config = config_of_json(text.replace(at, end - at, members));
    REQUIRE_MESSAGE(config.ok(), message(config));
    return *config;
  };
  const auto turned = [](RopeScaling scaling, float base, float factor, int original = 0) {
    Config c = plain;
    c.attention.rope = {.base = base, .scaling = scaling, .factor = factor, .original_context = original};
    return c;
  };
  const std::string both =
      R"("rope_parameters": {"rope_type": "default", "rope_theta": 5000.0},
         "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 777.0)";
  CHECK(same_meaning(read(both), turned(RopeScaling::linear, 777, 2)));
  CHECK(same_meaning(read(R"("rope_scaling": {}, "rope_parameters": {"rope_theta": 5000.0})"),
                     turned(RopeScaling::none, 5000, 1)));
  CHECK(same_meaning(read(R"("rope_scaling": {"rope_type": "linear", "factor": 2, "rope_theta": 99})"),
                     turned(RopeScaling::linear, 99, 2)));
  // Dynamic scaling begins behind the model's own context, whatever else is said; linear scaling has no temperature.
  CHECK(
      same_meaning(read(R"("rope_scaling": {"type": "dynamic", "factor": 2, "original_max_position_embeddings": 64})"),
                   turned(RopeScaling::none, 10'000, 1)));
  CHECK(same_meaning(read(R"("rope_scaling": {"type": "linear", "factor": 2, "attention_factor": 0.5})"),
                     turned(RopeScaling::linear, 10'000, 2)));
  // The trained context beside the account counts before the one in it.
  CHECK(same_meaning(read(R"("original_max_position_embeddings": 32, "rope_scaling":
                             {"type": "yarn", "factor": 4, "original_max_position_embeddings": 64})"),
                     turned(RopeScaling::yarn, 10'000, 4, 32)));
  // Without a factor it is what the context has grown by.
  CHECK(
      same_meaning(read(R"("rope_scaling": {"type": "yarn", "factor": null, "original_max_position_embeddings": 32})"),
                   turned(RopeScaling::yarn, 10'000, 4, 32)));
  CHECK(same_meaning(read(R"("rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 0, "beta_slow": null})"),
                     turned(RopeScaling::yarn, 10'000, 4)));
}

TEST_CASE("factors of the rotation go out in a tensor, and llama.cpp is told no other scaling") {
  const TemporaryFolder folder;
  const auto file = Gguf::open(gguf_of(folder, rotations()[4]));
  REQUIRE(file.ok());
  CHECK(*file->text("llama.rope.scaling.type") == "none");  // for longrope it wants two tensors
  CHECK(file->tensor("rope_freqs.weight"));
  Config c = plain;
  c.attention.rope.scaling = RopeScaling::linear, c.attention.rope.factor = 2, c.attention.rope.attention_factor = 0.5f;
  CHECK(contains(unknown_to_transformers(c), "YaRN and LongRoPE alone"));
}

TEST_CASE("dynamic scaling goes out as what it is at the whole context") {
  Config c = plain;
  c.attention.rope.scaling = RopeScaling::dynamic_ntk, c.attention.rope.factor = 2;
  CHECK(contains(json_of(c), "\"rope_type\": \"dynamic\""));
  CHECK_FALSE(contains(json_of(c), "original_max_position_embeddings"));
  CHECK(same_meaning(*config_of_json(json_of(c)), c));
  c.attention.rope.original_context = 32;
  CHECK(contains(json_of(c), "\"rope_type\": \"default\""));
  CHECK(same_meaning(*config_of_json(json_of(c)), c));
  const TemporaryFolder folder;
  CHECK(same_meaning(*config_from_file(gguf_of(folder, c)), c));
}

TEST_CASE("each family has what its class in transformers has where a config.json is silent") {
  const auto read = [](const std::string& type, const std::string& more) {
    return config_of_json(R"({"model_type": ")" + type + R"(", "vocab_size": 272, "hidden_size": 64,
                             "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96)" +
                          more + "}");
  };
  const std::string heads = R"(, "num_key_value_heads": 2)";
  CHECK(read("llama", "")->kv_heads() == 4);
  CHECK(read("llama", "")->context == 2'048);
  CHECK(contains(message(read("mistral", "")), "kv_heads must divide"));  // 8
  CHECK(contains(message(read("qwen2", "")), "kv_heads must divide"));    // 32
  CHECK(read("qwen2", R"(, "num_key_value_heads": null)")->kv_heads() == 4);
  CHECK(read("qwen2", heads)->context == 32'768);
  CHECK(read("qwen2", heads)->attention.qkv_bias);
  CHECK_FALSE(read("qwen2", heads)->attention.output_bias);
  CHECK(read("qwen3", heads)->attention.qk_norm);
  CHECK(read("qwen3", heads)->head_dim() == 128);
  const auto qwen3_5 = read("qwen3_5_text", R"(, "num_key_value_heads": 2, "head_dim": 16)");
  REQUIRE_MESSAGE(qwen3_5.ok(), message(qwen3_5));
  CHECK((qwen3_5->layers == pattern("GD GD") && qwen3_5->gated_deltanet.key_heads == 16));
  CHECK(qwen3_5->gated_deltanet.value_heads == 32);
  const auto mixed = read("qwen3_5_text", R"(, "num_key_value_heads": 2, "head_dim": 16,
                                             "layer_types": ["linear_attention", "full_attention"])");
  REQUIRE_MESSAGE(mixed.ok(), message(mixed));
  CHECK((mixed->layers == pattern("GD A") && mixed->rope_dims() == 4 && mixed->attention.output_gate));
  CHECK(contains(message(read("qwen3_5_text", R"(, "attn_output_gate": false)")), "attn_output_gate"));
  CHECK(contains(message(read("llama", R"(, "attn_output_gate": true)")), "attn_output_gate"));
  CHECK(read("llama", R"(, "attention_bias": true)")->attention.output_bias);
  CHECK(read("granite", "")->attention.scale == 1.f);
  CHECK(contains(message(read("mistral", heads + R"(, "attention_bias": true)")), "attention_bias"));
  CHECK(read("llama", R"(, "mlp_bias": true)")->ffn.bias);
  CHECK(contains(message(read("qwen2", R"(, "mlp_bias": true)")), "mlp_bias"));
  CHECK(read("qwen2", heads + R"(, "hidden_act": "gelu_pytorch_tanh")")->ffn.activation == Activation::geglu);
  const auto of_bitnet = read("bitnet", heads + R"(, "quantization_config": {"quant_method": "bitnet"})");
  REQUIRE_MESSAGE(of_bitnet.ok(), message(of_bitnet));
  CHECK((of_bitnet->sub_norm && of_bitnet->ternary.on && of_bitnet->ffn.activation == Activation::relu2_gate));
  CHECK(of_bitnet->attention.rope.base == 5e5f);
  CHECK_FALSE(read("bitnet", heads)->ternary.on);
  CHECK(contains(message(read("bitnet", "")), "kv_heads must divide"));  // 5
  CHECK(contains(message(read("llama", R"(, "residual_multiplier": 0.5)")), "residual_multiplier"));

  const auto gemma = read("recurrent_gemma", "");
  REQUIRE_MESSAGE(gemma.ok(), message(gemma));
  CHECK((gemma->layers == pattern("R R") && gemma->context == 8'192 && gemma->tied && gemma->ffn.hidden == 48));
  CHECK((gemma->rg_lru == RgLruConfig{.heads = 4, .bias = true} && gemma->embedding_scale == 8.f));
  const auto mixed_gemma = read("recurrent_gemma", R"(, "block_types": ["attention", "recurrent"])");
  REQUIRE_MESSAGE(mixed_gemma.ok(), message(mixed_gemma));
  CHECK((mixed_gemma->layers == pattern("A R") && mixed_gemma->window() == 2'048 && mixed_gemma->rope_dims() == 8));
  CHECK((mixed_gemma->attention.output_bias && !mixed_gemma->attention.qkv_bias && mixed_gemma->logit_cap == 30.f));
  CHECK(contains(message(read("recurrent_gemma", R"(, "block_types": ["attention"])")), "expected a recurrent block"));
  CHECK(contains(message(read("recurrent_gemma", R"(, "block_types": ["mamba"])")), "found mamba"));
  CHECK(contains(message(read("recurrent_gemma", R"(, "hidden_activation": "silu")")), "found silu"));

  CHECK(read("xlstm", "")->layers.count_of(Kind::mlstm) == 2);
  CHECK(read("xlstm", "")->mlstm == MlstmConfig{.heads = 8, .qk = 32, .v = 64});
  CHECK(read("xlstm", "")->ffn.hidden == 192);  // 2.667 * 64, up to the next multiple of 64
  CHECK(read("xlstm", "")->logit_cap == 30.f);
  CHECK(read("xlstm", "")->norm_eps == 1e-6f);
  CHECK_FALSE(read("xlstm", "")->tied);
  // transformers passes over the key; it was believed here, and the output matrix was the embedding.
  CHECK_FALSE(read("xlstm", R"(, "tie_word_embeddings": true)")->tied);
  CHECK(read("xlstm", R"(, "norm_eps": 1e-3)")->mlstm.norm_eps == 1e-3f);
  CHECK(contains(message(read("xlstm", R"(, "weight_mode": "fused")")), "found fused"));
  CHECK(contains(message(read("xlstm", R"(, "use_bias": true)")), "use_bias"));
  CHECK(contains(message(read("xlstm", R"(, "num_blocks": 3)")), "expected what num_hidden_layers is, 2"));
  CHECK(contains(message(read("xlstm", R"(, "num_heads": 3)")), "mlstm.heads must divide mlstm.qk"));
  CHECK(contains(message(read("xlstm", R"(, "eps": 1e-3)")), "\"eps\": expected 1e-6"));
  CHECK(contains(message(read("xlstm", R"(, "qk_dim_factor": 1e9)")), "qk_dim_factor"));

  // Windows: of Mistral, and of all layers of Qwen.
  const std::string window = heads + R"(, "sliding_window": 16)", used = window + R"(, "use_sliding_window": true)";
  CHECK(read("mistral", heads)->attention.window == 4'096);
  CHECK(read("mistral", heads + R"(, "sliding_window": null)")->attention.window == 0);
  CHECK(read("mistral", heads + R"(, "max_position_embeddings": 4096)")->attention.window == 0);
  CHECK(read("mistral", window)->attention.window == 16);
  CHECK(read("qwen2", window)->attention.window == 0);
  CHECK(read("qwen2", used)->attention.window == 0);  // from layer 28 on
  CHECK(read("qwen2", used + R"(, "max_window_layers": 0)")->attention.window == 16);
  CHECK(contains(message(read("qwen2", used + R"(, "max_window_layers": 1)")), "\"max_window_layers\": expected"));
  CHECK(read("qwen3", used + R"(, "layer_types": ["sliding_attention", "sliding_attention"])")->attention.window == 16);
  CHECK(read("qwen3", used + R"(, "layer_types": ["full_attention", "full_attention"])")->attention.window == 0);
  CHECK(contains(message(read("qwen3", used + R"(, "layer_types": ["full_attention", "sliding_attention"])")),
                 "\"layer_types\": expected a sliding window in all layers"));
  CHECK(contains(message(read("qwen3", used + R"(, "layer_types": ["full_attention"])")), "\"layer_types\""));
  CHECK(contains(message(read("llama", R"(, "sliding_window": 16)")), "\"sliding_window\": expected none"));
  CHECK(read("llama", R"(, "sliding_window": 4096)")->attention.window == 0);
}

TEST_CASE("limits of Mamba-2's step size are read, infinite ones as Python writes them, too") {
  const auto read = [](const std::string& limits) {
    std::string text = json_of(hybrid);
    text.insert(text.find("\"hidden_act\""), "\"time_step_limit\": " + limits + ", ");
    const TemporaryFolder folder;
    write_file(folder / "config.json", text);
    return config_from_file(folder / "config.json");
  };
  for (const char* none : {"null", "[0.0, Infinity]", "[0, {\"__float__\": \"Infinity\"}]", "[-1, 1e300]"}) {
    const auto c = read(none);
    REQUIRE_MESSAGE(c.ok(), message(c));
    CHECK(same_meaning(*c, hybrid));
  }
  Config limited = hybrid;
  limited.mamba2.dt_min = 0.05f, limited.mamba2.dt_max = 0.25f;
  CHECK(same_meaning(*read("[0.05, 0.25]"), limited));
  CHECK(same_meaning(*config_of_json(json_of(limited)), limited));
  limited.mamba2.dt_max = hybrid.mamba2.dt_max;
  CHECK(same_meaning(*config_of_json(json_of(limited)), limited));
  CHECK(contains(message(read("[0.05, NaN]")), "time_step_limit"));
  CHECK(contains(message(read("[0.05, Infinite]")), "cannot read"));
}

TEST_CASE("factors of the rotation must be numbers, one for each pair") {
  const TemporaryFolder folder;
  const Config llama3 = rotations()[3];
  std::string bytes = read_file(gguf_of(folder, llama3));
  const std::string path = folder / "broken.gguf";
  for (const float bad : {0.f, -1.f, std::numeric_limits<float>::quiet_NaN(), 1e30f}) {
    std::memcpy(bytes.data() + bytes.size() - 32, &bad, sizeof bad);
    write_file(path, bytes);
    CHECK(contains(message(config_from_file(path)), "rope_freqs.weight: expected factors"));
  }
}

TEST_CASE("no byte of a file's description, changed, leads to anything but an error or a config that can be") {
  const TemporaryFolder folder;
  const auto tried = [](const Result<Config>& c) { return !c || broken_rule(*c) == nullptr; };
  std::string bytes = read_file(gguf_of(folder, hybrid));
  const std::size_t header = bytes.size() - 4u * (272 + 1);
  for (std::size_t i = 0; i < header; ++i)
    for (const int flip : {0x01, 0x80, 0xFF}) {
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
      if (const auto file = Gguf::parse(std::as_bytes(std::span(bytes))))
        if (!tried(config_from_gguf(*file))) FAIL("byte " << i);
      bytes[i] = static_cast<char>(bytes[i] ^ flip);
    }
  std::string text = json_of(hybrid);
  for (std::size_t i = 0; i < text.size(); ++i)
    for (const char letter : {'0', '9', '-', '"', ' '}) {
      const char before = std::exchange(text[i], letter);
      if (!tried(config_of_json(text))) FAIL("byte " << i);
      text[i] = before;
    }
}
