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
  const auto factors = attention_files_parts::rope_factors(c);
  if (!factors.empty())
    REQUIRE(file.add("rope_freqs.weight", {static_cast<std::int64_t>(factors.size())}, Format::f32).ok());
  REQUIRE(file.begin(path).ok());
  const Floats zero(static_cast<std::size_t>(c.vocab + !c.tied), 0.f);
  for (const auto& part : {std::span(zero).first(static_cast<std::size_t>(c.vocab)),
                           std::span(zero).subspan(static_cast<std::size_t>(c.vocab)), std::span(factors)})
    REQUIRE(file.append(std::as_bytes(part)).ok());
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
  for (const Config& c : {hybrid, hybrid_in_halves, no_positions, plain}) configs.push_back(c);
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
  CHECK(contains(message(config_from_lines("model.vocab 12")), "width must be at least 1"));
  CHECK(contains(message(config_from_lines("model.vocab many")), "cannot be read"));
  CHECK(
      contains(message(config_from_lines(config_lines(plain) + "model.layers A Q1 Q2 Q3 Q4 Q5\n")), "names no layer"));
  CHECK(contains(message(config_from_lines(config_lines(plain) + "model.attention.position 9\n")), "does not exist"));
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
  error("\"num_local_experts\": 0", "\"num_local_experts\": 8", "no experts");
  error("\"attention_bias\": false", "\"attention_bias\": true", "attention_bias");
  error("\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu\"", "found gelu");
  error("\"rope_type\": \"default\"", "\"rope_type\": \"spiral\"", "found spiral");
  error("\"rope_type\": \"default\"", "\"rope_type\": \"llama3\"", "low_freq_factor");
  error("\"mamba_n_heads\": 8", "\"mamba_n_heads\": 7", "mamba_n_heads");
  error("\"vocab_size\": 272", "\"vocab_size\": 1e300", "vocab_size");
  error("\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", "rms_norm_eps");
  CHECK(contains(message(config_of_json("[]")), "model_type"));
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
