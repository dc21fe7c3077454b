#include <chimera/exchange/adapter_files.hpp>
#include <chimera/exchange/adapter_names.hpp>
#include <chimera/exchange/model_tokenizer.hpp>
#include <chimera/exchange/tokenizer_gguf.hpp>
#include <chimera/kernels/f32/gemm.hpp>

#include "models.hpp"
#include "temporary_folder.hpp"

using namespace chimera;

namespace {

struct Adapters {
  std::unique_ptr<AdapterTable> table;
  Floats values;

  Adapters(const AnyModel& m, std::string_view words, const LoraSettings& settings) {
    const auto targets = named_targets(m, words);
    REQUIRE_MESSAGE(targets.ok(), targets.error().message);
    table = *AdapterTable::create(m.tensors, std::vector<BaseTensor>(m.slot_count), *targets, settings);
    values = noise(static_cast<std::int64_t>(table->arena_floats), 5);
  }
};

Floats merged(const Cpu& q, const AnyModel& m, const AdapterTable& table, const float* values) {
  Floats w = weights_of(m);
  merge_adapters(q, m.tensors, table.weights, values, w.data());
  return w;
}

Floats floats_of(std::span<const std::byte> data) {
  Floats x(data.size() / sizeof(float));
  std::memcpy(x.data(), data.data(), data.size());
  return x;
}

/// W + scale B A of one file is W of the other; `floats(file, name)`.
template <class File, class Floats>
void check_sum(const File& before, const File& after, const File& adapter, const std::string& weight,
               const std::string& module, std::string_view a, std::string_view b, float alpha, Floats floats) {
  auto w = floats(before, weight);
  const auto down = floats(adapter, module + std::string(a)), up = floats(adapter, module + std::string(b));
  const auto want = floats(after, weight);
  // rank cols and rows rank numbers make rows cols
  const double r2 = static_cast<double>(down.size()) * static_cast<double>(up.size()) / static_cast<double>(w.size());
  const auto rank = static_cast<std::int64_t>(std::sqrt(r2) + 0.5);
  const std::int64_t rows = std::ssize(up) / rank, cols = std::ssize(down) / rank;
  gemm_reference(rows, cols, rank, alpha / static_cast<float>(rank), row_major(up.data(), rank),
                 row_major(down.data(), cols), 1.f, w.data(), cols);
  CHECK(difference(w, want) < 1e-5);
}

std::string message(const Result<LoadedAdapter>& r) {
  return r ? std::string() : r.error().message.substr(r.error().message.find(": ") + 2);
}

}  // namespace

TEST_CASE("adapters go to PEFT's folder and to a GGUF adapter, mean there what they mean here, and come back") {
  const Cpu q = cpu(detect_isa(), 2);
  const AnyModel models[] = {table_of<plain>("plain"),   table_of<hybrid_in_halves>("hybrid"),
                             table_of<qwen35>("qwen35"), table_of<recurrent_gemma>("gemma"),
                             table_of<xlstm>("xlstm"),   table_of<griffin>("griffin")};
  const auto words = [](GgufWriter& f) { set_tokenizer(f, *byte_tokenizer(272), 272); };
  for (const AnyModel& m : models) {
    CAPTURE(m.name);
    const TemporaryFolder folder;
    const Adapters all(m, "all", {.rank = 3, .alpha = 5, .rank_stabilised = true});
    const Floats w = weights_of(m), want = merged(q, m, *all.table, all.values.data());
    const auto come_back = [&](const std::string& path) {
      const auto loaded = load_adapter(q, path, m);
      REQUIRE_MESSAGE(loaded.ok(), loaded.error().message);
      CHECK(loaded->table->parameters == all.table->parameters);
      CHECK(difference(merged(q, m, *loaded->table, loaded->values.data()), want) < 1e-5);
    };
    REQUIRE(save_gguf_adapter(folder / "a.gguf", m, all.table->weights, all.values.data()));
    come_back(folder / "a.gguf");
    REQUIRE(save_gguf(q, folder / "before.gguf", m, w.data(), *file_type_named("f32"), "x", words));
    REQUIRE(save_gguf(q, folder / "after.gguf", m, want.data(), *file_type_named("f32"), "x", words));
    const auto adapter = Gguf::open(folder / "a.gguf"), before = Gguf::open(folder / "before.gguf"),
               after = Gguf::open(folder / "after.gguf");
    int pairs = 0;
    for (const GgufTensor& t : adapter->tensors()) {
      if (!t.name.ends_with(".lora_a")) continue;
      const std::string name = t.name.substr(0, t.name.size() - 7);
      check_sum(*before, *after, *adapter, name, name, ".lora_a", ".lora_b",
                static_cast<float>(*adapter->number("adapter.lora.alpha")),
                [](const Gguf& f, const std::string& n) { return floats_of(f.tensor(n)->data); });
      ++pairs;
    }
    CHECK(pairs > 3);

    const Result<void> saved = save_peft(folder / "peft", m, all.table->weights, all.values.data(), "base");
    CHECK(saved.ok() == (m.name != "griffin"));
    if (!saved) continue;
    come_back(folder / "peft");
    REQUIRE(save_hugging_face(q, folder / "before", m, w.data(), Format::f32, {}));
    REQUIRE(save_hugging_face(q, folder / "after", m, want.data(), Format::f32, {}));
    const auto tensors = Safetensors::open(folder / "peft/adapter_model.safetensors"),
               plain_file = Safetensors::open(folder / "before"), changed = Safetensors::open(folder / "after");
    const std::string text = read_file(folder / "peft/adapter_config.json");
    const auto config = Json::parse(text);
    REQUIRE(config);
    for (const SafetensorsTensor& t : tensors->tensors()) {
      constexpr std::string_view a = ".lora_A.weight", prefix = "base_model.model.";
      if (!t.name.ends_with(a)) continue;
      const std::string module = t.name.substr(0, t.name.size() - a.size()), theirs = module.substr(prefix.size());
      const Json alphas = *config->find("alpha_pattern");
      const double alpha = alphas.find(theirs) ? *alphas.number_at(theirs) : *config->number_at("lora_alpha");
      const auto floats = [&](const Safetensors& f, const std::string& n) { return floats_of(f.tensor(n)->data); };
      Safetensors both = *Safetensors::open(folder / "peft/adapter_model.safetensors");
      check_sum(*plain_file, *changed, both, theirs + ".weight", module, a, ".lora_B.weight", static_cast<float>(alpha),
                floats);
    }
  }
}

TEST_CASE("words name matrices as PEFT, llama.cpp and our tables do") {
  const AnyModel m = table_of<hybrid>("hybrid");
  const auto count = [&](std::string_view words) {
    const auto targets = named_targets(m, words);
    std::size_t parts = 0;
    for (const AdapterTarget& t : targets ? *targets : std::vector<AdapterTarget>{})
      parts += static_cast<std::size_t>(__builtin_popcount(t.parts));
    return parts;
  };
  CHECK(count("all") == 2 * 2 + 4 + 3 * 3);  // in and out; q, k, v, o; gate, up, down
  CHECK(count("q_proj,v_proj") == 2);
  CHECK(count("q,attn_v") == 2);
  CHECK(count("attention") == 4);
  CHECK(count("mixer") == 2 * 2 + 4);
  CHECK(count("ffn") == 9);
  CHECK(count("ssm_in,in_proj") == 2);
  CHECK(count("input_linear") == 6);  // one tensor there, two parts here
  const auto none = named_targets(m, "q,gate_proj_x");
  REQUIRE(!none);
  CHECK(none.error().message ==
        "no matrix of hybrid is called gate_proj_x: expected all, attention, mixer, ffn, or some of attn_k, "
        "attn_output, attn_q, attn_v, ffn_down, ffn_gate, ffn_up, ssm_in, ssm_out");
}

TEST_CASE("an adapter of another model, rank or kind is refused by a sentence") {
  const Cpu q = cpu(detect_isa(), 1);
  const TemporaryFolder folder;
  const AnyModel m = table_of<plain>("plain"), other = table_of<qwen3>("qwen3"), deeper = table_of<hybrid>("hybrid");
  const Adapters some(m, "q,down", {.rank = 2, .alpha = 4});
  REQUIRE(save_peft(folder / "peft", m, some.table->weights, some.values.data(), "base"));
  REQUIRE(save_gguf_adapter(folder / "a.gguf", m, some.table->weights, some.values.data()));
  CHECK(load_adapter(q, folder / "peft", m));
  CHECK(message(load_adapter(q, folder / "peft", other)) ==
        "tensor base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight: expected the shape [96 x 2], found "
        "[64 x 2]");
  CHECK(message(load_adapter(q, folder / "peft", deeper)) ==
        "it has a tensor that the model hybrid has no place for: "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  CHECK(message(load_adapter(q, folder / "a.gguf", other)) == "general.architecture: expected qwen3, found llama");
  CHECK(message(load_adapter(q, folder.path, m)) ==
        "expected an adapter, a folder with adapter_config.json or a GGUF file");
  const std::string config = read_file(folder / "peft/adapter_config.json");
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = config;
    REQUIRE(text.find(from) != std::string::npos);
    write_file(folder / "peft/adapter_config.json", text.replace(text.find(from), from.size(), to));
    return message(load_adapter(q, folder / "peft", m));
  };
  CHECK(changed("\"r\": 2", "\"r\": 3") ==
        "the adapter of model.layers.0.mlp.down_proj must have the rank 3 that adapter_config.json says, found 2");
  CHECK(changed("LORA", "IA3") == "\"peft_type\": expected LORA, found IA3");
  CHECK(changed("\"use_dora\": false", "\"use_dora\": true") ==
        "\"use_dora\": expected false: magnitudes of columns are not read");
  CHECK(changed("\"lora_alpha\": 4", "\"lora_alpha\": 0").find("must be a number other than 0") != std::string::npos);
  CHECK(changed("\"bias\": \"none\"", "\"bias\": \"all\"") == "\"bias\": expected \"none\", found \"all\"");
  write_file(folder / "peft/adapter_config.json", config);
  const std::string tensors = read_file(folder / "peft/adapter_model.safetensors");
  std::string renamed = tensors;
  for (std::size_t at = 0; (at = renamed.find("0.mlp.down_proj.lora_B", at)) != std::string::npos; ++at)
    renamed[at] = '7';
  write_file(folder / "peft/adapter_model.safetensors", renamed);
  CHECK(message(load_adapter(q, folder / "peft", m)).starts_with("it has a tensor that the model plain has no place"));
  write_file(folder / "peft/adapter_model.safetensors", tensors.substr(0, tensors.size() / 2));
  CHECK(!message(load_adapter(q, folder / "peft", m)).empty());
}
