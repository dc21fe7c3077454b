// How the numbers of a matrix are stored. The ids are GGUF's tensor types.
#pragma once

#include <chimera/core/version.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace chimera {

enum class Format : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
};

/// Rows are stored in blocks of `values` numbers, `bytes` each.
struct FormatInfo {
  Format format;
  std::string_view name;  // as llama.cpp prints it
  std::int64_t values, bytes;
};

inline constexpr std::array formats{
    FormatInfo{Format::f32, "F32", 1, 4},        FormatInfo{Format::f16, "F16", 1, 2},
    FormatInfo{Format::q4_0, "Q4_0", 32, 18},    FormatInfo{Format::q4_1, "Q4_1", 32, 20},
    FormatInfo{Format::q5_0, "Q5_0", 32, 22},    FormatInfo{Format::q5_1, "Q5_1", 32, 24},
    FormatInfo{Format::q8_0, "Q8_0", 32, 34},    FormatInfo{Format::q4_k, "Q4_K", 256, 144},
    FormatInfo{Format::q5_k, "Q5_K", 256, 176},  FormatInfo{Format::q6_k, "Q6_K", 256, 210},
    FormatInfo{Format::i8, "I8", 1, 1},          FormatInfo{Format::i16, "I16", 1, 2},
    FormatInfo{Format::i32, "I32", 1, 4},        FormatInfo{Format::i64, "I64", 1, 8},
    FormatInfo{Format::f64, "F64", 1, 8},        FormatInfo{Format::bf16, "BF16", 1, 2},
    FormatInfo{Format::tq1_0, "TQ1_0", 256, 54}, FormatInfo{Format::tq2_0, "TQ2_0", 256, 66},
};

/// Null for an id that is unknown, or retired.
constexpr const FormatInfo* format_info(Format format) {
  for (const FormatInfo& f : formats)
    if (f.format == format) return &f;
  return nullptr;
}

/// By name, in either case: "q4_0".
constexpr std::optional<Format> format_named(std::string_view name) {
  const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; };
  for (const FormatInfo& f : formats) {
    bool same = f.name.size() == name.size();
    for (std::size_t i = 0; same && i < name.size(); ++i) same = f.name[i] == upper(name[i]);
    if (same) return f.format;
  }
  return std::nullopt;
}

/// Bytes of n numbers, which must be whole blocks.
constexpr std::int64_t format_bytes(Format format, std::int64_t n) {
  const FormatInfo* f = format_info(format);
  return n / f->values * f->bytes;
}

}  // namespace chimera
