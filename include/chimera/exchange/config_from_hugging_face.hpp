// A model's Config from the config.json of a Hugging Face folder.
#pragma once

#include <chimera/config/check.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/file_fields.hpp>
#include <chimera/exchange/layers.hpp>
#include <chimera/exchange/python_json.hpp>
#include <chimera/io/json.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// From a config.json of model_type llama, mistral, qwen2, qwen3, qwen3_5_text, granite, granitemoehybrid, bitnet,
/// xlstm or recurrent_gemma.
Result<Config> config_from_hugging_face(const Json& config);

/// Of a folder, or of its config.json.
Result<Config> config_from_hugging_face(const std::string& path);

/// Of a folder with ternary matrices: whether each is to be divided by its scale, as transformers' class BitLinear does,
/// or multiplied.
Result<bool> divides_by_ternary_scales(const std::string& path);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace config_from_hugging_face_parts {

/// layer_types: the words of each layer, the blocks of each word.
inline void read_blocks(FileFields<JsonFields>& p, Family family, Config& c) {
  if (family == Family::qwen3_5 && !p.has("layer_types")) {
    const int interval = p.integer("full_attention_interval", 1, Layers::max, 4);
    for (int i = 0; i < c.layers.count; ++i)
      if ((i + 1) % interval != 0) c.layers.kind[static_cast<std::size_t>(i)] = Kind::gated_deltanet;
    return;
  }
  const std::vector<std::string> kinds = p.texts("layer_types");
  p.demand(
      kinds.size() == static_cast<std::size_t>(c.layers.count),
      "\"layer_types\": expected " + std::to_string(c.layers.count) + " words, found " + std::to_string(kinds.size()));
  std::string expected;
  for (const LayerFiles& layer : layer_files)
    if (!layer.words.empty() && layer.known(family))
      expected.append(expected.empty() ? "" : " or ").append(layer.words[0]);
  for (std::size_t i = 0; p.status() && i < kinds.size(); ++i) {
    const auto has_word = [&](const LayerFiles& layer) {
      return layer.known(family) && std::find(layer.words.begin(), layer.words.end(), kinds[i]) != layer.words.end();
    };
    const auto layer = std::find_if(layer_files.begin(), layer_files.end(), has_word);
    p.demand(layer != layer_files.end(), "\"layer_types\": expected " + expected + ", found " + kinds[i]);
    if (layer != layer_files.end()) c.layers.kind[i] = *layer->kind;
  }
}

/// Keys of other models of these names that would change results: said, and never passed over.
inline void refuse_unknown(const JsonKeys& k) {
  const JsonFields& json = k.json;
  FileFields<JsonFields>& p = k.fields;

  for (const char* key : {"attn_logit_softcapping",
                          "final_logit_softcapping",
                          "logit_softcap",
                          "clip_qkv",
                          "clamp_kqv",
                          "alibi",
                          "use_alibi",
                          "parallel_attn",
                          "qk_layernorm",
                          "use_qk_norm",
                          "qk_norm",
                          "rope_interleaved",
                          "swin_norm",
                          "use_bidirectional_attention",
                          "use_mrope",
                          "attn_temperature_tuning",
                          "attention_chunk_size",
                          "num_experts",
                          "num_local_experts",
                          "n_routed_experts"})
    p.demand_neutral(key, {0});
  for (const char* key : {"is_causal", "rotary_pct", "logit_scale", "embedding_scale", "residual_scale"})
    p.demand_neutral(key, {1});
  if (!k.griffin()) p.demand_neutral("logits_soft_cap", {0});
  k.demand_flag("attn_output_gate", k.qwen3_5(), k.qwen3_5());
  if (!k.granite())
    for (const char* key : {"embedding_multiplier", "residual_multiplier", "logits_scaling", "attention_multiplier"})
      p.demand_neutral(key, {1});
  const std::string_view activation = k.griffin() ? "gelu_pytorch_tanh" : "silu";
  for (const auto& [key, expected] : {std::pair<const char*, std::string_view>("normalization_function", "rmsnorm"),
                                      {"hidden_activation", activation}})
    if (const std::string found = p.text(key, expected); found != expected)
      p.demand(false, "\"" + std::string(key) + "\": expected " + std::string(expected) + ", found " + found);
  for (const char* key : {"per_layer_config", "no_rope_layers"})
    p.demand(!json.has(key), "\"" + std::string(key) + "\": models with it are not known here");
}

/// BitNet's quantization makes the matrices of layers ternary; no other is known. The tensors show whether they were
/// rounded already.
inline void read_quantization(const JsonKeys& k, Config& c) {
  const auto given = k.json.object("quantization_config");
  k.fields.demand(given.ok(), given ? "" : given.error().message);
  k.fields.demand(!k.json.has("quantization_config") || (given && *given),
                  "\"quantization_config\": expected the members of BitNet's");
  if (!given || !*given) return;
  FileFields<JsonFields> q(**given);
  const std::string method = q.text("quant_method", "");
  q.demand(method == "bitnet", "quant_method: expected bitnet, found " + method);
  q.demand(!k.hybrid() && !k.xlstm() && !k.griffin(), "expected none for a model of type " + std::string(k.type));
  q.demand(!q.boolean("use_rms_norm", false), "use_rms_norm: expected false");
  const std::vector<std::string> left =
      q.has("modules_to_not_convert") ? q.texts("modules_to_not_convert") : std::vector<std::string>{};
  for (const std::string& name : left)
    q.demand(name == "lm_head", "modules_to_not_convert: expected lm_head alone, found " + name);
  k.fields.demand(q.status().ok(), q.status() ? "" : "\"quantization_config\": " + q.status().error().message);
  c.ternary.on = true;
}

/// f(json) of a folder's config.json, or of that file.
template <class F>
auto of_config_json(const std::string& path, F&& f) -> decltype(f(std::declval<const Json&>())) {
  const std::string name = path.ends_with(".json") ? path : path + "/config.json";
  const auto read = [&]() -> decltype(f(std::declval<const Json&>())) {
    const auto file = MappedFile::open(name);
    if (!file) return file.error();
    if (file->size() > (std::size_t{16} << 20)) return Error{"it is larger than 16 MiB"};
    const std::string text = config_json_text(file->text());
    const auto json = Json::parse(text);
    if (!json) return json.error();
    return f(*json);
  };
  auto result = read();
  if (!result) return Error{"cannot read the config of " + name + ": " + result.error().message};
  return result;
}

}  // namespace config_from_hugging_face_parts

CHIMERA_FUNCTION Result<Config> config_from_hugging_face(const Json& config) {
  const JsonFields json(config);
  const auto type = json.text("model_type");
  if (!type) return type.error();
  constexpr std::array<std::string_view, 10> known{"llama",   "mistral",          "qwen2",  "qwen3", "qwen3_5_text",
                                                   "granite", "granitemoehybrid", "bitnet", "xlstm", "recurrent_gemma"};
  if (std::find(known.begin(), known.end(), *type) == known.end())
    return Error{
        "\"model_type\": expected llama, mistral, qwen2, qwen3, qwen3_5_text, granite, granitemoehybrid, bitnet, "
        "xlstm or recurrent_gemma, found " +
        *type};

  FileFields<JsonFields> p(json);
  const JsonKeys keys{json, p, *type};
  Config c;
  c.vocab = p.integer("vocab_size", 1, FileLimits::vocab);
  c.width = p.integer("hidden_size", 1, FileLimits::width);
  c.context = p.integer("max_position_embeddings", 1, FileLimits::context,
                        *type == "mistral"          ? 131'072
                        : type->starts_with("qwen") ? 32'768
                        : keys.griffin()            ? 8'192
                                                    : 2'048);
  c.layers.count = p.integer("num_hidden_layers", 1, Layers::max);
  c.norm_eps = p.number(keys.xlstm() ? "norm_eps" : "rms_norm_eps", 1e-12, 1, 1e-6);
  if (keys.xlstm())
    for (int i = 0; i < c.layers.count; ++i) c.layers.kind[static_cast<std::size_t>(i)] = Kind::mlstm;
  c.sub_norm = *type == "bitnet";
  c.tied =
      p.boolean("tie_word_embeddings", keys.griffin()) && !keys.xlstm();  // whose class ties nothing, whatever it says
  config_from_hugging_face_parts::refuse_unknown(keys);
  config_from_hugging_face_parts::read_quantization(keys, c);
  if (keys.granite()) {
    c.embedding_scale = p.number("embedding_multiplier", -1e6, 1e6, 1);
    c.residual_scale = p.number("residual_multiplier", -1e6, 1e6, 1);
    c.logit_scale = p.number("logits_scaling", -1e6, 1e6, 1);
  }
  for (const auto& [blocks] : layer_columns<&LayerFiles::json_blocks>)
    if (blocks) blocks(keys, c);
  if (keys.hybrid())
    config_from_hugging_face_parts::read_blocks(p, keys.qwen3_5() ? Family::qwen3_5 : Family::granite, c);
  for (const auto& [kind, ffn, read] : layer_columns<&LayerFiles::kind, &LayerFiles::ffn, &LayerFiles::read_json>)
    if (read && is_used(kind, ffn, c)) read(keys, c);
  return checked_config(c, p);
}

CHIMERA_FUNCTION Result<Config> config_from_hugging_face(const std::string& path) {
  return config_from_hugging_face_parts::of_config_json(
      path, [](const Json& json) { return config_from_hugging_face(json); });
}

CHIMERA_FUNCTION Result<bool> divides_by_ternary_scales(const std::string& path) {
  return config_from_hugging_face_parts::of_config_json(path, [](const Json& json) -> Result<bool> {
    const auto given = JsonFields(json).object("quantization_config");
    if (!given) return given.error();
    if (!*given) return false;
    FileFields<JsonFields> q(**given);
    return q.text("linear_class", "bitlinear") == "bitlinear";
  });
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
