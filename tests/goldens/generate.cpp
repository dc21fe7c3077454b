// Writes the golden cases whose shapes are part of a type: a Config for each, and the call that runs it.
// usage: generate DIR OUT     (OUT gets layer_cases.cpp, model_cases.cpp and table.cpp)
#include "safetensors.hpp"

#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

namespace {

using nlohmann::json;
namespace fs = std::filesystem;

/// A value as the library's field of type float.
std::string real(const json& value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.9ef", value.get<double>());
  return text;
}

std::string whole(const json& value) { return std::to_string(value.get<std::int32_t>()); }

std::string attention(const json& c) {
  const std::string position = c.at("alibi").get<bool>() ? "alibi" : c.at("rope").get<bool>() ? "rope" : "none";
  return ".vocab = 1, .width = " + whole(c.at("width")) + ", .context = " + whole(c.at("T")) +
         ", .layers = pattern(\"A\"),\n  .attention = {.heads = " + whole(c.at("heads")) +
         ", .kv_heads = " + whole(c.at("kv_heads")) + ", .head_dim = " + whole(c.at("head_dim")) +
         ", .window = " + whole(c.value("window", json(0))) + ", .scale = " + real(c.at("scale")) +
         ", .position = Position::" + position + ", .rope = {.base = " + real(c.at("theta")) +
         ", .layout = RopeLayout::halves}},\n  .ffn = {.hidden = 1}";
}

std::string swiglu(const json& c, const std::string& activation = "swiglu") {
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"M\"), .ffn = {.hidden = " + whole(c.at("hidden")) +
         ", .activation = Activation::" + activation + "}";
}

std::string moe(const json& c) {
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"M+E\"),\n  .moe = {.experts = " + whole(c.at("experts")) +
         ", .top_k = " + whole(c.at("top_k")) + ", .expert_hidden = " + whole(c.at("hidden")) + ", .shared = false}";
}

std::string mamba2(const json& c) {
  return ".vocab = 1, .width = " + whole(c.at("width")) + ", .layers = pattern(\"M\"),\n  .mamba2 = {.expand = " +
         std::to_string(c.at("inner").get<int>() / c.at("width").get<int>()) +
         ", .head_dim = " + whole(c.at("head_dim")) + ", .state = " + whole(c.at("state")) +
         ", .groups = " + whole(c.at("groups")) + ", .conv = " + whole(c.at("conv")) +
         ", .chunk = " + whole(c.at("chunk")) + "},\n  .ffn = {.hidden = 1}, .norm_eps = " + real(c.at("eps"));
}

std::string gated_deltanet(const json& c) {
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"GD\"),\n  .gated_deltanet = {.key_heads = " + whole(c.at("k_heads")) +
         ", .value_heads = " + whole(c.at("v_heads")) + ", .key_dim = " + whole(c.at("k_dim")) +
         ", .value_dim = " + whole(c.at("v_dim")) + ", .conv = " + whole(c.at("conv")) +
         "},\n  .ffn = {.hidden = 1}, .norm_eps = " + real(c.at("eps"));
}

std::string griffin(const json& c) {
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"R\"),\n  .rg_lru = {.heads = " + whole(c.at("heads")) +
         ", .conv = " + whole(c.at("conv")) + ", .bias = true},\n  .ffn = {.hidden = 1}";
}

std::string mlstm(const json& c) {
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"XM\"),\n  .mlstm = {.heads = " + whole(c.at("heads")) +
         ", .qk = " + whole(c.at("qk_dim")) + ", .v = " + whole(c.at("v_dim")) + ", .chunk = " + whole(c.at("chunk")) +
         ", .gate_cap = " + real(c.at("gate_soft_cap")) + ", .norm_eps = " + real(c.at("norm_eps")) +
         "},\n  .ffn = {.hidden = 1}";
}

std::string titans(const json& c) {
  const bool deep = c.at("memory") == "mlp";
  return ".vocab = 1, .width = " + whole(c.at("width")) +
         ", .layers = pattern(\"TM\"),\n  .titans = {.heads = " + whole(c.at("heads")) +
         ", .persistent = " + whole(c.at("persistent")) + ", .segment = " + whole(c.at("segment")) +
         ", .memory_depth = " + (deep ? "2" : "1") + ", .memory_hidden = " + (deep ? whole(c.at("hidden")) : "0") +
         ", .step_max = " + real(c.at("theta_max")) + "},\n  .ffn = {.hidden = 1}, .norm_eps = " + real(c.at("eps"));
}

/// A GraniteMoeHybrid model. What the golden file leaves out stands in the checkpoint's config.json; a case without a
/// checkpoint uses the values all of them share.
std::string granite(const json& c, const fs::path& checkpoint) {
  json more = json::object();
  if (std::ifstream file(checkpoint / "config.json"); file) more = json::parse(file);
  std::string words;
  for (const char layer : c.at("layers").get<std::string>()) {
    if (layer != 'm' && layer != 'a') throw std::runtime_error("a layer is m or a, found " + std::string(1, layer));
    words += words.empty() ? "" : " ";
    words += layer == 'm' ? "M" : "A";
  }
  const auto also = [&](const char* key, const json& otherwise) { return more.value(key, otherwise); };
  return ".vocab = " + whole(also("vocab_size", 288)) + ", .width = " + whole(c.at("width")) +
         ", .context = " + whole(also("max_position_embeddings", 512)) + ", .layers = pattern(\"" + words +
         "\"),\n  .attention = {.heads = " + whole(also("num_attention_heads", 4)) +
         ", .kv_heads = " + whole(also("num_key_value_heads", 2)) + ", .scale = " + real(c.at("attention_multiplier")) +
         ", .position = Position::" + (c.at("rope").get<bool>() ? "rope" : "none") +
         ", .rope = {.base = " + real(also("rope_parameters", json::object()).value("rope_theta", json(10000.0))) +
         ", .layout = RopeLayout::halves}},\n  .mamba2 = {.expand = " + whole(also("mamba_expand", 2)) +
         ", .head_dim = " + whole(c.at("head_dim")) + ", .state = " + whole(c.at("state")) +
         ", .groups = " + whole(c.at("groups")) + ", .conv = " + whole(also("mamba_d_conv", 4)) +
         ", .chunk = " + whole(c.at("chunk")) + "},\n  .ffn = {.hidden = " + whole(c.at("ffn")) +
         "}, .tied = " + (c.at("tied").get<bool>() ? "true" : "false") +
         ", .norm_eps = " + real(also("rms_norm_eps", 1e-5)) +
         ",\n  .embedding_scale = " + real(c.at("embedding_multiplier")) +
         ", .residual_scale = " + real(c.at("residual_multiplier")) +
         ", .logit_scale = " + real(c.at("logits_scaling"));
}

/// A Qwen3.5 model, as its checkpoint says.
std::string qwen3_5(const fs::path& checkpoint) {
  std::ifstream file(checkpoint / "config.json");
  const json c = json::parse(file);
  std::string words;
  for (const std::string layer : c.at("layer_types"))
    words += (words.empty() ? "" : " ") + std::string(layer == "linear_attention" ? "GD" : "A");
  const json& rope = c.at("rope_parameters");
  const int dims = static_cast<int>(rope.at("partial_rotary_factor").get<double>() * c.at("head_dim").get<double>());
  return ".vocab = " + whole(c.at("vocab_size")) + ", .width = " + whole(c.at("hidden_size")) +
         ", .context = " + whole(c.at("max_position_embeddings")) + ", .layers = pattern(\"" + words +
         "\"),\n  .attention = {.heads = " + whole(c.at("num_attention_heads")) +
         ", .kv_heads = " + whole(c.at("num_key_value_heads")) + ", .head_dim = " + whole(c.at("head_dim")) +
         ", .rope = {.base = " + real(rope.at("rope_theta")) + ", .dims = " + std::to_string(dims) +
         "}, .qk_norm = true, .output_gate = true},\n  .gated_deltanet = {.key_heads = " +
         whole(c.at("linear_num_key_heads")) + ", .value_heads = " + whole(c.at("linear_num_value_heads")) +
         ", .key_dim = " + whole(c.at("linear_key_head_dim")) +
         ", .value_dim = " + whole(c.at("linear_value_head_dim")) +
         ", .conv = " + whole(c.at("linear_conv_kernel_dim")) +
         "},\n  .ffn = {.hidden = " + whole(c.at("intermediate_size")) +
         "}, .tied = " + (c.at("tie_word_embeddings").get<bool>() ? "true" : "false") +
         ", .norm_eps = " + real(c.at("rms_norm_eps"));
}

/// A BitNet model of ternary matrices, as its checkpoint says.
std::string bitnet(const fs::path& checkpoint) {
  std::ifstream file(checkpoint / "config.json");
  const json c = json::parse(file);
  return ".vocab = " + whole(c.at("vocab_size")) + ", .width = " + whole(c.at("hidden_size")) +
         ", .context = " + whole(c.at("max_position_embeddings")) + ", .layers = pattern(\"A\", " +
         whole(c.at("num_hidden_layers")) + "),\n  .attention = {.heads = " + whole(c.at("num_attention_heads")) +
         ", .kv_heads = " + whole(c.at("num_key_value_heads")) +
         ", .rope = {.base = " + real(c.at("rope_parameters").at("rope_theta")) +
         "}},\n  .ffn = {.hidden = " + whole(c.at("intermediate_size")) +
         ", .activation = Activation::relu2_gate}, .ternary = {.on = true, .deep_zero = 0.f}, .tied = " +
         (c.at("tie_word_embeddings").get<bool>() ? "true" : "false") +
         ", .sub_norm = true, .norm_eps = " + real(c.at("rms_norm_eps"));
}

/// A RecurrentGemma, as its checkpoint says.
std::string recurrent_gemma(const fs::path& checkpoint) {
  std::ifstream file(checkpoint / "config.json");
  const json c = json::parse(file);
  const auto blocks = c.at("block_types").get<std::vector<std::string>>();
  std::string words;
  for (int i = 0; i < c.at("num_hidden_layers").get<int>(); ++i)
    words += (words.empty() ? "" : " ") +
             std::string(blocks[static_cast<std::size_t>(i) % blocks.size()] == "recurrent" ? "R" : "A");
  const int width = c.at("hidden_size").get<int>(), head_dim = width / c.at("num_attention_heads").get<int>();
  const json& rope = c.at("rope_parameters");
  const int dims = static_cast<int>(rope.at("partial_rotary_factor").get<double>() * head_dim);
  return ".vocab = " + whole(c.at("vocab_size")) + ", .width = " + std::to_string(width) +
         ", .context = 8192, .layers = pattern(\"" + words +
         "\"),\n  .attention = {.heads = " + whole(c.at("num_attention_heads")) +
         ", .kv_heads = " + whole(c.at("num_key_value_heads")) + ", .window = " + whole(c.at("attention_window_size")) +
         ", .rope = {.base = " + real(rope.at("rope_theta")) + ", .dims = " + std::to_string(dims) +
         "}, .output_bias = true},\n  .rg_lru = {.conv = " + whole(c.at("conv1d_width")) +
         ", .bias = true},\n  .ffn = {.hidden = " + std::to_string(c.at("intermediate_size").get<int>() / 2) +
         ", .activation = Activation::geglu, .bias = true}, .tied = " +
         (c.at("tie_word_embeddings").get<bool>() ? "true" : "false") + ", .norm_eps = " + real(c.at("rms_norm_eps")) +
         ", .embedding_scale = " + real(std::sqrt(width)) + ", .logit_cap = " + real(c.at("logits_soft_cap"));
}

/// transformers' xlstm, as its checkpoint says.
std::string xlstm(const fs::path& checkpoint) {
  std::ifstream file(checkpoint / "config.json");
  const json c = json::parse(file);
  const int width = c.at("hidden_size").get<int>(), unit = c.at("ffn_round_up_to_multiple_of").get<int>();
  const auto share = [&](const char* key) { return static_cast<int>(width * c.at(key).get<double>()); };
  return ".vocab = " + whole(c.at("vocab_size")) + ", .width = " + whole(c.at("hidden_size")) +
         ", .context = 512, .layers = pattern(\"XM\", " + whole(c.at("num_hidden_layers")) +
         "),\n  .mlstm = {.heads = " + whole(c.at("num_heads")) + ", .qk = " + std::to_string(share("qk_dim_factor")) +
         ", .v = " + std::to_string(share("v_dim_factor")) + ", .chunk = " + whole(c.at("chunk_size")) +
         ", .gate_cap = " + real(c.at("gate_soft_cap")) + ", .norm_eps = " + real(c.at("norm_eps")) +
         "},\n  .ffn = {.hidden = " + std::to_string((share("ffn_proj_factor") + unit - 1) / unit * unit) +
         "}, .tied = false, .norm_eps = " + real(c.at("norm_eps")) +
         ", .logit_cap = " + real(c.at("output_logit_soft_cap"));
}

/// One file of generated code.
class Source {
 public:
  Source(const fs::path& folder, const std::string& name, const std::string& header) : file_(folder / (name + ".cpp")) {
    file_ << "#include \"" << header << "\"\n\nusing namespace chimera;\n\n";
  }
  /// A config, and `case_NAME`, which passes it to the runner.
  void add(const std::string& name, const std::string& config, const std::string& runner) {
    file_ << "inline constexpr Config config_" << name << "{\n  " << config << "};\nvoid case_" << name
          << "(goldens::Golden& g, const Cpu& q) { goldens::" << runner << "<config_" << name << ">(g, q); }\n\n";
  }

 private:
  std::ofstream file_;
};

void generate(const fs::path& folder, const fs::path& out) {
  fs::create_directories(out);
  Source layers(out, "layer_cases", "layers.hpp"), models(out, "model_cases", "models.hpp");
  std::set<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.insert(entry.path());
  std::vector<std::string> names;
  for (const fs::path& path : files) {
    const auto golden = json::parse(goldens::Safetensors(path).metadata("golden"));
    const std::string name = golden.at("case");
    const json& c = golden.at("config");
    if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") != std::string::npos)
      throw std::runtime_error(path.string() + ": a case's name has lower-case letters, digits and _, found " + name);
    const std::size_t known = names.size();
    names.push_back(name);
    if (name.starts_with("attention_"))
      layers.add(name, attention(c), "run_attention");
    else if (name == "mlp_swiglu")
      layers.add(name, swiglu(c), "run_swiglu");
    else if (name == "mlp_relu2")
      layers.add(name, swiglu(c, "relu2"), "run_relu2");
    else if (name == "moe")
      layers.add(name, moe(c), "run_moe");
    else if (name.starts_with("mamba2_mixer_"))
      layers.add(name, mamba2(c), "run_mamba2");
    else if (name == "gdn_layer")
      layers.add(name, gated_deltanet(c), "run_gated_deltanet");
    else if (name == "mlstm_layer")
      layers.add(name, mlstm(c), "run_mlstm");
    else if (name.starts_with("titans_mac_"))
      layers.add(name, titans(c), "run_titans");
    else if (name == "griffin_block")
      layers.add(name, griffin(c), "run_griffin");
    else if (name.starts_with("model_granite_"))
      models.add(name, granite(c, folder / name), "run_model");
    else if (name == "model_qwen3_5")
      models.add(name, qwen3_5(folder / name), "run_model");
    else if (name == "model_bitnet" && fs::exists(folder / name / "config.json"))
      models.add(name, bitnet(folder / name), "run_model");
    else if (name == "model_recurrent_gemma" && fs::exists(folder / name / "config.json"))
      models.add(name, recurrent_gemma(folder / name), "run_model");
    else if (name == "model_xlstm" && fs::exists(folder / name / "config.json"))
      models.add(name, xlstm(folder / name), "run_model");
    else
      names.resize(known);
  }
  std::ofstream table(out / "table.cpp");
  table << "#include \"golden.hpp\"\n\nusing Golden = goldens::Golden;\nusing Cpu = chimera::Cpu;\n\n";
  for (const std::string& name : names) table << "void case_" << name << "(Golden&, const Cpu&);\n";
  table << "\nstatic constexpr std::array<goldens::Entry, " << names.size() << "> entries{{\n";
  for (const std::string& name : names) table << "  {\"" << name << "\", case_" << name << "},\n";
  table << "}};\nconst std::span<const goldens::Entry> goldens::generated_cases{entries};\n";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: generate DIR OUT\n");
    return 2;
  }
  try {
    generate(argv[1], argv[2]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "generate: %s\n", e.what());
    return 1;
  }
}
