// What a layer says of the files of others: which of their tensors hold its weights, and how; the names of its numbers,
// both ways; where there is no model like it. One file for each layer in layers/, all of them listed in layers.hpp.
#pragma once

#include <chimera/config/config.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/exchange/file_fields.hpp>
#include <chimera/exchange/json_members.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/gguf_writer.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

enum class Family : std::uint8_t {
  gguf,         // llama.cpp's granitehybrid, granite, llama
  gguf_halves,  // its bitnet, qwen2, qwen3: channels turn in halves
  gguf_qwen35,  // its qwen35, where they do, too
  granite,      // GraniteMoeHybridForCausalLM
  llama,        // LlamaForCausalLM, and those of Mistral, Qwen2, Qwen3, Granite and BitNet, called as its
  qwen3_5,      // Qwen3_5ForCausalLM, whose tensors are called so, too
  xlstm,        // xLSTMForCausalLM
  griffin,      // RecurrentGemmaForCausalLM
  own,          // our table as it is
};

constexpr bool is_hugging_face(Family family) {
  return family == Family::granite || family == Family::llama || family == Family::qwen3_5 || family == Family::xlstm ||
         family == Family::griffin;
}

/// What the names of a block's tensors begin with, before its number.
constexpr std::string_view block_prefix(Family family) {
  return family == Family::xlstm ? "backbone.blocks." : is_hugging_face(family) ? "model.layers." : "blk.";
}

/// Whether all multipliers of the model's own are the usual ones.
constexpr bool has_plain_scales(const Config& c) {
  return c.embedding_scale == 1 && c.residual_scale == 1 && c.logit_scale == 1;
}

/// A tensor as a file holds it.
struct StoredTensor {
  std::string_view name;
  std::vector<std::int64_t> shape;  // slowest first
  Format format = Format::f32;
  std::span<const std::byte> data;
  std::size_t index = 0;  // among the tensors of its file
};

/// A tensor of a file and its place in the arena: rows of ours that follow one another.
struct FileWeight {
  std::string name;
  std::vector<std::int64_t> shape{};  // slowest first
  std::size_t tensor = 0;             // of AnyModel::tensors, of which it holds some rows
  std::int64_t first = 0;             // of these rows
  std::size_t offset = 0;             // floats from the start of the arena
  std::int64_t rows = 0, cols = 0;
  Role role = Role::vector;
  bool minus_exp = false;  // the file has -exp(ours)
  float divisor = 1.f;     // the file has ours / divisor
  bool ternary = false;    // the file has that rounded to -1, 0 or 1
  float minus = 0.f;       // the file has ours - minus
  // Where each row and each column of the file lies in ours; empty: both have one order.
  std::vector<std::int64_t> our_rows{}, our_cols{};
  StoredTensor stored{};  // in the file at hand, which must stay

  std::int64_t size() const { return rows * cols; }
  std::int64_t our_row(std::int64_t r) const { return our_rows.empty() ? r : our_rows[static_cast<std::size_t>(r)]; }
  std::int64_t our_col(std::int64_t c) const { return our_cols.empty() ? c : our_cols[static_cast<std::size_t>(c)]; }
  /// Which row of the file each of ours is; empty as our_rows.
  std::vector<std::int64_t> file_rows() const;
};

/// Of norms: Qwen3.5 and RecurrentGemma have what is added to 1.
inline void zero_centred(FileWeight& w, const Config&, Family family) {
  if (family == Family::qwen3_5 || family == Family::griffin) w.minus = 1.f;
}

/// The tensor of a family's files that holds a weight, or a part of it.
struct FileTensor {
  std::string_view name{};  // of a block's, without the block; empty: these files have none like it
  /// Null: [rows, cols], or [n] for a vector.
  std::vector<std::int64_t> (*shape)(const Config&, std::int64_t rows, std::int64_t cols) = nullptr;
  bool minus_exp = false;  // it has -exp(ours)
};

/// What llama.cpp's quantizer makes of a matrix: some get more bits than the file is named after.
enum class MoreBits : std::uint8_t { none, value, down };

/// One row for each tensor, a column for each family.
struct FileRow {
  std::string_view ours;  // its name in the layer's table of weights
  FileTensor gguf{}, granite{}, llama{}, xlstm{}, griffin{};
  FileTensor qwen35{};  // empty: as gguf
  int part = -1;        // of our weight's parts; -1: all of it
  MoreBits bits = MoreBits::none;
  /// What else there is to say of it.
  void (*adapt)(FileWeight&, const Config&, Family) = nullptr;

  constexpr const FileTensor& in(Family family) const {
    if (family == Family::granite) return granite;
    if (family == Family::xlstm) return xlstm;
    if (family == Family::griffin) return griffin;
    if (is_hugging_face(family)) return llama;
    return family == Family::gguf_qwen35 && !qwen35.name.empty() ? qwen35 : gguf;
  }
};

/// A tensor of numbers that are no weights.
struct FileNumbers {
  std::string_view name;
  std::vector<float> values;  // none: the file has no such tensor
};

/// Metadata of a GGUF file; keys get the architecture as their prefix.
struct GgufKeys {
  const Gguf& file;
  std::string_view architecture;
  FileFields<Gguf>& fields;
};

struct GgufNumbers {
  GgufWriter& file;
  std::string_view architecture;

  template <class T>
  void set(std::string_view key, const T& value) const {
    file.set(std::string(architecture) + "." + std::string(key), value);
  }
  void number(std::string_view key, std::int64_t value) const { set(key, static_cast<std::uint32_t>(value)); }
  /// granite and granitehybrid have multipliers.
  bool granite() const { return architecture.starts_with("granite"); }
};

/// Members of a config.json of that model_type: granitemoehybrid, granite, llama, mistral, qwen2, qwen3, qwen3_5_text,
/// bitnet, xlstm or recurrent_gemma.
struct JsonKeys {
  const JsonFields& json;
  FileFields<JsonFields>& fields;
  std::string_view type;

  /// Models of several kinds of layers.
  bool hybrid() const { return type == "granitemoehybrid" || qwen3_5(); }
  bool granite_hybrid() const { return type == "granitemoehybrid"; }
  bool qwen3_5() const { return type == "qwen3_5_text"; }
  bool xlstm() const { return type == "xlstm"; }
  bool griffin() const { return type == "recurrent_gemma"; }
  /// They have multipliers.
  bool granite() const { return type.starts_with("granite"); }
  /// `absent`: what a key stands for that is not there; null stands for `null`.
  int integer_or(std::string_view key, int low, int high, int absent, int null) const {
    return fields.integer(key, low, high, json.is_null(key) ? null : absent);
  }
  void demand_flag(std::string_view key, bool expected, bool otherwise) const;
};

/// Whether a config has mixers of that kind; none: feed-forward layers of that one.
constexpr bool is_used(std::optional<Kind> kind, Ffn ffn, const Config& c) {
  return kind ? has_kind(c, *kind) : has_ffn(c, ffn);
}

/// Whether a family of files has layers with these rows.
constexpr bool is_known(std::span<const FileRow> rows, Family family) {
  return !rows.empty() && !rows[0].in(family).name.empty();
}

/// All of a layer. A null function has nothing to say.
struct LayerFiles {
  std::optional<Kind> kind;  // of a mixer; none: a feed-forward layer,
  Ffn ffn = Ffn::swiglu;     // this one
  std::span<const FileRow> rows;

  // llama.cpp. `architecture`: what models with the layer are; empty: anything. `dense`: what a model of this layer alone
  // and without multipliers is. `blocks` gives the layer the blocks that are its.
  std::string_view architecture{};
  bool in_bitnet = false;
  std::string_view (*dense)(const Config&) = nullptr;
  std::string (*unknown_to_llama_cpp)(const Config&) = nullptr;
  void (*gguf_blocks)(const GgufKeys&, Config&) = nullptr;
  Result<void> (*read_gguf)(const GgufKeys&, Config&) = nullptr;
  void (*write_gguf)(const GgufNumbers&, const Config&) = nullptr;
  FileNumbers (*gguf_tensor)(const Config&) = nullptr;

  // transformers. `words`: of the layer in layer_types, the one that is written first. `json_blocks`: as gguf_blocks, for
  // files that have no such list. `dense_type`: as `dense`, its model_type. The others get that, too.
  std::span<const std::string_view> words{};
  std::string_view (*dense_type)(const Config&) = nullptr;
  void (*json_blocks)(const JsonKeys&, Config&) = nullptr;
  std::string (*unknown_to_transformers)(const Config&, std::string_view type) = nullptr;
  void (*read_json)(const JsonKeys&, Config&) = nullptr;
  void (*write_json)(JsonMembers&, const Config&, std::string_view type) = nullptr;

  /// A tensor of a file that holds no weight.
  bool (*passed_over)(std::string_view name) = nullptr;
  /// Makes numbers equal that mean the same in both; false if what they mean differs although the numbers do not.
  bool (*same_meaning)(Config&, Config&) = nullptr;

  bool used(const Config& c) const { return is_used(kind, ffn, c); }
  bool known(Family family) const { return is_known(rows, family); }
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION std::vector<std::int64_t> FileWeight::file_rows() const {
  std::vector<std::int64_t> of(our_rows.size());
  for (std::size_t r = 0; r < of.size(); ++r) of[static_cast<std::size_t>(our_rows[r])] = static_cast<std::int64_t>(r);
  return of;
}

CHIMERA_FUNCTION void JsonKeys::demand_flag(std::string_view key, bool expected, bool otherwise) const {
  fields.demand(fields.boolean(key, otherwise) == expected,
                "\"" + std::string(key) + "\": expected " + (expected ? "true" : "false"));
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
