// Which tensors of a file hold each weight of a model: the rows that layers give for their own (layers.hpp), read both
// ways. Names: llama.cpp's for GGUF, transformers' for Hugging Face.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/layers.hpp>
#include <chimera/io/finite.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

namespace weight_parts {

/// The weights around those of the layers: of the model's two ends, and the norms of a block.
inline constexpr std::array own_rows{FileRow{.ours = "token_embd.weight",
                                             .gguf = {"token_embd.weight"},
                                             .granite = {"model.embed_tokens.weight"},
                                             .llama = {"model.embed_tokens.weight"},
                                             .xlstm = {"backbone.embeddings.weight"},
                                             .griffin = {"model.embed_tokens.weight"}},
                                     FileRow{.ours = "token_embd_up.weight"},
                                     FileRow{.ours = "output_down.weight"},
                                     FileRow{.ours = "output_norm.weight",
                                             .gguf = {"output_norm.weight"},
                                             .granite = {"model.norm.weight"},
                                             .llama = {"model.norm.weight"},
                                             .xlstm = {"backbone.out_norm.weight"},
                                             .griffin = {"model.final_norm.weight"},
                                             .adapt = zero_centred},
                                     FileRow{.ours = "output.weight",
                                             .gguf = {"output.weight"},
                                             .granite = {"lm_head.weight"},
                                             .llama = {"lm_head.weight"},
                                             .xlstm = {"lm_head.weight"},
                                             .griffin = {"lm_head.weight"}},
                                     FileRow{.ours = "attn_norm.weight",
                                             .gguf = {"attn_norm.weight"},
                                             .granite = {"input_layernorm.weight"},
                                             .llama = {"input_layernorm.weight"},
                                             .xlstm = {"norm_mlstm.weight"},
                                             .griffin = {"temporal_pre_norm.weight"},
                                             .adapt = zero_centred},
                                     FileRow{.ours = "ffn_norm.weight",
                                             .gguf = {"ffn_norm.weight"},
                                             .granite = {"post_attention_layernorm.weight"},
                                             .llama = {"post_attention_layernorm.weight"},
                                             .xlstm = {"norm_ffn.weight"},
                                             .griffin = {"channel_pre_norm.weight"},
                                             .qwen35 = {"post_attention_norm.weight"},
                                             .adapt = zero_centred}};

/// Calls f(row) for all rows.
template <class F>
constexpr void each_row(F&& f) {
  for (const FileRow& row : own_rows) f(row);
  for (const auto& [rows] : layer_columns<&LayerFiles::rows>)
    for (const FileRow& row : rows) f(row);
}

}  // namespace weight_parts

/// All tensors that hold the model's weights in GGUF files of that family, in arena order; an error for a weight that
/// they have no name for.
Result<std::vector<FileWeight>> gguf_weights(const AnyModel& model, Family family);

/// The same of any family.
Result<std::vector<FileWeight>> file_weights(const AnyModel& model, Family family);

Result<void> check_shape(const FileWeight& w, const StoredTensor& t);

Result<void> check_numbers(const StoredTensor& t, std::span<const std::byte> data);

/// Reads one tensor into x [rows, cols]. Errors: another shape, a format that holds no weights, numbers that are none.
Result<void> load_weight(const Cpu& q, const FileWeight& w, const StoredTensor& t, float* x);

/// An error that names a tensor of the file which is neither in the table nor passed over.
template <class Tensors, class F>
Result<void> check_all_known(const Tensors& tensors, std::span<const FileWeight> table, F&& passed_over) {
  std::vector<std::string_view> known;
  for (const FileWeight& w : table) known.push_back(w.name);
  std::sort(known.begin(), known.end());
  for (const auto& t : tensors)
    if (!std::binary_search(known.begin(), known.end(), std::string_view(t.name)) && !passed_over(t.name))
      return Error{"the file has a tensor that the model has no place for: " + t.name};
  return {};
}

/// Hands the bytes of one tensor in that format to `append`, piece after piece; a piece is at most about 4 MiB of f32.
template <class F>
Result<void> store_weight(const Cpu& q, const FileWeight& w, Format format, const float* arena, F&& append) {
  const std::int64_t rows = std::clamp<std::int64_t>((std::int64_t{1} << 20) / w.cols, 1, w.rows);
  auto values = Buffer::create(static_cast<std::size_t>(rows * w.cols));
  if (!values) return values.error();
  std::vector<std::byte> bytes;
  for (std::int64_t first = 0; first < w.rows; first += rows) {
    const std::int64_t count = std::min(rows, w.rows - first), n = count * w.cols;
    for (std::int64_t r = 0; r < count; ++r) {
      const float* ours = arena + w.offset + w.our_row(first + r) * w.cols;
      for (std::int64_t c = 0; c < w.cols; ++c) values->data()[r * w.cols + c] = ours[w.our_col(c)];
    }
    for (std::int64_t i = 0; w.minus != 0.f && i < n; ++i) values->data()[i] -= w.minus;
    for (std::int64_t i = 0; w.minus_exp && i < n; ++i) values->data()[i] = -std::exp(values->data()[i]);
    for (std::int64_t i = 0; w.ternary && i < n; ++i)
      values->data()[i] = std::clamp((std::round)(values->data()[i] / w.divisor), -1.f, 1.f);
    bytes.resize(static_cast<std::size_t>(format_bytes(format, n)));
    if (Result<void> s = encode(q, format, values->data(), n, bytes.data()); !s)
      return Error{"tensor " + w.name + ": " + s.error().message};
    if (Result<void> s = append(std::span<const std::byte>(bytes)); !s) return s;
  }
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

namespace weight_parts {

/// A row with the column of one family.
struct FamilyRow {
  std::string_view ours;
  FileTensor theirs;
  int part = -1;
  decltype(FileRow::adapt) adapt = nullptr;
};

/// Those that the family has a name for: a program that reads files of one kind brings no names of the other.
template <Family family>
inline constexpr auto family_rows = [] {
  constexpr auto has = [](const FileRow& row) { return !row.in(family).name.empty(); };
  constexpr std::size_t count = [has] {
    std::size_t n = 0;
    each_row([&](const FileRow& row) { n += has(row); });
    return n;
  }();
  std::array<FamilyRow, count> rows;
  auto to = rows.begin();
  each_row([&](const FileRow& row) {
    if (has(row)) *to++ = {row.ours, row.in(family), row.part, row.adapt};
  });
  return rows;
}();

inline Result<std::vector<FileWeight>> weights_by(const AnyModel& model, Family family,
                                                  std::span<const FamilyRow> table) {
  const Config& c = *model.config;
  std::vector<FileWeight> all;
  for (std::size_t tensor = 0; tensor < model.tensors.size(); ++tensor) {
    const NamedTensor& t = model.tensors[tensor];
    std::string_view ours = t.name(), block;
    if (ours.starts_with("blk.")) {
      const std::size_t dot = ours.find('.', 4);
      block = ours.substr(4, dot - 4), ours = ours.substr(dot + 1);
    }
    const bool vector = t.is_vector();  // a column
    const std::int64_t all_rows = vector ? t.cols : t.rows, cols = vector ? 1 : t.cols;
    const auto add = [&](std::string name, std::int64_t first, std::int64_t rows) -> FileWeight& {
      all.push_back({.name = std::move(name),
                     .shape = vector ? std::vector{rows} : std::vector{rows, cols},
                     .tensor = tensor,
                     .first = first,
                     .offset = t.offset + static_cast<std::size_t>(first * cols),
                     .rows = rows,
                     .cols = cols,
                     .role = t.role});
      return all.back();
    };
    const std::size_t before = all.size();
    if (family == Family::own) {
      add(std::string(t.name()), 0, all_rows);
      continue;
    }
    for (const FamilyRow& row : table) {
      if (row.ours != ours) continue;
      std::int64_t first = 0;
      for (int part = 0; part < row.part; ++part) first += t.parts[static_cast<std::size_t>(part)];
      std::string name(row.theirs.name);
      if (!block.empty()) name.insert(0, std::string(block_prefix(family)) + std::string(block) + ".");
      FileWeight& w =
          add(std::move(name), first, row.part < 0 ? all_rows : t.parts[static_cast<std::size_t>(row.part)]);
      w.minus_exp = row.theirs.minus_exp;
      if (row.theirs.shape) w.shape = row.theirs.shape(c, t.rows, t.cols);
      if (row.adapt) row.adapt(w, c, family);
    }
    if (all.size() == before) return Error{"files of this kind have no name for the weight " + std::string(t.name())};
  }
  return all;
}

/// Dimensions of 1 apart, shapes are compared as they are.
inline std::vector<std::int64_t> without_ones(std::span<const std::int64_t> shape) {
  std::vector<std::int64_t> kept;
  std::copy_if(shape.begin(), shape.end(), std::back_inserter(kept), [](std::int64_t n) { return n != 1; });
  return kept;
}

inline std::string shape_text(std::span<const std::int64_t> shape) {
  std::string text;
  for (const std::int64_t n : shape) text.append(text.empty() ? "" : " x ").append(std::to_string(n));
  return "[" + text + "]";
}

/// From the file's order of rows and columns to ours, in place. buffer: as many floats as x.
inline void put_in_order(const FileWeight& w, float* x, float* buffer) {
  std::copy_n(x, w.size(), buffer);
  for (std::int64_t r = 0; r < w.rows; ++r)
    for (std::int64_t c = 0; c < w.cols; ++c) x[w.our_row(r) * w.cols + w.our_col(c)] = buffer[r * w.cols + c];
}

}  // namespace weight_parts

CHIMERA_FUNCTION Result<std::vector<FileWeight>> gguf_weights(const AnyModel& model, Family family) {
  using namespace weight_parts;
  if (family == Family::gguf_qwen35) return weights_by(model, family, family_rows<Family::gguf_qwen35>);
  return weights_by(model, family, family_rows<Family::gguf>);
}

CHIMERA_FUNCTION Result<std::vector<FileWeight>> file_weights(const AnyModel& model, Family family) {
  using namespace weight_parts;
  if (!is_hugging_face(family)) return gguf_weights(model, family);
  if (family == Family::granite) return weights_by(model, family, family_rows<Family::granite>);
  if (family == Family::xlstm) return weights_by(model, family, family_rows<Family::xlstm>);
  if (family == Family::griffin) return weights_by(model, family, family_rows<Family::griffin>);
  return weights_by(model, family, family_rows<Family::llama>);
}

CHIMERA_FUNCTION Result<void> check_shape(const FileWeight& w, const StoredTensor& t) {
  using namespace weight_parts;
  if (without_ones(w.shape) == without_ones(t.shape)) return {};
  return Error{"tensor " + std::string(t.name) + ": expected the shape " + shape_text(w.shape) + ", found " +
               shape_text(t.shape)};
}

CHIMERA_FUNCTION Result<void> check_numbers(const StoredTensor& t, std::span<const std::byte> data) {
  const NotFinite bad = find_not_finite(t.format, data);
  if (bad.count == 0) return {};
  return Error{"tensor " + std::string(t.name) + ": expected numbers, found " + std::to_string(bad.count) +
               " that are none, the first in block " + std::to_string(bad.block)};
}

CHIMERA_FUNCTION Result<void> load_weight(const Cpu& q, const FileWeight& w, const StoredTensor& t, float* x) {
  using namespace weight_parts;
  const std::string name(t.name);
  if (Result<void> s = check_shape(w, t); !s) return s;
  if (Result<void> s = check_numbers(t, t.data); !s) return s;
  if (Result<void> s = decode(q, t.format, t.data.data(), w.size(), x); !s)
    return Error{"tensor " + name + ": " + s.error().message};
  for (std::int64_t i = 0; w.divisor != 1.f && i < w.size(); ++i) x[i] *= w.divisor;
  for (std::int64_t i = 0; w.minus_exp && i < w.size(); ++i) {
    if (!(x[i] < 0)) return Error{"tensor " + name + ": expected numbers below 0, found " + std::to_string(x[i])};
    x[i] = std::log(-x[i]);
  }
  for (std::int64_t i = 0; w.minus != 0.f && i < w.size(); ++i) x[i] += w.minus;
  if (!w.our_rows.empty() || !w.our_cols.empty()) {
    auto buffer = Buffer::create(static_cast<std::size_t>(w.size()));
    if (!buffer) return buffer.error();
    put_in_order(w, x, buffer->data());
  }
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
