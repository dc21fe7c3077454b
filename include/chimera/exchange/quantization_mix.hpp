// Which format each tensor of a quantized GGUF file has. A file is named after the format of most of its matrices, or
// after a mix; the rules are those of llama.cpp's quantizer, so that files of one name have one size and one quality.
#pragma once

#include <chimera/config/size.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/exchange/weights.hpp>
#include <chimera/io/gguf.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace chimera::inline CHIMERA_ABI {

/// A kind of file: what --format and general.file_type say.
struct FileType {
  std::string_view name;
  std::uint32_t id;  // general.file_type
  Format format;     // of most matrices
  /// Which tensors get more bits: small a few, medium more of them.
  enum class Mix { none, s, m } mix = Mix::none;
};

inline constexpr std::array file_types{
    FileType{"F32", 0, Format::f32},
    FileType{"F16", 1, Format::f16},
    FileType{"BF16", 32, Format::bf16},
    FileType{"Q8_0", 7, Format::q8_0},
    FileType{"Q4_0", 2, Format::q4_0},
    FileType{"Q4_1", 3, Format::q4_1},
    FileType{"Q5_0", 8, Format::q5_0},
    FileType{"Q5_1", 9, Format::q5_1},
    FileType{"Q4_K_S", 14, Format::q4_k, FileType::Mix::s},
    FileType{"Q4_K_M", 15, Format::q4_k, FileType::Mix::m},
    FileType{"Q5_K_S", 16, Format::q5_k, FileType::Mix::s},
    FileType{"Q5_K_M", 17, Format::q5_k, FileType::Mix::m},
    FileType{"Q6_K", 18, Format::q6_k},
    FileType{"TQ1_0", 36, Format::tq1_0},
    FileType{"TQ2_0", 37, Format::tq2_0},
};

/// Null if there is none of that name, in either case. Q4_K and Q5_K mean their medium mixes.
constexpr const FileType* file_type_named(std::string_view name) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  const auto same = [&](std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
  };
  if (same(name, "Q4_K")) name = "Q4_K_M";
  if (same(name, "Q5_K")) name = "Q5_K_M";
  for (const FileType& t : file_types)
    if (same(t.name, name)) return &t;
  return nullptr;
}

/// What a tensor's name says of it: whether its weights are a product's matrix, and how many bits they get.
struct NamedWeight {
  bool matrix = false;
  MoreBits bits = MoreBits::none;
  bool holds_values = false;  // with other parts of the same weight
};

/// Of a tensor of ours or of llama.cpp's; else, of a layer that is not known here: a matrix is what is called weight,
/// is no norm, and has several rows.
NamedWeight named_weight(std::string_view name);

/// The formats of one model's tensors. Some depend on which of the model's layers they belong to.
class QuantizationMix {
 public:
  QuantizationMix(const FileType& type, std::span<const GgufTensor> tensors);

  /// Norms, biases, convolutions and whatever else is no matrix stay as they are.
  static bool is_quantized(const GgufTensor& t) {
    return t.ne[1] * t.ne[2] * t.ne[3] > 1 && named_weight(t.name).matrix;
  }

  Format format_of(const GgufTensor& t) const;

 private:
  /// The block of "blk.3.name", else -1.
  static int block_of(std::string_view name);

  /// The place of a block among those that have such a tensor.
  struct Place {
    std::int64_t i, n;
    bool first_eighth() const { return i < n / 8; }
    /// The outer eighths, and a third of those between.
    bool more_bits() const { return first_eighth() || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }
  };
  static Place place(const std::vector<int>& blocks, std::string_view name);

  /// For rows of any length.
  Format wanted(const GgufTensor& t) const;

  /// The nearest format whose blocks fill rows of n numbers.
  static Format fitting(Format format, std::int64_t n);

  FileType type_;
  std::string_view head_ = "token_embd.weight";
  std::vector<int> values_, downs_;  // blocks with such matrices
};

}  // namespace chimera::inline CHIMERA_ABI

#if CHIMERA_BODIES
namespace chimera::inline CHIMERA_ABI {

CHIMERA_FUNCTION NamedWeight named_weight(std::string_view name) {
  std::string_view rest = name;
  if (name.starts_with("blk.")) rest.remove_prefix(std::min(name.size(), name.find('.', 4) + 1));
  NamedWeight found{.matrix = name.ends_with(".weight") && !name.ends_with("_norm.weight")};
  std::string_view ours = rest;
  weight_parts::each_row([&](const FileRow& row) {
    if (row.gguf.name == rest) ours = row.ours, found.bits = row.bits;
    if (row.ours == rest && row.part >= 0 && row.bits == MoreBits::value) found.holds_values = true;
  });
  each_known_weight([&](const Tensor& t) {
    if (t.name == ours) found.matrix = t.role == Role::matrix;
  });
  return found;
}

CHIMERA_FUNCTION QuantizationMix::QuantizationMix(const FileType& type, std::span<const GgufTensor> tensors)
    : type_(type) {
  for (const GgufTensor& t : tensors) {
    if (t.name == "output.weight") head_ = "output.weight";
    const MoreBits bits = named_weight(t.name).bits;
    if (bits == MoreBits::value) values_.push_back(block_of(t.name));
    if (bits == MoreBits::down) downs_.push_back(block_of(t.name));
  }
  std::sort(values_.begin(), values_.end());
  std::sort(downs_.begin(), downs_.end());
}

CHIMERA_FUNCTION Format QuantizationMix::format_of(const GgufTensor& t) const {
  if (!is_quantized(t)) return t.format;
  return fitting(wanted(t), t.ne[0]);
}

CHIMERA_FUNCTION int QuantizationMix::block_of(std::string_view name) {
  int block = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), block);
  return block;
}

CHIMERA_FUNCTION QuantizationMix::Place QuantizationMix::place(const std::vector<int>& blocks, std::string_view name) {
  const auto at = std::lower_bound(blocks.begin(), blocks.end(), block_of(name));
  return {at - blocks.begin(), static_cast<std::int64_t>(blocks.size())};
}

CHIMERA_FUNCTION Format QuantizationMix::wanted(const GgufTensor& t) const {
  if (format_info(type_.format)->values == 1 || type_.format == Format::q8_0) return type_.format;
  const bool ternary = type_.format == Format::tq1_0 || type_.format == Format::tq2_0;
  const bool four_bits = type_.format == Format::q4_k;
  if (t.name == head_) return t.ne[0] % 256 == 0 ? Format::q6_k : Format::q8_0;
  if (t.name == "token_embd.weight" && ternary) return Format::q4_k;
  const NamedWeight named = named_weight(t.name);
  if (named.holds_values && type_.mix == FileType::Mix::m) return four_bits ? Format::q5_k : Format::q6_k;
  const bool value = named.bits == MoreBits::value;
  if (named.bits == MoreBits::none) return type_.format;
  const Place p = place(value ? values_ : downs_, t.name);
  if (type_.mix == FileType::Mix::m && p.more_bits()) return Format::q6_k;
  if (type_.mix == FileType::Mix::s && four_bits && (value ? p.i < 4 : p.first_eighth())) return Format::q5_k;
  return type_.format;
}

CHIMERA_FUNCTION Format QuantizationMix::fitting(Format format, std::int64_t n) {
  if (n % format_info(format)->values == 0) return format;
  if (n % 32 != 0) return Format::f16;
  switch (format) {
    case Format::q4_k: return Format::q5_0;
    case Format::q5_k: return Format::q5_1;
    case Format::q6_k: return Format::q8_0;
    default: return Format::q4_0;  // ternary
  }
}

}  // namespace chimera::inline CHIMERA_ABI
#endif
