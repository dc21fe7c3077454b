// Adapters in the files of others: PEFT's folder (adapter_config.json, adapter_model.safetensors) and llama.cpp's GGUF
// adapter. They have a pair A, B for each tensor of the model's files, where we have one for each part of a matrix: a
// tensor of several parts has the rank of all of them, and B is zero where a part's rows meet another's columns.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/fields.hpp>
#include <chimera/core/files.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/gguf_model.hpp>
#include <chimera/exchange/hugging_face.hpp>
#include <chimera/exchange/json_members.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/safetensors.hpp>
#include <chimera/model/adapted_model.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Adapters of a model: their tables, over a base without values, and their arena.
struct LoadedAdapter {
  std::unique_ptr<AdapterTable> table;
  Buffer values;
};

/// Reads PEFT's folder or llama.cpp's GGUF adapter; of a folder that has both, such as a run's, adapter.gguf. Errors
/// name what was expected of this model and what was found.
Result<LoadedAdapter> load_adapter(const Cpu& q, const std::string& path, const AnyModel& model);

/// Writes adapter_config.json and adapter_model.safetensors. `model`: the base; `adapters`: over it, and their arena;
/// `base_name`: where PEFT finds the base. An error if transformers has no class for the model.
Result<void> save_peft(const std::string& folder, const AnyModel& model, const BaseWeights& adapters,
                       const float* values, const std::string& base_name);

/// Writes a GGUF adapter, for models that llama.cpp does not know, too.
Result<void> save_gguf_adapter(const std::string& path, const AnyModel& model, const BaseWeights& adapters,
                               const float* values);

/// Writes into a folder all that can be of these: adapter.gguf, and PEFT's files.
Result<void> save_adapter(const std::string& folder, const AnyModel& model, const BaseWeights& adapters,
                          const float* values, const std::string& base_name);

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace adapter_file_parts {

/// What is added to one tensor of a family's files: scale B A.
struct Pair {
  FileWeight where;
  std::int64_t rank = 0;
  float scale = 1.f;
  std::vector<float> a{}, b{};  // [rank, cols], [rows, rank] in the file's order
};

/// Calls f(an adapter's part, its A's first row, its B's row for the matrix's row 0).
template <class F>
void each_part(const Adapter& a, F&& f) {
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const Adapter::Part& part = a.parts[static_cast<std::size_t>(i)];
    f(part, i * a.rank, row - part.first);
    row += part.rows;
  }
}

inline bool meet(const Adapter::Part& part, const FileWeight& w) {
  return part.first < w.first + w.rows && w.first < part.first + part.rows;
}

/// Calls f(row of the file, row of the matrix) for the rows of a tensor that lie in a part.
template <class F>
void each_common_row(const Adapter::Part& part, const FileWeight& w, F&& f) {
  for (std::int64_t r = 0; r < w.rows; ++r) {
    const std::int64_t ours = w.first + w.our_row(r);
    if (ours >= part.first && ours < part.first + part.rows) f(r, ours);
  }
}

/// From our adapters to the file's.
inline Result<std::vector<Pair>> pairs_of(const AnyModel& model, Family family, const BaseWeights& adapters,
                                          const float* values) {
  auto table = file_weights(model, family);
  if (!table) return table.error();
  std::vector<Pair> pairs;
  for (FileWeight& w : *table) {
    const NamedTensor& t = model.tensors[w.tensor];
    const Adapter* adapter = adapters.tensors[t.slot].adapter;
    if (!adapter || t.role != Role::matrix) continue;
    Pair pair{.where = w, .scale = adapter->scale};
    each_part(*adapter, [&](const Adapter::Part& part, std::int64_t, std::int64_t) {
      pair.rank += meet(part, w) ? adapter->rank : 0;
    });
    if (pair.rank == 0) continue;
    pair.a.resize(static_cast<std::size_t>(pair.rank * w.cols));
    pair.b.resize(static_cast<std::size_t>(w.rows * pair.rank));
    std::int64_t column = 0;
    each_part(*adapter, [&](const Adapter::Part& part, std::int64_t first, std::int64_t row) {
      if (!meet(part, w)) return;
      const float* a = values + adapter->a + first * w.cols;
      const float* b = values + adapter->b + row * adapter->rank;
      for (std::int64_t i = 0; i < adapter->rank; ++i)
        for (std::int64_t c = 0; c < w.cols; ++c)
          pair.a[static_cast<std::size_t>((column + i) * w.cols + c)] = a[i * w.cols + w.our_col(c)];
      each_common_row(part, w, [&](std::int64_t theirs, std::int64_t ours) {
        std::copy_n(b + ours * adapter->rank, adapter->rank, pair.b.data() + theirs * pair.rank + column);
      });
      column += adapter->rank;
    });
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

/// The columns of a pair's B that have numbers in a part's rows; all of them where B is zero everywhere.
inline std::vector<std::int64_t> columns_of(const Pair& pair, const Adapter::Part& part) {
  const bool zero = std::all_of(pair.b.begin(), pair.b.end(), [](float x) { return x == 0.f; });
  std::vector<bool> used(static_cast<std::size_t>(pair.rank), false);
  each_common_row(part, pair.where, [&](std::int64_t theirs, std::int64_t) {
    for (std::int64_t i = 0; i < pair.rank; ++i)
      if (zero || pair.b[static_cast<std::size_t>(theirs * pair.rank + i)] != 0.f)
        used[static_cast<std::size_t>(i)] = true;
  });
  std::vector<std::int64_t> kept;
  for (std::int64_t i = 0; i < pair.rank; ++i)
    if (used[static_cast<std::size_t>(i)]) kept.push_back(i);
  return kept;
}

/// From the file's adapters to ours: of one rank, the largest that a part has, and of one scale.
inline Result<LoadedAdapter> adapter_of(const AnyModel& model, std::vector<Pair> pairs) {
  if (pairs.empty()) return Error{"it has no adapter of any matrix"};
  std::map<std::size_t, std::vector<const Pair*>> of_tensor;
  for (const Pair& p : pairs) of_tensor[p.where.tensor].push_back(&p);
  std::vector<AdapterTarget> targets;
  LoraSettings settings{.rank = 1};
  const auto each_our_part = [](const NamedTensor& t, auto f) {
    if (std::count(t.parts.begin(), t.parts.end(), 0) == std::ssize(t.parts)) return f(0U, Adapter::Part{0, t.rows});
    std::int64_t first = 0;
    for (unsigned p = 0; p < t.parts.size(); first += t.parts[p++])
      if (t.parts[p] > 0) f(p, Adapter::Part{first, t.parts[p]});
  };
  for (const auto& [tensor, some] : of_tensor) {
    AdapterTarget target{tensor, 0};
    each_our_part(model.tensors[tensor], [&](unsigned p, const Adapter::Part& part) {
      std::int64_t rank = 0;
      for (const Pair* pair : some) rank += std::ssize(columns_of(*pair, part));
      if (rank > 0) target.parts |= 1U << p;
      settings.rank = std::max(settings.rank, rank);
    });
    targets.push_back(target);
  }
  const float scale = pairs[0].scale;
  settings.alpha = static_cast<double>(scale) * static_cast<double>(settings.rank);
  auto table = AdapterTable::create(model.tensors, std::vector<BaseTensor>(model.slot_count), targets, settings);
  if (!table) return table.error();
  auto values = Buffer::create((*table)->arena_floats);
  if (!values) return values.error();
  for (const auto& [tensor, some] : of_tensor) {
    const NamedTensor& t = model.tensors[tensor];
    Adapter& adapter = const_cast<Adapter&>(*(*table)->base[t.slot].adapter);
    adapter.scale = scale;  // to the bit, which alpha / rank may not be
    each_part(adapter, [&](const Adapter::Part& part, std::int64_t first, std::int64_t row) {
      float* a = values->data() + adapter.a + first * t.cols;
      float* b = values->data() + adapter.b + row * adapter.rank;
      std::int64_t column = 0;
      for (const Pair* pair : some) {
        const FileWeight& w = pair->where;
        const float factor = pair->scale / scale;
        for (const std::int64_t theirs : columns_of(*pair, part)) {
          for (std::int64_t c = 0; c < t.cols; ++c)
            a[column * t.cols + w.our_col(c)] = pair->a[static_cast<std::size_t>(theirs * t.cols + c)];
          each_common_row(part, w, [&](std::int64_t from, std::int64_t ours) {
            b[ours * adapter.rank + column] = factor * pair->b[static_cast<std::size_t>(from * pair->rank + theirs)];
          });
          ++column;
        }
      }
    });
  }
  return LoadedAdapter{std::move(*table), std::move(*values)};
}

/// The numbers of a pair's tensors, whose shapes must be [rank, cols] and [rows, rank].
inline Result<void> read_pair(const Cpu& q, Pair& pair, const StoredTensor& a, const StoredTensor& b) {
  const FileWeight& w = pair.where;
  constexpr std::int64_t most_rank = 1024;
  pair.rank = a.shape.size() == 2 ? a.shape[0] : 0;
  if (pair.rank < 1 || pair.rank > most_rank)
    return Error{"tensor " + std::string(a.name) + ": expected a rank of 1 to " + std::to_string(most_rank) +
                 ", found " + std::to_string(pair.rank)};
  const auto read = [&](const StoredTensor& t, std::int64_t rows, std::int64_t cols,
                        std::vector<float>& to) -> Result<void> {
    if (Result<void> s = check_shape({.name = {}, .shape = {rows, cols}}, t); !s) return s;
    if (Result<void> s = check_numbers(t, t.data); !s) return s;
    to.resize(static_cast<std::size_t>(rows * cols));
    if (Result<void> s = decode(q, t.format, t.data.data(), rows * cols, to.data()); !s)
      return Error{"tensor " + std::string(t.name) + ": " + s.error().message};
    return {};
  };
  if (Result<void> s = read(a, pair.rank, w.cols, pair.a); !s) return s;
  return read(b, w.rows, pair.rank, pair.b);
}

/// Reads all pairs of a file: for each of its tensors, whose names end as these do, the one that it is added to.
/// `stored(tensor)` makes a Result<StoredTensor> of it, `scale(pair)` a Result<float>, and `module(w)` is what names in
/// the file begin with.
template <class Tensors, class Stored, class Scale, class Module>
Result<std::vector<Pair>> read_pairs(const Cpu& q, const AnyModel& model, Family family, const Tensors& tensors,
                                     std::string_view end_a, std::string_view end_b, const Stored& stored,
                                     const Scale& scale, const Module& module) {
  auto table = file_weights(model, family);
  if (!table) return table.error();
  std::map<std::string, const FileWeight*, std::less<>> modules;
  for (const FileWeight& w : *table)
    if (w.role == Role::matrix) modules.emplace(module(w), &w);
  std::map<std::string, std::array<Result<StoredTensor>, 2>, std::less<>> found;
  for (const auto& t : tensors) {
    const std::string_view name = t.name;
    const bool a = name.ends_with(end_a), b = name.ends_with(end_b);
    const std::string begin(name.substr(0, name.size() - (a ? end_a.size() : b ? end_b.size() : 0)));
    if ((!a && !b) || !modules.contains(begin))
      return Error{"it has a tensor that the model " + std::string(model.name) + " has no place for: " + t.name};
    auto& both = found.try_emplace(begin, std::array<Result<StoredTensor>, 2>{Error{""}, Error{""}}).first->second;
    both[b] = stored(t);
    if (!both[b]) return both[b].error();
  }
  std::vector<Pair> pairs;
  for (const auto& [name, both] : found) {
    for (const bool b : {false, true})
      if (!both[b]) return Error{"it has no tensor " + name + std::string(b ? end_b : end_a)};
    Pair pair{.where = *modules.find(name)->second};
    if (Result<void> s = read_pair(q, pair, *both[0], *both[1]); !s) return s.error();
    const Result<float> scaled = scale(pair);
    if (!scaled) return scaled.error();
    if (!(std::fabs(*scaled) <= 1e6f) || *scaled == 0)
      return Error{"the scale of " + name + " must be a number other than 0, found " + to_text(*scaled)};
    pair.scale = *scaled;
    pairs.push_back(std::move(pair));
  }
  return pairs;
}

/// The module of PEFT that holds a tensor of transformers.
inline std::string module_of(const FileWeight& w) { return w.name.substr(0, w.name.rfind('.')); }

constexpr std::string_view peft_prefix = "base_model.model.", peft_a = ".lora_A.weight", peft_b = ".lora_B.weight",
                           gguf_a = ".lora_a", gguf_b = ".lora_b";

/// rank_pattern and alpha_pattern: {"a module's name, or its end": number}.
inline std::map<std::string, double> pattern_of(const Json& config, std::string_view key) {
  std::map<std::string, double> all;
  if (const auto object = config.find(key))
    for (const Json::Member& m : object->members())
      if (const auto number = m.value.number()) all.emplace(m.key.string().value_or(""), *number);
  return all;
}
inline double number_of(const std::map<std::string, double>& pattern, const std::string& module, double otherwise) {
  for (const auto& [end, number] : pattern)
    if (module == end || module.ends_with("." + end)) return number;
  return otherwise;
}

inline Result<LoadedAdapter> load_peft(const Cpu& q, const std::string& folder, const AnyModel& model) {
  const auto text = MappedFile::open(folder + "/adapter_config.json");
  if (!text) return text.error();
  const auto config = Json::parse(text->text());
  if (!config) return config.error();
  const auto type = config->string_at("peft_type");
  if (!type) return type.error();
  if (*type != "LORA") return Error{"\"peft_type\": expected LORA, found " + *type};
  const auto flag = [&](std::string_view key) {
    const auto value = config->find(key);
    return value && value->boolean().value_or(false);
  };
  if (flag("use_dora")) return Error{"\"use_dora\": expected false: magnitudes of columns are not read"};
  if (const auto bias = config->find("bias"); bias && bias->string().value_or("") != "none")
    return Error{"\"bias\": expected \"none\", found " + std::string(bias->text())};
  const auto rank = config->integer_at("r");
  if (!rank) return rank.error();
  const auto alpha = config->number_at("lora_alpha");
  if (!alpha) return alpha.error();
  const auto ranks = pattern_of(*config, "rank_pattern"), alphas = pattern_of(*config, "alpha_pattern");
  if (const std::string why = unknown_to_transformers(*model.config); !why.empty())
    return Error{"transformers cannot run the model " + std::string(model.name) + ": " + why};
  const auto file = Safetensors::open(folder + "/adapter_model.safetensors");
  if (!file) return file.error();
  auto pairs = read_pairs(
      q, model, hugging_face_family(*model.config), file->tensors(), peft_a, peft_b,
      [](const SafetensorsTensor& t) -> Result<StoredTensor> {
        for (const auto& [dtype, format] :
             {std::pair{Dtype::f32, Format::f32}, {Dtype::f16, Format::f16}, {Dtype::bf16, Format::bf16}})
          if (t.dtype == dtype) return StoredTensor{t.name, t.shape, format, t.data};
        return Error{"tensor " + t.name + ": expected F32, F16 or BF16, found " +
                     std::string(dtype_info(t.dtype).name)};
      },
      [&](const Pair& p) -> Result<float> {
        const std::string module = module_of(p.where);
        const double expected = number_of(ranks, module, static_cast<double>(*rank)), r = static_cast<double>(p.rank);
        if (expected != r)
          return Error{"the adapter of " + module + " must have the rank " + to_text(expected) +
                       " that adapter_config.json says, found " + std::to_string(p.rank)};
        return static_cast<float>(number_of(alphas, module, *alpha) / (flag("use_rslora") ? std::sqrt(r) : r));
      },
      [](const FileWeight& w) { return std::string(peft_prefix) + module_of(w); });
  if (!pairs) return pairs.error();
  return adapter_of(model, std::move(*pairs));
}

inline Result<LoadedAdapter> load_gguf_adapter(const Cpu& q, const std::string& path, const AnyModel& model) {
  const auto file = Gguf::open(path);
  if (!file) return file.error();
  const std::string_view architecture = gguf_architecture(*model.config);
  for (const auto& [key, expected] : {std::pair<std::string_view, std::string_view>{"general.type", "adapter"},
                                      {"adapter.type", "lora"},
                                      {"general.architecture", architecture}}) {
    const auto found = file->text(key);
    if (!found) return found.error();
    if (*found != expected)
      return Error{std::string(key) + ": expected " + std::string(expected) + ", found " + std::string(*found)};
  }
  const auto alpha = file->number("adapter.lora.alpha");
  if (!alpha) return alpha.error();
  auto pairs = read_pairs(
      q, model, gguf_family(*model.config), file->tensors(), gguf_a, gguf_b,
      [](const GgufTensor& t) -> Result<StoredTensor> {
        return StoredTensor{t.name, {t.ne.rend() - t.dims, t.ne.rend()}, t.format, t.data};
      },
      [&](const Pair& p) -> Result<float> {  // without alpha llama.cpp takes 1
        return *alpha == 0 ? 1.f : static_cast<float>(*alpha / static_cast<double>(p.rank));
      },
      [](const FileWeight& w) { return w.name; });
  if (!pairs) return pairs.error();
  return adapter_of(model, std::move(*pairs));
}

}  // namespace adapter_file_parts

CHIMERA_FUNCTION Result<LoadedAdapter> load_adapter(const Cpu& q, const std::string& path, const AnyModel& model) {
  using namespace adapter_file_parts;
  const std::string beside = path + "/adapter.gguf";
  const bool folder = is_folder(path), gguf = !folder || exists(beside);
  if (folder && !gguf && !exists(path + "/adapter_config.json"))
    return Error{"cannot load " + path + ": expected an adapter, a folder with adapter_config.json or a GGUF file"};
  auto loaded = gguf ? load_gguf_adapter(q, folder ? beside : path, model) : load_peft(q, path, model);
  if (!loaded) return Error{"cannot load the adapter " + path + ": " + loaded.error().message};
  return loaded;
}

CHIMERA_FUNCTION Result<void> save_peft(const std::string& folder, const AnyModel& model, const BaseWeights& adapters,
                                        const float* values, const std::string& base_name) {
  using namespace adapter_file_parts;
  if (const std::string why = unknown_to_transformers(*model.config); !why.empty())
    return Error{"transformers cannot run the model " + std::string(model.name) + ": " + why};
  const Family family = hugging_face_family(*model.config);
  const auto pairs = pairs_of(model, family, adapters, values);
  if (!pairs) return pairs.error();
  if (pairs->empty()) return Error{"no matrix has an adapter"};
  std::set<std::string> names, modules;
  std::string ranks, alphas;
  const std::int64_t rank = (*pairs)[0].rank;
  const float alpha = (*pairs)[0].scale * static_cast<float>(rank);
  for (const Pair& p : *pairs) {
    const std::string module = module_of(p.where);
    modules.insert(module), names.insert(module.substr(module.rfind('.') + 1));
    if (p.rank == rank) continue;
    const auto add = [&](std::string& to, const std::string& number) {
      to.append(to.empty() ? "" : ", ").append(json_quoted(module)).append(": ").append(number);
    };
    add(ranks, std::to_string(p.rank)), add(alphas, to_text(p.scale * static_cast<float>(p.rank)));
  }
  // Short names mean the modules of all blocks.
  const auto table = file_weights(model, family);
  if (!table) return table.error();
  const bool all = std::all_of(table->begin(), table->end(), [&](const FileWeight& w) {
    const std::string module = module_of(w);
    return w.role != Role::matrix || modules.contains(module) || !names.contains(module.substr(module.rfind('.') + 1));
  });
  std::string targets;
  for (const std::string& name : all ? names : modules)
    targets.append(targets.empty() ? "" : ", ").append(json_quoted(name));

  if (Result<void> s = make_folder(folder); !s) return s;
  SafetensorsWriter file;
  file.set_metadata("format", "pt");
  for (const Pair& p : *pairs) {
    const std::string module = std::string(peft_prefix) + module_of(p.where);
    if (Result<void> s = file.add(module + std::string(peft_a), {p.rank, p.where.cols}, Dtype::f32); !s) return s;
    if (Result<void> s = file.add(module + std::string(peft_b), {p.where.rows, p.rank}, Dtype::f32); !s) return s;
  }
  if (Result<void> s = file.begin(folder + "/adapter_model.safetensors"); !s) return s;
  for (const Pair& p : *pairs)
    for (const auto* numbers : {&p.a, &p.b})
      if (Result<void> s = file.append(std::as_bytes(std::span(*numbers))); !s) return s;
  if (Result<void> s = file.commit(); !s) return s;

  JsonMembers m;
  m.add_text("peft_type", "LORA"), m.add_text("task_type", "CAUSAL_LM");
  m.add_text("base_model_name_or_path", base_name);
  m.add_number("r", rank), m.add_number("lora_alpha", alpha), m.add("lora_dropout", "0.0");
  m.add("target_modules", "[" + targets + "]");
  m.add("rank_pattern", "{" + ranks + "}"), m.add("alpha_pattern", "{" + alphas + "}");
  m.add_text("bias", "none");
  m.add_flag("use_rslora", false), m.add_flag("use_dora", false), m.add_flag("fan_in_fan_out", false);
  m.add_flag("inference_mode", true);
  return write_text(folder + "/adapter_config.json", m.text() + "\n");
}

CHIMERA_FUNCTION Result<void> save_gguf_adapter(const std::string& path, const AnyModel& model,
                                                const BaseWeights& adapters, const float* values) {
  using namespace adapter_file_parts;
  const std::string_view architecture = gguf_architecture(*model.config);
  auto pairs = pairs_of(model, gguf_family(*model.config), adapters, values);
  if (!pairs) return pairs.error();
  if (pairs->empty()) return Error{"no matrix has an adapter"};
  const float alpha = (*pairs)[0].scale * static_cast<float>((*pairs)[0].rank);
  GgufWriter file;
  file.set("general.architecture", architecture);
  file.set("general.type", "adapter");
  file.set("adapter.type", "lora");
  file.set("adapter.lora.alpha", alpha);
  for (Pair& p : *pairs) {
    // llama.cpp's scale is alpha over the tensor's own rank.
    const float factor = p.scale * static_cast<float>(p.rank) / alpha;
    for (float& v : p.b) v *= factor;
    if (Result<void> s = file.add(p.where.name + std::string(gguf_a), {p.where.cols, p.rank}, Format::f32); !s)
      return s;
    if (Result<void> s = file.add(p.where.name + std::string(gguf_b), {p.rank, p.where.rows}, Format::f32); !s)
      return s;
  }
  if (Result<void> s = file.begin(path); !s) return s;
  for (const Pair& p : *pairs)
    for (const auto* numbers : {&p.a, &p.b})
      if (Result<void> s = file.append(std::as_bytes(std::span(*numbers))); !s) return s;
  return file.commit();
}

CHIMERA_FUNCTION Result<void> save_adapter(const std::string& folder, const AnyModel& model,
                                           const BaseWeights& adapters, const float* values,
                                           const std::string& base_name) {
  if (Result<void> s = make_folder(folder); !s) return s;
  if (Result<void> s = save_gguf_adapter(folder + "/adapter.gguf", model, adapters, values); !s) return s;
  if (!unknown_to_transformers(*model.config).empty()) return {};
  return save_peft(folder, model, adapters, values, base_name);
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
