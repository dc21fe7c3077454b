// Models as GGUF files: in the architectures that llama.cpp runs where a config has one, else in our own.
#pragma once

#include <chimera/config/config_text.hpp>
#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/config_from_gguf.hpp>
#include <chimera/exchange/layers.hpp>
#include <chimera/exchange/quantization_mix.hpp>
#include <chimera/exchange/same_meaning.hpp>
#include <chimera/exchange/ternary_codes.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>
#include <chimera/kernels/ternary/codes.hpp>
#include <chimera/model/any_model.hpp>
#include <chimera/model/packed_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// Why llama.cpp has no architecture for a model of this config; empty if it has one.
inline std::string unknown_to_llama_cpp(const Config& c) {
  if (const std::string word = word_unknown_to(Family::gguf, c); !word.empty()) return "it has no layer like " + word;
  if (c.ternary.on && (!c.sub_norm || c.ternary.group != 0))
    return "its ternary matrices are those of bitnet, with norms inside the layers and one scale for each matrix";
  for (const LayerFiles& layer : layer_files)
    if (c.sub_norm && layer.kind && layer.used(c) && !layer.in_bitnet) return "its bitnet has attention layers alone";
  if (c.sub_norm && !c.tied) return "its bitnet has no output matrix of its own";
  if (c.sub_norm && !has_plain_scales(c)) return "its bitnet has no multipliers";
  if (c.loop.on()) return "its models pass through their layers once";
  if (c.logit_cap > 0) return "its models of these layers have no cap of logits";
  if (c.embedding_rank) return "its models have embeddings of the whole width";
  for (const LayerFiles& layer : layer_files)
    if (layer.unknown_to_llama_cpp && layer.used(c))
      if (std::string why = layer.unknown_to_llama_cpp(c); !why.empty()) return why;
  return "";
}

/// What general.architecture says of a model of this config.
inline std::string_view gguf_architecture(const Config& c) {
  if (!unknown_to_llama_cpp(c).empty()) return "chimera";
  if (c.sub_norm) return "bitnet";
  std::string_view dense = "granite";
  for (const LayerFiles& layer : layer_files) {
    if (!layer.kind || !layer.used(c)) continue;
    if (!layer.architecture.empty()) return layer.architecture;
    if (layer.dense && has_plain_scales(c)) dense = layer.dense(c);
  }
  return dense;
}

namespace gguf_model_parts {

constexpr Family family_of(std::string_view architecture) {
  if (architecture == "chimera") return Family::own;
  if (architecture == "qwen35") return Family::gguf_qwen35;
  const bool halves = architecture == "bitnet" || architecture == "qwen2" || architecture == "qwen3";
  return halves ? Family::gguf_halves : Family::gguf;
}

inline void set_config(GgufWriter& file, const Config& c, std::string_view architecture) {
  if (architecture == "chimera") return file.set(config_key, config_lines(c));
  const GgufNumbers numbers{file, architecture};
  numbers.number("vocab_size", c.vocab);
  numbers.number("context_length", c.context);
  numbers.number("embedding_length", c.width);
  numbers.number("block_count", c.layers.count);
  numbers.set("attention.layer_norm_rms_epsilon", c.norm_eps);
  if (numbers.granite()) {
    numbers.set("embedding_scale", c.embedding_scale);
    numbers.set("residual_scale", c.residual_scale);
    numbers.set("logit_scale", c.logit_scale);
  }
  for (const LayerFiles& layer : layer_files)
    if (layer.write_gguf && layer.used(c)) layer.write_gguf(numbers, c);
}

inline StoredTensor stored(const Gguf& file, const GgufTensor& t) {
  std::vector<std::int64_t> shape(t.ne.rend() - t.dims, t.ne.rend());
  return {t.name, std::move(shape), t.format, t.data, static_cast<std::size_t>(&t - file.tensors().data())};
}

/// The name of the scale that llama.cpp multiplies a matrix of bitnet with.
inline std::string scale_name(const FileWeight& w) { return w.name.substr(0, w.name.rfind('.')) + ".scale"; }

/// Matrices of blocks as -1, 0 and 1, each with the mean of its magnitudes as its scale (BitNet b1.58, 2402.17764,
/// equations 1 to 3).
inline void make_ternary(std::span<FileWeight> table, const AnyModel& model, const float* arena) {
  for (FileWeight& w : table) {
    if (w.role != Role::matrix || !model.tensors[w.tensor].name().starts_with("blk.")) continue;
    double sum = 0;
    for (std::int64_t i = 0; i < w.size(); ++i)
      sum += static_cast<double>(std::fabs(arena[w.offset + static_cast<std::size_t>(i)]));
    w.ternary = true;
    w.divisor = std::max(static_cast<float>(sum / static_cast<double>(w.size())), 1e-5f);
  }
}

/// Whether our own files of two bits hold a weight as codes: NAME.weight is I8 [rows, cols / 4], bytes in the order of
/// I2_S, and NAME.scales F32 [rows, groups].
inline bool has_codes(const FileWeight& w, const AnyModel& model) {
  return model.config->ternary.on && w.role == Role::matrix && w.cols % CodeOrder::runs().run == 0 &&
         model.tensors[w.tensor].name().starts_with("blk.");
}
inline std::string scales_name(const FileWeight& w) { return w.name.substr(0, w.name.rfind('.')) + ".scales"; }

/// The scales [rows, groups] of a ternary matrix in the arena.
inline std::vector<float> scales_of(const Cpu& q, const FileWeight& w, const AnyModel& model, const float* arena) {
  const TernaryShape s = ternary_shape(model.tensors[w.tensor], model.config->ternary.group);
  std::vector<float> scales(static_cast<std::size_t>(w.rows * s.groups()));
  for (std::int64_t row = 0; row < w.rows; row += s.out)
    ternary_scales(q, s, arena + w.offset + row * w.cols, scales.data() + row * s.groups());
  return scales;
}

inline std::vector<std::byte> codes_of(const FileWeight& w, std::span<const float> scales, const float* arena) {
  std::vector<float> codes(static_cast<std::size_t>(w.size()));
  const std::size_t group = codes.size() / scales.size();
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const float x = arena[w.offset + i], half = 0.5f * scales[i / group];
    codes[i] = static_cast<float>((x > half) - (x < -half));
  }
  return pack_codes(CodeOrder::runs(), codes);
}

/// Reads a weight that is codes: as weights that round to them, the mean magnitude of which are the scales.
inline Result<void> load_codes(const Gguf& file, const FileWeight& w, const AnyModel& model, float* x) {
  const NamedTensor& t = model.tensors[w.tensor];
  const TernaryShape s = ternary_shape(t, model.config->ternary.group);
  const GgufTensor* scales = file.tensor(scales_name(w));
  if (!scales) return Error{"the file has no tensor " + scales_name(w)};
  FileWeight bytes = w, numbers = w;
  bytes.shape.back() /= 4, numbers.shape.back() = s.groups();
  if (Result<void> shape = check_shape(bytes, w.stored); !shape) return shape;
  if (Result<void> shape = check_shape(numbers, stored(file, *scales)); !shape) return shape;
  if (scales->format != Format::f32) return Error{"tensor " + scales->name + ": expected numbers of F32"};
  const std::span weights(x, static_cast<std::size_t>(w.size()));
  if (Result<void> read = unpack_codes(CodeOrder::runs(), w.stored.data, weights); !read)
    return Error{"tensor " + w.name + ": " + read.error().message};
  const std::int64_t row_scales = s.groups();
  for (std::int64_t row = 0; row < w.rows;) {
    const std::int64_t in_stack = row % s.out, end = row - in_stack + part_end(s.parts, s.out, in_stack);
    const std::int64_t rows = s.group > 0 ? 1 : end - row;  // that share a scale
    for (std::int64_t g = 0; g < row_scales; ++g) {
      float scale = 0;
      std::memcpy(&scale, scales->data.data() + static_cast<std::size_t>(row * row_scales + g) * sizeof scale,
                  sizeof scale);
      if (!(scale > 0 && scale <= 1e6f)) return Error{"tensor " + scales->name + ": expected numbers above 0"};
      const auto some = weights.subspan(static_cast<std::size_t>(row * w.cols + g * s.group_size()),
                                        static_cast<std::size_t>(rows * s.group_size()));
      const auto zeros = std::count(some.begin(), some.end(), 0.f);
      const double ones = static_cast<double>(std::max<std::int64_t>(std::ssize(some) - zeros, 1));
      for (float& v : some) v *= static_cast<float>(scale * static_cast<double>(some.size()) / ones);
    }
    row += rows;
  }
  return {};
}

/// The tensors of a file of that type, without data.
inline std::vector<GgufTensor> declared(std::span<const FileWeight> table, const FileType& type) {
  std::vector<GgufTensor> tensors;
  for (const FileWeight& w : table) {
    GgufTensor t;
    t.name = w.name;
    t.dims = static_cast<int>(w.shape.size());
    std::copy(w.shape.rbegin(), w.shape.rend(), t.ne.begin());
    tensors.push_back(std::move(t));
  }
  const QuantizationMix mix(type, tensors);
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (table[i].role == Role::matrix) tensors[i].format = mix.format_of(tensors[i]);
  return tensors;
}

}  // namespace gguf_model_parts

/// The tensors that GGUF files of a model of this config have.
inline Family gguf_family(const Config& c) { return gguf_model_parts::family_of(gguf_architecture(c)); }

/// Where the file has the model's weights. Errors: another config, a tensor that is missing, and one that the model has
/// no place for.
inline Result<std::vector<FileWeight>> find_weights(const Gguf& file, const AnyModel& model) {
  const auto config = config_from_gguf(file);
  if (!config) return config.error();
  if (!same_meaning(*config, *model.config))
    return Error{"the file's config is not that of the model " + std::string(model.name)};
  auto table = gguf_weights(model, gguf_model_parts::family_of(*file.text("general.architecture")));
  if (!table) return table.error();
  for (FileWeight& w : *table) {
    const GgufTensor* t = file.tensor(w.name);
    if (!t) return Error{"the file has no tensor " + w.name};
    w.stored = gguf_model_parts::stored(file, *t);
    if (const GgufTensor* scale = file.tensor(gguf_model_parts::scale_name(w)); scale && config->sub_norm) {
      if (scale->format != Format::f32 || scale->size() != 1)
        return Error{"tensor " + scale->name + ": expected one number of F32"};
      std::memcpy(&w.divisor, scale->data.data(), sizeof w.divisor);
      if (!(std::fabs(w.divisor) <= 1e6f)) return Error{"tensor " + scale->name + ": expected a number of at most 1e6"};
    }
  }
  if (Result<void> s = check_all_known(file.tensors(), *table,
                                       [&](std::string_view name) {
                                         return (config->sub_norm && name.ends_with(".scale")) ||
                                                (config->ternary.on && name.ends_with(".scales")) ||
                                                is_passed_over(name);
                                       });
      !s)
    return s.error();
  return table;
}

/// Fills `weights`, model.arena_floats of them. Errors: those of find_weights, a tensor of another shape or without
/// numbers. After an error the weights are undefined.
inline Result<void> load_gguf(const Cpu& q, const Gguf& file, const AnyModel& model, float* weights) {
  const auto table = find_weights(file, model);
  if (!table) return table.error();
  for (const FileWeight& w : *table) {
    const bool codes = w.stored.format == Format::i8 && gguf_model_parts::has_codes(w, model);
    if (Result<void> s = codes ? gguf_model_parts::load_codes(file, w, model, weights + w.offset)
                               : load_weight(q, w, w.stored, weights + w.offset);
        !s)
      return s;
  }
  return {};
}

/// Writes the model's weights and config, whole or not at all; `words(file)` adds the tokenizer's metadata.
template <class F>
Result<void> save_gguf(const Cpu& q, const std::string& path, const AnyModel& model, const float* weights,
                       const FileType& type, std::string_view name, F&& words) {
  using namespace gguf_model_parts;
  const Config& c = *model.config;
  const std::string_view architecture = gguf_architecture(c);
  auto table = gguf_weights(model, family_of(architecture));
  if (!table) return table.error();
  const bool three = architecture == "bitnet" && (type.format == Format::tq1_0 || type.format == Format::tq2_0);
  const bool in_codes = c.ternary.on && architecture == "chimera" && type.format == Format::tq2_0;
  if (c.ternary.on && !three && !in_codes && (architecture == "bitnet" || format_info(type.format)->values > 1))
    return Error{std::string("a model with ternary matrices is written as ") +
                 (architecture == "bitnet" ? "TQ1_0 or TQ2_0" : "TQ2_0, F32, F16 or BF16")};
  if (three) make_ternary(*table, model, weights);
  GgufWriter file;
  file.set("general.architecture", architecture);
  file.set("general.type", "model");
  file.set("general.name", name);
  file.set("general.file_type", type.id);
  file.set("general.alignment", std::uint32_t{32});
  if (format_info(type.format)->values > 1) file.set("general.quantization_version", std::uint32_t{2});
  set_config(file, c, architecture);
  words(file);

  std::vector<FileNumbers> numbers;  // that are no weights
  for (const LayerFiles& layer : layer_files)
    if (layer.gguf_tensor && layer.used(c) && architecture != "chimera") numbers.push_back(layer.gguf_tensor(c));
  for (const FileNumbers& n : numbers)
    if (!n.values.empty())
      if (Result<void> s = file.add(n.name, {static_cast<std::int64_t>(n.values.size())}, Format::f32); !s) return s;
  std::vector<GgufTensor> tensors = declared(*table, type);
  std::vector<std::vector<float>> scales(tensors.size());  // of weights that go out as codes
  for (std::size_t i = 0; in_codes && i < tensors.size(); ++i) {
    const FileWeight& w = (*table)[i];
    if (w.role != Role::matrix || !w.name.starts_with("blk.")) continue;
    tensors[i].format = Format::f32;  // what products round, where rows fill no bytes
    if (!has_codes(w, model)) continue;
    tensors[i].format = Format::i8, tensors[i].ne[0] /= 4;
    scales[i] = scales_of(q, w, model, weights);
  }
  for (const GgufTensor& t : tensors)
    if (Result<void> s = file.add(t.name, std::span(t.ne).first(static_cast<std::size_t>(t.dims)), t.format); !s)
      return s;
  for (const FileWeight& w : *table)
    if (w.ternary)
      if (Result<void> s = file.add(scale_name(w), {1}, Format::f32); !s) return s;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (const FileWeight& w = (*table)[i]; !scales[i].empty())
      if (Result<void> s = file.add(scales_name(w), {std::ssize(scales[i]) / w.rows, w.rows}, Format::f32); !s)
        return s;
  if (Result<void> s = file.begin(path); !s) return s;
  for (const FileNumbers& n : numbers)
    if (Result<void> s = file.append(std::as_bytes(std::span(n.values))); !s) return s;
  for (std::size_t i = 0; i < tensors.size(); ++i)
    if (Result<void> s = !scales[i].empty()
                             ? file.append(codes_of((*table)[i], scales[i], weights))
                             : store_weight(q, (*table)[i], tensors[i].format, weights,
                                            [&](std::span<const std::byte> bytes) { return file.append(bytes); });
        !s)
      return s;
  for (const FileWeight& w : *table)
    if (w.ternary)
      if (Result<void> s = file.append(std::as_bytes(std::span(&w.divisor, 1))); !s) return s;
  for (const std::vector<float>& of_one : scales)
    if (Result<void> s = file.append(std::as_bytes(std::span(of_one))); !s) return s;
  return file.commit();
}

}  // namespace chimera::inline CHIMERA_ABI
