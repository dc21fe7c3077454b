// GGUF: a model's metadata and tensors in one file (llama.cpp's container; ggml/docs/gguf.md). Versions 2 and 3 are
// read, 3 is written.
//
//   "GGUF", u32 version, u64 tensors, u64 entries
//   entries: text key, u32 type, value          text: u64 length, bytes          array: u32 type, u64 count, values
//   tensors: text name, u32 dims, u64 ne[dims], u32 format, u64 offset into the data
//   zeros up to the alignment, then the data; each tensor starts on the alignment
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/format.hpp>
#include <chimera/core/memory.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/tensor_file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace chimera {

static_assert(std::endian::native == std::endian::little, "chimera: GGUF files are little-endian");

/// Types of metadata.
enum class GgufType : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// What a file may ask for. With the defaults nothing here allocates more than the file's size and 64 MiB.
struct GgufLimits {
  std::uint64_t tensors = 65536, entries = 65536;
  std::uint64_t key_bytes = 65536, name_bytes = 63;
  std::uint64_t text_bytes = 16 << 20;   // of one string
  std::uint64_t array_values = 4 << 20;  // of one array
  std::uint32_t alignment = 64 << 10;
};

/// A value of the metadata, as the file holds it.
struct GgufValue {
  GgufType type;
  GgufType element;                  // of an array's values; else `type`
  std::int64_t count;                // of an array's values; else 1
  std::span<const std::byte> bytes;  // what follows the type: a number, or a string's or an array's length and content

  bool is_array() const { return type == GgufType::array; }
};

struct GgufEntry {
  std::string_view key;
  GgufValue value;
};

/// A tensor in a file: `size()` numbers, rows of ne[0] of them.
struct GgufTensor {
  std::string name;
  int dims = 0;
  std::array<std::int64_t, 4> ne{1, 1, 1, 1};  // fastest first; 1 beyond dims
  Format format = Format::f32;
  std::span<const std::byte> data;

  std::int64_t size() const { return ne[0] * ne[1] * ne[2] * ne[3]; }
};

namespace gguf_parts {

/// Bytes of a number in a file; 0 for a string, an array and an unknown type.
constexpr std::size_t gguf_bytes(GgufType type) {
  constexpr std::array<std::size_t, 13> bytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto i = static_cast<std::size_t>(type);
  return i < bytes.size() ? bytes[i] : 0;
}

constexpr std::string_view gguf_name(GgufType type) {
  constexpr std::array<std::string_view, 13> names{"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                   "bool", "string", "array", "u64", "i64", "f64"};
  return names[static_cast<std::size_t>(type)];
}

template <class T>
T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// A number of any type, as f(value) sees it.
template <class F>
auto gguf_number(GgufType type, const std::byte* p, F&& f) {
  switch (type) {
    case GgufType::i8: return f(load<std::int8_t>(p));
    case GgufType::u16: return f(load<std::uint16_t>(p));
    case GgufType::i16: return f(load<std::int16_t>(p));
    case GgufType::u32: return f(load<std::uint32_t>(p));
    case GgufType::i32: return f(load<std::int32_t>(p));
    case GgufType::f32: return f(load<float>(p));
    case GgufType::u64: return f(load<std::uint64_t>(p));
    case GgufType::i64: return f(load<std::int64_t>(p));
    case GgufType::f64: return f(load<double>(p));
    default: return f(load<std::uint8_t>(p));  // u8, bool
  }
}

}  // namespace gguf_parts

/// A file that is open for reading: all of its header is checked and copied, nothing of its data is touched. Spans,
/// views and pointers handed out live as long as this (and, after `parse`, as the caller's bytes).
///
/// A model in several files, NAME-00001-of-00003.gguf and so on, is opened by any of them: it has the tensors of all, and
/// the metadata of the first.
class Gguf {
 public:
  static constexpr std::int64_t most_parts = 512;

  /// Maps the data and copies the header; see MappedFile for what must not happen to the file meanwhile.
  static Result<Gguf> open(const std::string& path, const GgufLimits& limits = {}) { return of(path, limits, true); }

  /// Reads all of it into memory.
  static Result<Gguf> read(const std::string& path, const GgufLimits& limits = {}) { return of(path, limits, false); }

  /// Reads a file that is in memory already. Its bytes must stay where they are.
  static Result<Gguf> parse(std::span<const std::byte> bytes, const GgufLimits& limits = {});

  /// The version of the format: 2 or 3.
  std::uint32_t version() const { return version_; }

  /// The tensors, in the order of the file.
  std::span<const GgufTensor> tensors() const { return tensors_; }
  /// The tensor of that name; null if there is none.
  const GgufTensor* tensor(std::string_view name) const { return tensor_index_.find(tensors_, name_of, name); }

  /// Copies the tensor's bytes from `at` on. Of a mapped file that has become shorter it is an error, where touching
  /// `data` would end the process.
  Result<void> read(const GgufTensor& t, std::size_t at, std::span<std::byte> to) const;

  /// The metadata, in the order of the file.
  std::span<const GgufEntry> entries() const { return entries_; }
  /// The value of that key; null if there is none.
  const GgufValue* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  /// A value of any integer type.
  Result<std::int64_t> integer(std::string_view key) const;

  /// A value of any integer or floating-point type.
  Result<double> number(std::string_view key) const;

  Result<bool> boolean(std::string_view key) const;

  Result<std::string_view> text(std::string_view key) const;

  Result<std::vector<std::string_view>> texts(std::string_view key) const;

  /// An array of any integer type, or of bools.
  Result<std::vector<std::int64_t>> integers(std::string_view key) const;

  /// An array of any integer or floating-point type.
  Result<std::vector<double>> numbers(std::string_view key) const;

 private:
  static Result<Gguf> of(const std::string& path, const GgufLimits& limits, bool mapped);
  /// That file alone.
  static Result<Gguf> one(const std::string& path, const GgufLimits& limits, bool mapped);
  static Result<Gguf> parse_one(std::span<const std::byte> bytes, const GgufLimits& limits);

  /// "part 2 of 3"; "whole" of a file that is no part.
  std::string part() const;
  /// Puts the tensors of all parts together, of which this is the first.
  Result<void> join(std::vector<Gguf> others, const GgufLimits& limits);

  /// Reads the header again, from memory of its own: what becomes of the file does not matter to it any more.
  Result<void> own_header(const MappedFile& file, const GgufLimits& limits);

  static bool is_number(GgufType t) { return gguf_parts::gguf_bytes(t) > 0 && t != GgufType::boolean; }
  static bool is_integer(GgufType t) { return is_number(t) && t != GgufType::f32 && t != GgufType::f64; }

  /// The number as an integer; nothing if it does not fit.
  static std::optional<std::int64_t> as_integer(GgufType type, const std::byte* p);
  static double as_number(GgufType type, const std::byte* p) {
    return gguf_parts::gguf_number(type, p, [](auto value) { return static_cast<double>(value); });
  }
  static std::string_view as_text(const std::byte* p) {
    return {reinterpret_cast<const char*>(p + 8), static_cast<std::size_t>(gguf_parts::load<std::uint64_t>(p))};
  }
  /// Where an array's values begin: behind their type and count.
  static const std::byte* values_of(const GgufValue& array) { return array.bytes.data() + 12; }

  static std::string_view name_of(const GgufTensor& t) { return t.name; }
  static std::string_view key_of(const GgufEntry& e) { return e.key; }

  /// The error of a key whose value is not what was asked for.
  Error wrong(std::string_view key, std::string_view expected) const;

  // Reading goes from the front of left_. Every size is held against it before it is used.

  bool skip(std::uint64_t n);
  template <class T>
  bool take(T& value) {
    if (left_.size() < sizeof value) return false;
    value = gguf_parts::load<T>(left_.data());
    return skip(sizeof value);
  }
  /// A key or a name.
  Result<void> take_name(std::string_view& name, std::uint64_t most, const std::string& whose);

  /// `header` is the start of the file, or a copy of it.
  Result<void> read_header(std::span<const std::byte> header, std::span<const std::byte> file,
                           const GgufLimits& limits);

  Result<void> read_entry(GgufEntry& e, const GgufLimits& limits);

  Result<void> read_tensor(GgufTensor& t, const GgufLimits& limits, std::uint64_t unit, std::uint64_t& end,
                           std::uint64_t& offset, std::uint64_t& size);

  MappedFile file_;
  std::vector<Gguf> others_;  // the other parts, whose tensors are here
  Buffer header_;             // of a mapped file
  std::string source_ = "GGUF";
  std::span<const std::byte> left_;
  std::size_t header_bytes_ = 0;
  std::uint32_t version_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  tensor_file_parts::NameIndex entry_index_, tensor_index_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

namespace gguf_parts {

/// Whether a key or a tensor's name may be that long.
inline Result<void> check_length(std::uint64_t bytes, std::uint64_t most, const std::string& whose) {
  if (bytes > 0 && bytes <= most) return {};
  return Error{whose + " has " + std::to_string(bytes) + " bytes, 1 to " + std::to_string(most) + " were expected"};
}

inline Result<void> check_name(std::string_view name, std::uint64_t most, const std::string& whose) {
  if (Result<void> s = check_length(name.size(), most, whose); !s) return s;
  if (!tensor_file_parts::printable(name)) return Error{whose + " is not printable UTF-8"};
  return {};
}

/// Bytes of a tensor of this shape; an error says why there is none.
inline Result<std::uint64_t> gguf_tensor_bytes(std::span<const std::int64_t> ne, Format format) {
  const FormatInfo* info = format_info(format);
  if (!info) return Error{"has the unknown format " + std::to_string(static_cast<std::uint32_t>(format))};
  if (ne.empty() || ne.size() > 4)
    return Error{"has " + std::to_string(ne.size()) + " dimensions, 1 to 4 were expected"};
  std::int64_t size = 1;
  for (std::int64_t n : ne) {
    if (n < 1) return Error{"has a dimension of " + std::to_string(n) + ", 1 or more was expected"};
    if (__builtin_mul_overflow(size, n, &size)) return Error{"has more than 2^63 numbers"};
  }
  if (ne[0] % info->values != 0)
    return Error{"has rows of " + std::to_string(ne[0]) + " numbers, and " + std::string(info->name) +
                 " takes blocks of " + std::to_string(info->values)};
  std::int64_t bytes = 0;
  if (__builtin_mul_overflow(size / info->values, info->bytes, &bytes)) return Error{"has more than 2^63 bytes"};
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace gguf_parts

CHIMERA_FUNCTION Result<Gguf> Gguf::parse(std::span<const std::byte> bytes, const GgufLimits& limits) {
  auto gguf = parse_one(bytes, limits);
  if (gguf && gguf->part() != "whole")
    return Error{"it is " + gguf->part() + " of a model: expected all of it, or to be opened by its name"};
  return gguf;
}

CHIMERA_FUNCTION Result<Gguf> Gguf::parse_one(std::span<const std::byte> bytes, const GgufLimits& limits) {
  Gguf gguf;
  if (Result<void> s = gguf.read_header(bytes, bytes, limits); !s) return s.error();
  return gguf;
}

CHIMERA_FUNCTION Result<void> Gguf::read(const GgufTensor& t, std::size_t at, std::span<std::byte> to) const {
  if (at > t.data.size() || to.size() > t.data.size() - at)
    return Error{"tensor " + t.name + " has " + std::to_string(t.data.size()) + " bytes, " + std::to_string(to.size()) +
                 " from byte " + std::to_string(at) + " were asked for"};
  for (const Gguf& other : others_) {
    const std::span<const std::byte> theirs = other.file_.bytes();
    if (!std::less<>()(t.data.data(), theirs.data()) && std::less<>()(t.data.data(), theirs.data() + theirs.size()))
      return other.read(t, at, to);
  }
  if (file_.bytes().empty()) {
    std::memcpy(to.data(), t.data.data() + at, to.size());
    return {};
  }
  const Result<void> s = file_.read(static_cast<std::size_t>(t.data.data() - file_.bytes().data()) + at, to);
  if (!s) return Error{"tensor " + t.name + ": " + s.error().message};
  return {};
}

CHIMERA_FUNCTION const GgufValue* Gguf::find(std::string_view key) const {
  const GgufEntry* e = entry_index_.find(entries_, key_of, key);
  return e ? &e->value : nullptr;
}

CHIMERA_FUNCTION Result<std::int64_t> Gguf::integer(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || !is_integer(v->type)) return wrong(key, "an integer");
  const auto value = as_integer(v->type, v->bytes.data());
  if (!value) return wrong(key, "an integer below 2^63");
  return *value;
}

CHIMERA_FUNCTION Result<double> Gguf::number(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || !is_number(v->type)) return wrong(key, "a number");
  return as_number(v->type, v->bytes.data());
}

CHIMERA_FUNCTION Result<bool> Gguf::boolean(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || v->type != GgufType::boolean) return wrong(key, "a bool");
  return v->bytes[0] != std::byte{0};
}

CHIMERA_FUNCTION Result<std::string_view> Gguf::text(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || v->type != GgufType::text) return wrong(key, "a string");
  return as_text(v->bytes.data());
}

CHIMERA_FUNCTION Result<std::vector<std::string_view>> Gguf::texts(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || !v->is_array() || v->element != GgufType::text) return wrong(key, "an array of strings");
  std::vector<std::string_view> values;
  values.reserve(static_cast<std::size_t>(v->count));
  const std::byte* p = values_of(*v);
  for (std::int64_t i = 0; i < v->count; ++i) {
    values.push_back(as_text(p));
    p += 8 + values.back().size();
  }
  return values;
}

CHIMERA_FUNCTION Result<std::vector<std::int64_t>> Gguf::integers(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || !v->is_array() || !(is_integer(v->element) || v->element == GgufType::boolean))
    return wrong(key, "an array of integers");
  std::vector<std::int64_t> values(static_cast<std::size_t>(v->count));
  const std::byte* p = values_of(*v);
  for (std::int64_t& value : values) {
    const auto converted = as_integer(v->element, p);
    if (!converted) return wrong(key, "an array of integers below 2^63");
    value = *converted;
    p += gguf_parts::gguf_bytes(v->element);
  }
  return values;
}

CHIMERA_FUNCTION Result<std::vector<double>> Gguf::numbers(std::string_view key) const {
  const GgufValue* v = find(key);
  if (!v || !v->is_array() || !is_number(v->element)) return wrong(key, "an array of numbers");
  std::vector<double> values(static_cast<std::size_t>(v->count));
  const std::byte* p = values_of(*v);
  for (double& value : values) {
    value = as_number(v->element, p);
    p += gguf_parts::gguf_bytes(v->element);
  }
  return values;
}

CHIMERA_FUNCTION Result<Gguf> Gguf::one(const std::string& path, const GgufLimits& limits, bool mapped) {
  auto file = mapped ? MappedFile::open(path) : MappedFile::copy(path);
  if (!file) return file.error();
  const auto failed = [&](const Error& e) { return Error{"cannot read " + path + ": " + e.message}; };
  auto gguf = parse_one(file->bytes(), limits);
  if (!gguf) return failed(gguf.error());
  if (mapped)
    if (Result<void> s = gguf->own_header(*file, limits); !s) return failed(s.error());
  gguf->file_ = std::move(*file);
  gguf->source_ = path;
  return gguf;
}

CHIMERA_FUNCTION Result<Gguf> Gguf::of(const std::string& path, const GgufLimits& limits, bool mapped) {
  auto gguf = one(path, limits, mapped);
  if (!gguf || gguf->part() == "whole") return gguf;
  const auto failed = [&](const std::string& why) { return Error{"cannot read " + path + ": " + why}; };
  const std::string found = gguf->part();
  const std::int64_t index = gguf->integer("split.no") ? *gguf->integer("split.no") : -1;
  const std::int64_t count = gguf->integer("split.count") ? *gguf->integer("split.count") : 0;
  if (count < 1 || count > most_parts || index < 0 || index >= count)
    return failed("it is " + found + ", where 1 to " + std::to_string(most_parts) + " parts were expected");
  const auto ending = [&](std::int64_t part) {
    char text[40];
    std::snprintf(text, sizeof text, "-%05d-of-%05d.gguf", static_cast<int>(part + 1), static_cast<int>(count));
    return std::string(text);
  };
  if (!path.ends_with(ending(index)))
    return failed("it is " + found + ": expected a name that ends with " + ending(index));
  const std::string name = path.substr(0, path.size() - ending(index).size());

  std::vector<Gguf> parts;
  for (std::int64_t i = 0; i < count; ++i) {
    auto part = one(name + ending(i), limits, mapped);
    if (!part) return failed("it is " + found + ", and " + part.error().message);
    const auto its = part->integer("split.no"), all = part->integer("split.count");
    if (!its || *its != i || !all || *all != count)
      return failed("expected part " + std::to_string(i + 1) + " of " + std::to_string(count) + " in " + name +
                    ending(i) + ", found " + part->part());
    parts.push_back(std::move(*part));
  }
  Gguf first = std::move(parts.front());
  parts.erase(parts.begin());
  if (Result<void> s = first.join(std::move(parts), limits); !s) return failed(s.error().message);
  return first;
}

CHIMERA_FUNCTION std::string Gguf::part() const {
  const auto count = integer("split.count"), index = integer("split.no");
  if (!has("split.count") || (count && *count <= 1)) return "whole";
  const auto number = [](const Result<std::int64_t>& n, std::int64_t more) {
    return n && *n < INT32_MAX ? std::to_string(*n + more) : std::string("?");
  };
  return "part " + number(index, 1) + " of " + number(count, 0);
}

CHIMERA_FUNCTION Result<void> Gguf::join(std::vector<Gguf> others, const GgufLimits& limits) {
  others_ = std::move(others);
  for (Gguf& other : others_) {
    if (tensors_.size() + other.tensors_.size() > limits.tensors)
      return Error{"its parts hold more tensors than they may"};
    std::move(other.tensors_.begin(), other.tensors_.end(), std::back_inserter(tensors_));
    other.tensors_.clear();
  }
  const auto all = integer("split.tensors.count");
  if (all && *all != static_cast<std::int64_t>(tensors_.size()))
    return Error{"expected " + std::to_string(*all) + " tensors in all parts, found " +
                 std::to_string(tensors_.size()) + ": they are not of one model"};
  return tensor_index_.build(tensors_, name_of, "tensors");
}

CHIMERA_FUNCTION Result<void> Gguf::own_header(const MappedFile& file, const GgufLimits& limits) {
  auto copy = Buffer::create((header_bytes_ + sizeof(float) - 1) / sizeof(float));
  if (!copy) return copy.error();
  const std::span bytes(reinterpret_cast<std::byte*>(copy->data()), header_bytes_);
  if (Result<void> s = file.read(0, bytes); !s) return s;
  header_ = std::move(*copy);
  return read_header(bytes, file.bytes(), limits);
}

CHIMERA_FUNCTION std::optional<std::int64_t> Gguf::as_integer(GgufType type, const std::byte* p) {
  return gguf_parts::gguf_number(type, p, [](auto value) -> std::optional<std::int64_t> {
    if constexpr (std::is_same_v<decltype(value), std::uint64_t>)
      if (value > INT64_MAX) return std::nullopt;
    return static_cast<std::int64_t>(value);
  });
}

CHIMERA_FUNCTION Error Gguf::wrong(std::string_view key, std::string_view expected) const {
  const GgufValue* v = find(key);
  const std::string start = source_ + ": metadata " + std::string(key);
  if (!v) return Error{start + " is missing, " + std::string(expected) + " was expected"};
  const std::string found = v->is_array() ? "an array of " + std::to_string(v->count) + " of type " : "of type ";
  return Error{start + " is " + found + std::string(gguf_parts::gguf_name(v->element)) + ", " + std::string(expected) +
               " was expected"};
}

CHIMERA_FUNCTION bool Gguf::skip(std::uint64_t n) {
  if (n > left_.size()) return false;
  left_ = left_.subspan(static_cast<std::size_t>(n));
  return true;
}

CHIMERA_FUNCTION Result<void> Gguf::take_name(std::string_view& name, std::uint64_t most, const std::string& whose) {
  std::uint64_t length = 0;
  if (!take(length)) return Error{"the file ends within " + whose};
  if (Result<void> s = gguf_parts::check_length(length, most, whose); !s) return s;
  name = {reinterpret_cast<const char*>(left_.data()), static_cast<std::size_t>(length)};
  if (!skip(length)) return Error{"the file ends within " + whose};
  return gguf_parts::check_name(name, most, whose);
}

CHIMERA_FUNCTION Result<void> Gguf::read_header(std::span<const std::byte> header, std::span<const std::byte> file,
                                                const GgufLimits& limits) {
  left_ = header;
  std::uint32_t magic = 0;
  if (!take(magic) || magic != 0x46554747) return Error{"it is not a GGUF file"};
  std::uint64_t tensors = 0, entries = 0;
  if (!take(version_)) return Error{"the file ends within its first bytes"};
  if ((version_ & 0xFFFF) == 0) return Error{"it is a GGUF file of the other byte order"};
  if (version_ != 2 && version_ != 3)
    return Error{"it is GGUF of version " + std::to_string(version_) + ", 2 or 3 was expected"};
  if (!take(tensors) || !take(entries)) return Error{"the file ends within its first bytes"};
  constexpr std::uint64_t least_entry = 8 + 1 + 4, least_tensor = 8 + 1 + 4 + 8 + 4 + 8;
  if (entries > limits.entries || entries > left_.size() / least_entry)
    return Error{"it claims " + std::to_string(entries) + " metadata entries, more than it may or can hold"};
  if (tensors > limits.tensors || tensors > left_.size() / least_tensor)
    return Error{"it claims " + std::to_string(tensors) + " tensors, more than it may or can hold"};

  entries_.assign(static_cast<std::size_t>(entries), {});
  for (GgufEntry& e : entries_)
    if (Result<void> s = read_entry(e, limits); !s) return s;
  if (Result<void> s = entry_index_.build(entries_, key_of, "metadata entries"); !s) return s;
  std::uint64_t unit = 32;
  if (const GgufValue* v = find("general.alignment")) {
    if (v->type != GgufType::u32) return Error{"metadata general.alignment is not of type u32"};
    unit = gguf_parts::load<std::uint32_t>(v->bytes.data());
    if (!std::has_single_bit(unit) || unit > limits.alignment)
      return Error{"metadata general.alignment is " + std::to_string(unit) + ", a power of two up to " +
                   std::to_string(limits.alignment) + " was expected"};
  }

  tensors_.assign(static_cast<std::size_t>(tensors), {});
  std::uint64_t end = 0;  // of the tensors so far, in the data, padded
  std::vector<std::uint64_t> offsets(tensors_.size()), sizes(tensors_.size());
  for (std::size_t i = 0; i < tensors_.size(); ++i)
    if (Result<void> s = read_tensor(tensors_[i], limits, unit, end, offsets[i], sizes[i]); !s) return s;
  if (Result<void> s = tensor_index_.build(tensors_, name_of, "tensors"); !s) return s;

  header_bytes_ = header.size() - left_.size();
  const std::uint64_t start = (header_bytes_ + unit - 1) / unit * unit;
  const auto data = file.subspan(static_cast<std::size_t>(std::min<std::uint64_t>(start, file.size())));
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    if (offsets[i] > data.size() || sizes[i] > data.size() - offsets[i])
      return Error{"tensor " + tensors_[i].name + " ends beyond the file: " + std::to_string(sizes[i]) +
                   " bytes at offset " + std::to_string(offsets[i]) + " of " + std::to_string(data.size())};
    tensors_[i].data = data.subspan(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(sizes[i]));
  }
  return {};
}

CHIMERA_FUNCTION Result<void> Gguf::read_entry(GgufEntry& e, const GgufLimits& limits) {
  if (Result<void> s = take_name(e.key, limits.key_bytes, "a metadata key"); !s) return s;
  const std::string whose = "metadata " + std::string(e.key);
  std::uint32_t type = 0;
  if (!take(type)) return Error{"the file ends within " + whose};
  if (type > static_cast<std::uint32_t>(GgufType::f64))
    return Error{whose + " is of the unknown type " + std::to_string(type)};
  GgufValue& v = e.value;
  v.type = v.element = static_cast<GgufType>(type);
  v.count = 1;
  const std::span<const std::byte> start = left_;
  if (v.is_array()) {
    std::uint64_t count = 0;
    if (!take(type) || !take(count)) return Error{"the file ends within " + whose};
    if (type > static_cast<std::uint32_t>(GgufType::f64) || type == static_cast<std::uint32_t>(GgufType::array))
      return Error{whose + " is an array of type " + std::to_string(type) + ", numbers or strings were expected"};
    v.element = static_cast<GgufType>(type);
    const std::size_t each = v.element == GgufType::text ? 8 : gguf_parts::gguf_bytes(v.element);
    if (count > limits.array_values || count > left_.size() / each)
      return Error{whose + " claims " + std::to_string(count) + " values, more than it may or can hold"};
    v.count = static_cast<std::int64_t>(count);
  }
  if (v.element == GgufType::text) {
    for (std::int64_t i = 0; i < v.count; ++i) {
      std::uint64_t length = 0;
      if (!take(length) || length > limits.text_bytes || !skip(length))
        return Error{whose + " has a string of " + std::to_string(length) + " bytes, more than it may or can hold"};
    }
  } else {
    const std::byte* first = left_.data();
    const std::size_t size = static_cast<std::size_t>(v.count) * gguf_parts::gguf_bytes(v.element);
    if (!skip(size)) return Error{"the file ends within " + whose};
    if (v.element == GgufType::boolean &&
        std::any_of(first, first + size, [](std::byte b) { return b > std::byte{1}; }))
      return Error{whose + " has a bool that is neither 0 nor 1"};
  }
  v.bytes = start.first(start.size() - left_.size());
  return {};
}

CHIMERA_FUNCTION Result<void> Gguf::read_tensor(GgufTensor& t, const GgufLimits& limits, std::uint64_t unit,
                                                std::uint64_t& end, std::uint64_t& offset, std::uint64_t& size) {
  std::string_view name;
  if (Result<void> s = take_name(name, limits.name_bytes, "a tensor's name"); !s) return s;
  t.name = name;
  const std::string whose = "tensor " + t.name;
  std::uint32_t dims = 0, format = 0;
  if (!take(dims)) return Error{"the file ends within " + whose};
  if (dims < 1 || dims > t.ne.size())
    return Error{whose + " has " + std::to_string(dims) + " dimensions, 1 to 4 were expected"};
  t.dims = static_cast<int>(dims);
  for (std::uint32_t i = 0; i < dims; ++i)
    if (!take(t.ne[i])) return Error{"the file ends within " + whose};
  if (!take(format) || !take(offset)) return Error{"the file ends within " + whose};
  t.format = static_cast<Format>(format);
  const auto bytes = gguf_parts::gguf_tensor_bytes({t.ne.data(), dims}, t.format);
  if (!bytes) return Error{whose + " " + bytes.error().message};
  size = *bytes;
  if (offset != end)
    return Error{whose + " starts at " + std::to_string(offset) + " in the data, " + std::to_string(end) +
                 " was expected: right behind the one before"};
  if (__builtin_add_overflow(end, size, &end) || __builtin_add_overflow(end, unit - 1, &end))
    return Error{whose + " ends beyond 2^64"};
  end &= ~(unit - 1);
  return {};
}

}  // namespace chimera
#endif
