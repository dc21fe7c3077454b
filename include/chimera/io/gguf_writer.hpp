// Writing GGUF files, of version 3 (io/gguf.hpp says how they are laid out).
#pragma once

#include <chimera/core/format.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/gguf.hpp>
#include <chimera/io/tensor_file.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace chimera {

namespace gguf_writer_parts {

/// The type of a C++ value.
template <class T>
constexpr GgufType gguf_type() {
  if constexpr (std::is_same_v<T, bool>) return GgufType::boolean;
  if constexpr (std::is_same_v<T, float>) return GgufType::f32;
  if constexpr (std::is_same_v<T, double>) return GgufType::f64;
  if constexpr (std::is_convertible_v<T, std::string_view>) return GgufType::text;
  if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
    if constexpr (sizeof(T) == 1) return std::is_signed_v<T> ? GgufType::i8 : GgufType::u8;
    if constexpr (sizeof(T) == 2) return std::is_signed_v<T> ? GgufType::i16 : GgufType::u16;
    if constexpr (sizeof(T) == 4) return std::is_signed_v<T> ? GgufType::i32 : GgufType::u32;
    if constexpr (sizeof(T) == 8) return std::is_signed_v<T> ? GgufType::i64 : GgufType::u64;
  }
  return GgufType::array;
}

}  // namespace gguf_writer_parts

/// Writes a file: `set` and `add` all, `begin`, `append` the tensors' bytes in the order of `add`, `commit`. The file
/// appears, whole, with `commit`.
class GgufWriter {
 public:
  /// A number, bool, string, or a container of one of these. A key that is set twice keeps its place and takes the new
  /// value. "general.alignment" (u32, a power of two; 32 if not set) is what the tensors are aligned to.
  template <class T>
  void set(std::string_view key, const T& value) {
    std::string& out = entry(key);
    if constexpr (std::is_same_v<T, GgufValue>) {
      put(out, value.type);
      out.append(reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size());
    } else {
      put(out, gguf_writer_parts::gguf_type<T>());
      put_value(out, value);
    }
  }
  void set(std::string_view key, const char* text) { set(key, std::string_view(text)); }

  /// Sets all metadata of another file, but what it says of its parts.
  void set_all(const Gguf& file) {
    for (const GgufEntry& e : file.entries())
      if (!e.key.starts_with("split.")) set(e.key, e.value);
  }

  /// Declares a tensor: its dimensions, fastest first.
  Result<void> add(std::string_view name, std::span<const std::int64_t> ne, Format format);
  Result<void> add(std::string_view name, std::initializer_list<std::int64_t> ne, Format format) {
    return add(name, std::span(ne.begin(), ne.size()), format);
  }

  /// Writes all but the data, to a file beside `path`.
  Result<void> begin(const std::string& path);

  /// More of the tensor that is being written, no more than it takes; the next one follows when it is complete.
  Result<void> append(std::span<const std::byte> bytes) { return stream_.append(bytes); }

  /// Brings the file to the disk under its name.
  Result<void> commit() { return stream_.commit(); }

 private:
  struct Tensor {
    std::string name;
    std::vector<std::int64_t> ne;
    Format format;
    std::uint64_t bytes;
  };

  /// The value of a key, empty.
  std::string& entry(std::string_view key);

  template <class T>
  static void put(std::string& out, T value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class T>
  static void put_value(std::string& out, const T& value) {
    if constexpr (gguf_writer_parts::gguf_type<T>() == GgufType::text) {
      const std::string_view text = value;
      put(out, std::uint64_t{text.size()});
      out += text;
    } else if constexpr (gguf_writer_parts::gguf_type<T>() == GgufType::array) {
      using Element = typename T::value_type;
      put(out, gguf_writer_parts::gguf_type<Element>());
      put(out, std::uint64_t{value.size()});
      for (const auto& element : value) put_value<Element>(out, element);
    } else {
      put(out, value);
    }
  }

  std::uint64_t padding(std::uint64_t bytes) const { return (alignment_ - bytes % alignment_) % alignment_; }

  std::vector<std::pair<std::string, std::string>> entries_;  // key; type and value as in the file
  std::vector<Tensor> tensors_;
  std::uint32_t alignment_ = 32;
  tensor_file_parts::TensorStream stream_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<void> GgufWriter::add(std::string_view name, std::span<const std::int64_t> ne, Format format) {
  const auto bytes = gguf_parts::gguf_tensor_bytes(ne, format);
  if (!bytes) return Error{"tensor " + std::string(name) + " " + bytes.error().message};
  if (Result<void> s = gguf_parts::check_name(name, GgufLimits{}.name_bytes, "a tensor's name"); !s) return s;
  tensors_.push_back({std::string(name), {ne.begin(), ne.end()}, format, *bytes});
  return {};
}

CHIMERA_FUNCTION Result<void> GgufWriter::begin(const std::string& path) {
  for (const auto& [key, value] : entries_) {
    if (Result<void> s = gguf_parts::check_name(key, GgufLimits{}.key_bytes, "a metadata key"); !s) return s;
    if (key != "general.alignment") continue;
    if (value.size() != 8 || value[0] != static_cast<char>(GgufType::u32))
      return Error{"general.alignment is not of type u32"};
    std::memcpy(&alignment_, value.data() + 4, sizeof alignment_);
    if (!std::has_single_bit(alignment_) || alignment_ > GgufLimits{}.alignment)
      return Error{"general.alignment is " + std::to_string(alignment_) + ", a power of two up to " +
                   std::to_string(GgufLimits{}.alignment) + " was expected"};
  }
  const auto name_of = [](const Tensor& t) -> std::string_view { return t.name; };
  if (Result<void> s = tensor_file_parts::NameIndex().build(tensors_, name_of, "tensors"); !s) return s;
  std::string header = "GGUF";
  put(header, std::uint32_t{3});
  put(header, std::uint64_t{tensors_.size()});
  put(header, std::uint64_t{entries_.size()});
  for (const auto& [key, value] : entries_) {
    put_value(header, key);
    header += value;
  }
  std::uint64_t offset = 0;
  std::vector<tensor_file_parts::TensorStream::Part> parts;
  for (const Tensor& t : tensors_) {
    put_value(header, t.name);
    put(header, static_cast<std::uint32_t>(t.ne.size()));
    for (std::int64_t n : t.ne) put(header, n);
    put(header, t.format);
    put(header, offset);
    parts.push_back({t.name, t.bytes, padding(t.bytes)});
    offset += t.bytes + padding(t.bytes);
  }
  header.append(static_cast<std::size_t>(padding(header.size())), '\0');
  return stream_.begin(path, header, std::move(parts));
}

CHIMERA_FUNCTION std::string& GgufWriter::entry(std::string_view key) {
  for (auto& [k, value] : entries_)
    if (k == key) {
      value.clear();
      return value;
    }
  return entries_.emplace_back(key, std::string()).second;
}

}  // namespace chimera
#endif
