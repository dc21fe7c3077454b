// safetensors: tensors behind a JSON header (Hugging Face; github.com/huggingface/safetensors).
//
//   u64 bytes of the header, the header, the data
//   header: {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {"..": ".."}}
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/io/json.hpp>
#include <chimera/io/tensor_file.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace chimera {

static_assert(std::endian::native == std::endian::little, "chimera: safetensors files are little-endian");

enum class Dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean };

struct DtypeInfo {
  Dtype dtype;
  std::string_view name;  // as in the header
  std::int64_t bytes;
};

inline constexpr std::array dtypes{
    DtypeInfo{Dtype::f64, "F64", 8},      DtypeInfo{Dtype::f32, "F32", 4}, DtypeInfo{Dtype::f16, "F16", 2},
    DtypeInfo{Dtype::bf16, "BF16", 2},    DtypeInfo{Dtype::i64, "I64", 8}, DtypeInfo{Dtype::i32, "I32", 4},
    DtypeInfo{Dtype::i16, "I16", 2},      DtypeInfo{Dtype::i8, "I8", 1},   DtypeInfo{Dtype::u8, "U8", 1},
    DtypeInfo{Dtype::boolean, "BOOL", 1},
};

constexpr const DtypeInfo& dtype_info(Dtype dtype) { return dtypes[static_cast<std::size_t>(dtype)]; }

/// What a file may ask for. With the defaults nothing here allocates more than the file's size and 64 MiB.
struct SafetensorsLimits {
  std::uint64_t header_bytes = 100'000'000;  // of an index, too
  std::size_t tensors = 65536, metadata = 65536, dims = 8, shards = 1024;
};

/// A tensor in a file, row-major.
struct SafetensorsTensor {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;  // slowest first; empty: one number
  std::span<const std::byte> data;  // may start anywhere: not aligned to its type

  std::int64_t size() const { return static_cast<std::int64_t>(data.size()) / dtype_info(dtype).bytes; }
};

/// One file, or a model's shards, open for reading: the headers are checked, nothing of the data is touched or copied.
/// What is handed out lives as long as this (and, after `parse`, as the caller's bytes).
class Safetensors {
 public:
  /// A file, an index of shards ("*.index.json"), or a folder with model.safetensors or model.safetensors.index.json.
  static Result<Safetensors> open(const std::string& path, const SafetensorsLimits& limits = {});

  /// Reads one file that is in memory already. Its bytes must stay where they are.
  static Result<Safetensors> parse(std::span<const std::byte> bytes, const SafetensorsLimits& limits = {});

  /// The tensors in the order of the header, shard after shard.
  std::span<const SafetensorsTensor> tensors() const { return tensors_; }
  /// The tensor of that name; null if there is none.
  const SafetensorsTensor* tensor(std::string_view name) const { return index_.find(tensors_, name_of, name); }

  /// Names and texts; of shards, the first one's.
  std::span<const std::pair<std::string, std::string>> metadata() const { return metadata_; }
  std::optional<std::string_view> metadata(std::string_view name) const;

 private:
  static std::string_view name_of(const SafetensorsTensor& t) { return t.name; }

  Result<void> add_file(const std::string& path, const SafetensorsLimits& limits);

  /// Index: {"weight_map": {"tensor": "file beside the index"}}. It says which files there are, and no more: tensors
  /// that it names may be missing, or elsewhere.
  Result<void> add_shards(const std::string& path, const SafetensorsLimits& limits);

  /// The name of a file, and nothing that leads elsewhere.
  static bool plain(std::string_view name);

  /// One file's header. Every size is held against the file's own.
  Result<void> add(std::span<const std::byte> bytes, const SafetensorsLimits& limits);

  Result<void> add_metadata(const Json& entries, const SafetensorsLimits& limits, bool keep);

  static Result<void> read_tensor(SafetensorsTensor& t, const Json& entry, std::span<const std::byte> data,
                                  const SafetensorsLimits& limits);

  /// The tensors from `first` on lie in the data one behind the other, and nothing else does.
  Result<void> check_tiling(std::size_t first, std::span<const std::byte> data) const;

  std::vector<MappedFile> files_;
  std::vector<SafetensorsTensor> tensors_;
  tensor_file_parts::NameIndex index_;
  std::vector<std::pair<std::string, std::string>> metadata_;
};

/// Writes one file: `set_metadata` and `add` all, `begin`, `append` the tensors' bytes in the order of `add`, `commit`.
/// The file appears, whole, with `commit`.
class SafetensorsWriter {
 public:
  /// transformers wants "format" to be "pt".
  void set_metadata(std::string_view name, std::string_view text) {
    metadata_ += (metadata_.empty() ? "" : ",") + json_quoted(name) + ":" + json_quoted(text);
  }

  /// Declares a tensor. Tensors of wider types come first, so that all are aligned.
  Result<void> add(std::string_view name, std::span<const std::int64_t> shape, Dtype dtype);
  Result<void> add(std::string_view name, std::initializer_list<std::int64_t> shape, Dtype dtype) {
    return add(name, std::span(shape.begin(), shape.size()), dtype);
  }

  /// Writes all but the data, to a file beside `path`.
  Result<void> begin(const std::string& path);

  /// More of the tensor that is being written, no more than it takes; the next one follows when it is complete.
  Result<void> append(std::span<const std::byte> bytes) { return stream_.append(bytes); }

  /// Brings the file to the disk under its name.
  Result<void> commit() { return stream_.commit(); }

 private:
  std::string metadata_, header_;  // JSON, without the brackets
  std::int64_t end_ = 0;           // of the tensors so far, in the data
  std::vector<tensor_file_parts::TensorStream::Part> parts_;
  tensor_file_parts::TensorStream stream_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<Safetensors> Safetensors::open(const std::string& path, const SafetensorsLimits& limits) {
  std::string file = path;
  if (is_folder(path)) {
    file = path + "/model.safetensors";
    if (!exists(file)) file += ".index.json";
  }
  Safetensors all;
  const Result<void> s = file.ends_with(".index.json") ? all.add_shards(file, limits) : all.add_file(file, limits);
  if (!s) return s.error();
  return all;
}

CHIMERA_FUNCTION Result<Safetensors> Safetensors::parse(std::span<const std::byte> bytes,
                                                        const SafetensorsLimits& limits) {
  Safetensors file;
  if (Result<void> s = file.add(bytes, limits); !s) return s.error();
  return file;
}

CHIMERA_FUNCTION std::optional<std::string_view> Safetensors::metadata(std::string_view name) const {
  for (const auto& [n, text] : metadata_)
    if (n == name) return text;
  return std::nullopt;
}

CHIMERA_FUNCTION Result<void> Safetensors::add_file(const std::string& path, const SafetensorsLimits& limits) {
  auto file = MappedFile::open(path);
  if (!file) return file.error();
  if (Result<void> s = add(file->bytes(), limits); !s) return Error{"cannot read " + path + ": " + s.error().message};
  files_.push_back(std::move(*file));
  return {};
}

CHIMERA_FUNCTION Result<void> Safetensors::add_shards(const std::string& path, const SafetensorsLimits& limits) {
  const auto wrong = [&](const std::string& what) { return Error{"cannot read " + path + ": " + what}; };
  const auto file = MappedFile::open(path);
  if (!file) return file.error();
  if (file->size() > limits.header_bytes) return wrong("it has " + std::to_string(file->size()) + " bytes");
  const auto json = Json::parse(file->text(), 8);
  if (!json) return wrong(json.error().message);
  const auto map = json->at("weight_map", Json::Kind::object);
  if (!map) return wrong(map.error().message);
  std::vector<std::string> shards;  // sorted
  for (const auto& [key, value] : map->members()) {
    const auto name = value.string();
    if (!name || !plain(*name))
      return wrong("shard " + std::string(value.text().substr(0, 80)) + " is not the name of a file beside the index");
    const auto place = std::lower_bound(shards.begin(), shards.end(), *name);
    if (place != shards.end() && *place == *name) continue;
    if (shards.size() == limits.shards) return wrong("it names more than " + std::to_string(limits.shards) + " shards");
    shards.insert(place, *name);
  }
  if (shards.empty()) return wrong("it names no shard");
  // As transformers has it: all that is in the shards counts, whatever the index says of it, the last of each name.
  std::unordered_map<std::string, std::size_t> places;
  std::vector<SafetensorsTensor> tensors;
  for (const std::string& shard : shards) {
    if (Result<void> s = add_file(folder_of(path) + "/" + shard, limits); !s) return s;
    for (SafetensorsTensor& t : tensors_) {
      const auto [place, is_new] = places.emplace(t.name, tensors.size());
      if (!is_new)
        tensors[place->second] = std::move(t);
      else
        tensors.push_back(std::move(t));
    }
    if (tensors.size() > limits.tensors)
      return wrong("it has more than " + std::to_string(limits.tensors) + " tensors");
    tensors_.clear();
  }
  tensors_ = std::move(tensors);
  return index_.build(tensors_, name_of, "tensors");
}

CHIMERA_FUNCTION bool Safetensors::plain(std::string_view name) {
  return name.size() <= 255 && name.ends_with(".safetensors") && name.find('/') == name.npos &&
         name.find('\\') == name.npos && name.find("..") == name.npos && tensor_file_parts::printable(name);
}

CHIMERA_FUNCTION Result<void> Safetensors::add(std::span<const std::byte> bytes, const SafetensorsLimits& limits) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof length) return Error{"it is not a safetensors file: it has fewer than 8 bytes"};
  std::memcpy(&length, bytes.data(), sizeof length);
  bytes = bytes.subspan(sizeof length);
  if (length > bytes.size() || length > limits.header_bytes)
    return Error{"it is not a safetensors file: it claims a header of " + std::to_string(length) +
                 " bytes, more than it may or can hold"};
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length));
  const std::span<const std::byte> data = bytes.subspan(static_cast<std::size_t>(length));
  if (!text.starts_with('{')) return Error{"it is not a safetensors file: its header does not start with '{'"};
  const auto header = Json::parse(text, 4);
  if (!header) return Error{"its header is not JSON: " + header.error().message};
  const std::size_t first = tensors_.size();
  for (const auto& [key, value] : header->members()) {
    std::string name = *key.string();
    if (name == "__metadata__") {
      if (Result<void> s = add_metadata(value, limits, files_.empty()); !s) return s;
      continue;
    }
    if (name.empty() || !tensor_file_parts::printable(name)) return Error{"a tensor's name is empty or not printable"};
    if (tensors_.size() == limits.tensors)
      return Error{"it has more than " + std::to_string(limits.tensors) + " tensors"};
    SafetensorsTensor t;
    t.name = std::move(name);
    if (Result<void> s = read_tensor(t, value, data, limits); !s)
      return Error{"tensor " + t.name + " " + s.error().message};
    tensors_.push_back(std::move(t));
  }
  if (Result<void> s = index_.build(tensors_, name_of, "tensors"); !s) return s;
  return check_tiling(first, data);
}

CHIMERA_FUNCTION Result<void> Safetensors::add_metadata(const Json& entries, const SafetensorsLimits& limits,
                                                        bool keep) {
  if (!entries.is(Json::Kind::object)) return Error{"__metadata__ is not an object"};
  std::vector<std::pair<std::string, std::string>> metadata;
  for (const auto& [key, value] : entries.members()) {
    auto text = value.string();
    if (!text) return Error{"__metadata__ has a value that is not a string"};
    if (metadata.size() == limits.metadata)
      return Error{"__metadata__ has more than " + std::to_string(limits.metadata) + " entries"};
    metadata.emplace_back(*key.string(), std::move(*text));
  }
  const auto first = [](const auto& entry) -> std::string_view { return entry.first; };
  if (Result<void> s = tensor_file_parts::NameIndex().build(metadata, first, "metadata entries"); !s) return s;
  if (keep) metadata_ = std::move(metadata);
  return {};
}

CHIMERA_FUNCTION Result<void> Safetensors::read_tensor(SafetensorsTensor& t, const Json& entry,
                                                       std::span<const std::byte> data,
                                                       const SafetensorsLimits& limits) {
  if (!entry.is(Json::Kind::object)) return Error{"is not an object"};
  const auto dtype = entry.string_at("dtype");
  if (!dtype) return dtype.error();
  const auto info = std::find_if(dtypes.begin(), dtypes.end(), [&](const DtypeInfo& d) { return d.name == *dtype; });
  if (info == dtypes.end()) return Error{"has the unknown dtype " + json_quoted(*dtype)};
  t.dtype = info->dtype;

  const auto shape = entry.at("shape", Json::Kind::array);
  if (!shape) return shape.error();
  std::int64_t bytes = info->bytes;
  for (const Json& dimension : shape->elements()) {
    const auto n = dimension.integer();
    if (!n || *n < 0) return Error{"has a dimension that is not an integer of 0 or more"};
    if (t.shape.size() == limits.dims) return Error{"has more than " + std::to_string(limits.dims) + " dimensions"};
    if (__builtin_mul_overflow(bytes, *n, &bytes)) return Error{"has more than 2^63 bytes"};
    t.shape.push_back(*n);
  }

  const auto offsets = entry.at("data_offsets", Json::Kind::array);
  if (!offsets) return offsets.error();
  std::array<std::int64_t, 2> range{-1, -1};
  std::size_t count = 0;
  for (const Json& offset : offsets->elements()) {
    if (count == 2) return Error{"has more than two data_offsets"};
    range[count++] = offset.integer().value_or(-1);
  }
  const auto [begin, end] = range;
  if (begin < 0 || end < begin || static_cast<std::uint64_t>(end) > data.size())
    return Error{"does not lie within the data, " + std::to_string(data.size()) + " bytes"};
  if (end - begin != bytes)
    return Error{"lies in " + std::to_string(end - begin) + " bytes, " + std::to_string(bytes) + " were expected"};
  t.data = data.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(bytes));
  return {};
}

CHIMERA_FUNCTION Result<void> Safetensors::check_tiling(std::size_t first, std::span<const std::byte> data) const {
  std::vector<const SafetensorsTensor*> order;
  for (std::size_t i = first; i < tensors_.size(); ++i) order.push_back(&tensors_[i]);
  std::sort(order.begin(), order.end(), [](const SafetensorsTensor* a, const SafetensorsTensor* b) {
    return std::pair(a->data.data(), a->data.size()) < std::pair(b->data.data(), b->data.size());
  });
  std::size_t at = 0;
  for (const SafetensorsTensor* t : order) {
    if (t->data.data() != data.data() + at)
      return Error{"tensor " + t->name + " does not start where the one before it ends, at " + std::to_string(at)};
    at += t->data.size();
  }
  if (at != data.size())
    return Error{"its tensors end at " + std::to_string(at) + " of " + std::to_string(data.size()) + " bytes"};
  return {};
}

CHIMERA_FUNCTION Result<void> SafetensorsWriter::add(std::string_view name, std::span<const std::int64_t> shape,
                                                     Dtype dtype) {
  if (name.empty() || !tensor_file_parts::printable(name)) return Error{"a tensor's name is empty or not printable"};
  const DtypeInfo& info = dtype_info(dtype);
  std::int64_t bytes = info.bytes;
  std::string text;
  for (std::int64_t n : shape) {
    if (n < 0 || __builtin_mul_overflow(bytes, n, &bytes))
      return Error{"tensor " + std::string(name) + " cannot have a dimension of " + std::to_string(n)};
    text += (text.empty() ? "" : ",") + std::to_string(n);
  }
  if (end_ % info.bytes != 0)
    return Error{"tensor " + std::string(name) + " of type " + std::string(info.name) + " would start at byte " +
                 std::to_string(end_) + ": add the tensors of wider types first"};
  header_ += (header_.empty() ? "" : ",") + json_quoted(name) + ":{\"dtype\":\"" + std::string(info.name) +
             "\",\"shape\":[" + text + "],\"data_offsets\":[" + std::to_string(end_) + "," +
             std::to_string(end_ + bytes) + "]}";
  end_ += bytes;
  parts_.push_back({std::string(name), static_cast<std::uint64_t>(bytes), 0});
  return {};
}

CHIMERA_FUNCTION Result<void> SafetensorsWriter::begin(const std::string& path) {
  const auto name_of = [](const tensor_file_parts::TensorStream::Part& part) -> std::string_view { return part.name; };
  if (Result<void> s = tensor_file_parts::NameIndex().build(parts_, name_of, "tensors"); !s) return s;
  std::string header = "{";
  if (!metadata_.empty()) header += "\"__metadata__\":{" + metadata_ + (header_.empty() ? "}" : "},");
  header += header_ + "}";
  header.append((8 - header.size() % 8) % 8, ' ');
  const std::uint64_t length = header.size();
  return stream_.begin(path, std::string(reinterpret_cast<const char*>(&length), sizeof length) + header, parts_);
}

}  // namespace chimera
#endif
