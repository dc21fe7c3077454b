// Which tensors of a file hold each weight of a model, and how: one table for each family of files, read both ways.
// Names: llama.cpp's for GGUF, transformers' for Hugging Face.
#pragma once

#include <chimera/core/device.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/finite.hpp>
#include <chimera/kernels/formats/block_formats.hpp>
#include <chimera/model/any_model.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

enum class Family : std::uint8_t {
  gguf,     // granitehybrid, granite, llama
  bitnet,   // llama.cpp's bitnet
  granite,  // GraniteMoeHybridForCausalLM
  llama,    // LlamaForCausalLM
  own,      // our table as it is
};

namespace weight_parts {

/// Which rows of our weight a tensor holds.
enum class Rows : std::uint8_t { all, q, k, v, gate, up };

enum class Shape : std::uint8_t {
  plain,   // [rows, cols], or [n] for a vector
  column,  // [n, 1]
  conv,    // [channels, 1, taps]
  groups,  // [groups, n / groups]
};

enum class Values : std::uint8_t { same, minus_exp };  // minus_exp: the file has -exp(ours)

struct Rule {
  std::string_view ours, theirs;  // of a block's weights without the block
  Rows rows = Rows::all;
  Shape shape = Shape::plain;
  Values values = Values::same;
};

inline constexpr std::array gguf{Rule{"token_embd.weight", "token_embd.weight"},
                                 Rule{"output_norm.weight", "output_norm.weight"},
                                 Rule{"output.weight", "output.weight"},
                                 Rule{"attn_norm.weight", "attn_norm.weight"},
                                 Rule{"attn_qkv.weight", "attn_q.weight", Rows::q},
                                 Rule{"attn_qkv.weight", "attn_k.weight", Rows::k},
                                 Rule{"attn_qkv.weight", "attn_v.weight", Rows::v},
                                 Rule{"attn_output.weight", "attn_output.weight"},
                                 Rule{"ssm_in.weight", "ssm_in.weight"},
                                 Rule{"ssm_conv1d.weight", "ssm_conv1d.weight"},
                                 Rule{"ssm_conv1d.bias", "ssm_conv1d.bias"},
                                 Rule{"ssm_dt.bias", "ssm_dt.bias"},
                                 Rule{"ssm_a_log", "ssm_a", Rows::all, Shape::column, Values::minus_exp},
                                 Rule{"ssm_d", "ssm_d", Rows::all, Shape::column},
                                 Rule{"ssm_norm.weight", "ssm_norm.weight", Rows::all, Shape::groups},
                                 Rule{"ssm_out.weight", "ssm_out.weight"},
                                 Rule{"ffn_norm.weight", "ffn_norm.weight"},
                                 Rule{"ffn_gate_up.weight", "ffn_gate.weight", Rows::gate},
                                 Rule{"ffn_gate_up.weight", "ffn_up.weight", Rows::up},
                                 Rule{"ffn_down.weight", "ffn_down.weight"}};

inline constexpr std::array bitnet{Rule{"token_embd.weight", "token_embd.weight"},
                                   Rule{"output_norm.weight", "output_norm.weight"},
                                   Rule{"attn_norm.weight", "attn_norm.weight"},
                                   Rule{"attn_qkv.weight", "attn_q.weight", Rows::q},
                                   Rule{"attn_qkv.weight", "attn_k.weight", Rows::k},
                                   Rule{"attn_qkv.weight", "attn_v.weight", Rows::v},
                                   Rule{"attn_sub_norm.weight", "attn_sub_norm.weight"},
                                   Rule{"attn_output.weight", "attn_output.weight"},
                                   Rule{"ffn_norm.weight", "ffn_norm.weight"},
                                   Rule{"ffn_gate_up.weight", "ffn_gate.weight", Rows::gate},
                                   Rule{"ffn_gate_up.weight", "ffn_up.weight", Rows::up},
                                   Rule{"ffn_sub_norm.weight", "ffn_sub_norm.weight"},
                                   Rule{"ffn_down.weight", "ffn_down.weight"}};

inline constexpr std::array granite{Rule{"token_embd.weight", "model.embed_tokens.weight"},
                                    Rule{"output_norm.weight", "model.norm.weight"},
                                    Rule{"output.weight", "lm_head.weight"},
                                    Rule{"attn_norm.weight", "input_layernorm.weight"},
                                    Rule{"attn_qkv.weight", "self_attn.q_proj.weight", Rows::q},
                                    Rule{"attn_qkv.weight", "self_attn.k_proj.weight", Rows::k},
                                    Rule{"attn_qkv.weight", "self_attn.v_proj.weight", Rows::v},
                                    Rule{"attn_output.weight", "self_attn.o_proj.weight"},
                                    Rule{"ssm_in.weight", "mamba.in_proj.weight"},
                                    Rule{"ssm_conv1d.weight", "mamba.conv1d.weight", Rows::all, Shape::conv},
                                    Rule{"ssm_conv1d.bias", "mamba.conv1d.bias"},
                                    Rule{"ssm_dt.bias", "mamba.dt_bias"},
                                    Rule{"ssm_a_log", "mamba.A_log"},
                                    Rule{"ssm_d", "mamba.D"},
                                    Rule{"ssm_norm.weight", "mamba.norm.weight"},
                                    Rule{"ssm_out.weight", "mamba.out_proj.weight"},
                                    Rule{"ffn_norm.weight", "post_attention_layernorm.weight"},
                                    Rule{"ffn_gate_up.weight", "shared_mlp.input_linear.weight"},
                                    Rule{"ffn_down.weight", "shared_mlp.output_linear.weight"}};

inline constexpr std::array llama{Rule{"token_embd.weight", "model.embed_tokens.weight"},
                                  Rule{"output_norm.weight", "model.norm.weight"},
                                  Rule{"output.weight", "lm_head.weight"},
                                  Rule{"attn_norm.weight", "input_layernorm.weight"},
                                  Rule{"attn_qkv.weight", "self_attn.q_proj.weight", Rows::q},
                                  Rule{"attn_qkv.weight", "self_attn.k_proj.weight", Rows::k},
                                  Rule{"attn_qkv.weight", "self_attn.v_proj.weight", Rows::v},
                                  Rule{"attn_output.weight", "self_attn.o_proj.weight"},
                                  Rule{"ffn_norm.weight", "post_attention_layernorm.weight"},
                                  Rule{"ffn_gate_up.weight", "mlp.gate_proj.weight", Rows::gate},
                                  Rule{"ffn_gate_up.weight", "mlp.up_proj.weight", Rows::up},
                                  Rule{"ffn_down.weight", "mlp.down_proj.weight"}};

constexpr std::span<const Rule> rules(Family family) {
  switch (family) {
    case Family::gguf: return gguf;
    case Family::bitnet: return bitnet;
    case Family::granite: return granite;
    case Family::llama: return llama;
    default: return {};
  }
}

/// The first row and the number of rows of a weight of `rows`.
inline std::pair<std::int64_t, std::int64_t> range_of(const Config& c, Rows which, std::int64_t rows) {
  const std::int64_t q = c.attention.heads * c.head_dim(), k = c.kv_heads() * c.head_dim();
  switch (which) {
    case Rows::q: return {0, q};
    case Rows::k: return {q, k};
    case Rows::v: return {q + k, k};
    case Rows::gate: return {0, rows / 2};
    case Rows::up: return {rows / 2, rows / 2};
    default: return {0, rows};
  }
}

}  // namespace weight_parts

/// A tensor of a file and its place in the arena: rows of ours that follow one another.
struct FileWeight {
  std::string name;
  std::vector<std::int64_t> shape{};  // slowest first
  std::size_t tensor = 0;             // of AnyModel::tensors, of which it holds some rows
  std::int64_t first = 0;             // of these rows
  std::size_t offset = 0;             // floats from the start of the arena
  std::int64_t rows = 0, cols = 0;
  bool matrix = false;     // of a product: may be stored in any format
  bool minus_exp = false;  // the file has -exp(ours)
  float divisor = 1.f;     // the file has ours / divisor
  bool ternary = false;    // the file has that rounded to -1, 0 or 1
  // Rows of heads whose channels turn in another order than in the file: the first `turning` of each `head` rows.
  std::int64_t head = 0, turning = 0;
  bool file_has_halves = false;

  std::int64_t size() const { return rows * cols; }

  /// Where row `r` of the file lies in ours.
  std::int64_t our_row(std::int64_t r) const {
    const std::int64_t i = head > 0 ? r % head : 0, half = turning / 2;
    if (i >= turning) return r;
    return r - i + (file_has_halves ? i % half * 2 + i / half : i % 2 * half + i / 2);
  }
  /// Which row of the file is row `r` of ours.
  std::int64_t file_row(std::int64_t r) const {
    const std::int64_t i = head > 0 ? r % head : 0, half = turning / 2;
    if (i >= turning) return r;
    return r - i + (file_has_halves ? i % 2 * half + i / 2 : i % half * 2 + i / half);
  }
};

/// All tensors that hold the model's weights in files of that family, in arena order; an error for a weight that they
/// have no name for.
inline Result<std::vector<FileWeight>> file_weights(const AnyModel& model, Family family) {
  using namespace weight_parts;
  const Config& c = *model.config;
  const bool hugging_face = family == Family::granite || family == Family::llama;
  const bool file_has_halves = hugging_face || family == Family::bitnet;
  const RopeLayout theirs = file_has_halves ? RopeLayout::halves : RopeLayout::adjacent;
  const bool other_order =
      family != Family::own && c.attention.position == Position::rope && c.attention.rope.layout != theirs;
  std::vector<FileWeight> all;
  for (std::size_t tensor = 0; tensor < model.tensors.size(); ++tensor) {
    const NamedTensor& t = model.tensors[tensor];
    std::string_view ours = t.name(), block;
    if (ours.starts_with("blk.")) {
      const std::size_t dot = ours.find('.', 4);
      block = ours.substr(4, dot - 4), ours = ours.substr(dot + 1);
    }
    const std::size_t before = all.size();
    if (family == Family::own)
      all.push_back(
          {.name = std::string(t.name()), .tensor = tensor, .offset = t.offset, .rows = t.rows, .cols = t.cols});
    for (const Rule& rule : rules(family)) {
      if (rule.ours != ours) continue;
      const auto [first, rows] = range_of(c, rule.rows, t.rows);
      FileWeight w{.name = std::string(rule.theirs),
                   .tensor = tensor,
                   .first = first,
                   .offset = t.offset + static_cast<std::size_t>(first * t.cols),
                   .rows = rows,
                   .cols = t.cols,
                   .minus_exp = rule.values == Values::minus_exp};
      if (!block.empty()) w.name.insert(0, (hugging_face ? "model.layers." : "blk.") + std::string(block) + ".");
      if (rule.shape == Shape::column) w.shape = {t.cols, 1};
      if (rule.shape == Shape::conv) w.shape = {t.rows, 1, t.cols};
      if (rule.shape == Shape::groups) w.shape = {c.mamba2.groups, t.cols / c.mamba2.groups};
      if (other_order && (rule.rows == Rows::q || rule.rows == Rows::k))
        w.head = c.head_dim(), w.turning = c.rope_dims(), w.file_has_halves = file_has_halves;
      all.push_back(std::move(w));
    }
    if (all.size() == before) return Error{"files of this kind have no name for the weight " + std::string(t.name())};
    for (std::size_t i = before; i < all.size(); ++i) {
      if (all[i].shape.empty() && t.rows > 1) all[i].shape = {all[i].rows, all[i].cols};
      if (all[i].shape.empty()) all[i].shape = {t.cols};
      all[i].matrix = t.rows > 1 && !ours.ends_with("conv1d.weight");
    }
  }
  return all;
}

namespace weight_parts {

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

/// Rows of a head from the file's order to ours, in place. buffer: head * cols floats.
inline void turn_heads(const FileWeight& w, float* x, float* buffer) {
  for (std::int64_t first = 0; first < w.rows; first += w.head) {
    std::copy_n(x + first * w.cols, w.head * w.cols, buffer);
    for (std::int64_t r = 0; r < w.head; ++r)
      std::copy_n(buffer + r * w.cols, w.cols, x + w.our_row(first + r) * w.cols);
  }
}

}  // namespace weight_parts

/// A tensor as a file holds it.
struct StoredTensor {
  std::string_view name;
  std::vector<std::int64_t> shape;  // slowest first
  Format format = Format::f32;
  std::span<const std::byte> data;
};

inline Status check_shape(const FileWeight& w, const StoredTensor& t) {
  using namespace weight_parts;
  if (without_ones(w.shape) == without_ones(t.shape)) return {};
  return Error{"tensor " + std::string(t.name) + ": expected the shape " + shape_text(w.shape) + ", found " +
               shape_text(t.shape)};
}

inline Status check_numbers(const StoredTensor& t, std::span<const std::byte> data) {
  const NotFinite bad = find_not_finite(t.format, data);
  if (bad.count == 0) return {};
  return Error{"tensor " + std::string(t.name) + ": expected numbers, found " + std::to_string(bad.count) +
               " that are none, the first in block " + std::to_string(bad.block)};
}

/// Reads one tensor into x [rows, cols]. Errors: another shape, a format that holds no weights, numbers that are none.
inline Status load_weight(const Cpu& q, const FileWeight& w, const StoredTensor& t, float* x) {
  using namespace weight_parts;
  const std::string name(t.name);
  if (Status s = check_shape(w, t); !s) return s;
  if (Status s = check_numbers(t, t.data); !s) return s;
  if (Status s = decode(q, t.format, t.data.data(), w.size(), x); !s)
    return Error{"tensor " + name + ": " + s.error().message};
  for (std::int64_t i = 0; w.divisor != 1.f && i < w.size(); ++i) x[i] *= w.divisor;
  for (std::int64_t i = 0; w.minus_exp && i < w.size(); ++i) {
    if (!(x[i] < 0)) return Error{"tensor " + name + ": expected numbers below 0, found " + std::to_string(x[i])};
    x[i] = std::log(-x[i]);
  }
  if (w.head > 0) {
    auto buffer = Buffer::create(static_cast<std::size_t>(w.head * w.cols));
    if (!buffer) return buffer.error();
    turn_heads(w, x, buffer->data());
  }
  return {};
}

/// An error that names a tensor of the file which is neither in the table nor passed over.
template <class Tensors, class F>
Status check_all_known(const Tensors& tensors, std::span<const FileWeight> table, F&& passed_over) {
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
Status store_weight(const Cpu& q, const FileWeight& w, Format format, const float* arena, F&& append) {
  const std::int64_t rows = std::clamp<std::int64_t>((std::int64_t{1} << 20) / w.cols, 1, w.rows);
  auto values = Buffer::create(static_cast<std::size_t>(rows * w.cols));
  if (!values) return values.error();
  std::vector<std::byte> bytes;
  for (std::int64_t first = 0; first < w.rows; first += rows) {
    const std::int64_t count = std::min(rows, w.rows - first), n = count * w.cols;
    for (std::int64_t r = 0; r < count; ++r)
      std::copy_n(arena + w.offset + w.our_row(first + r) * w.cols, w.cols, values->data() + r * w.cols);
    for (std::int64_t i = 0; w.minus_exp && i < n; ++i) values->data()[i] = -std::exp(values->data()[i]);
    for (std::int64_t i = 0; w.ternary && i < n; ++i)
      values->data()[i] = std::clamp(std::round(values->data()[i] / w.divisor), -1.f, 1.f);
    bytes.resize(static_cast<std::size_t>(format_bytes(format, n)));
    if (Status s = encode(q, format, values->data(), n, bytes.data()); !s)
      return Error{"tensor " + w.name + ": " + s.error().message};
    if (Status s = append(std::span<const std::byte>(bytes)); !s) return s;
  }
  return {};
}

}  // namespace chimera::inline CHIMERA_ABI
