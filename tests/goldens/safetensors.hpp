// A reader of safetensors files for the tests: the whole file in memory, every size checked against the file's own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace goldens {

struct Stored {
  std::string type;  // F32, BF16, I8, U8, I32, I64
  std::vector<std::int64_t> shape;
  std::size_t begin = 0, count = 0;  // first byte in the file, elements
};

inline std::size_t element_size(const std::string& type) {
  if (type == "F32" || type == "I32") return 4;
  if (type == "BF16") return 2;
  if (type == "I64") return 8;
  if (type == "I8" || type == "U8" || type == "BOOL") return 1;
  throw std::runtime_error("safetensors type " + type + " is not read here");
}

class Safetensors {
 public:
  explicit Safetensors(const std::filesystem::path& path) : path_(path.string()) {
    std::ifstream file(path, std::ios::binary);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (!file || error || size > std::uintmax_t{1} << 32) fail("cannot be read");
    bytes_.resize(static_cast<std::size_t>(size));
    if (!file.read(bytes_.data(), static_cast<std::streamsize>(bytes_.size()))) fail("cannot be read");
    std::uint64_t header = 0;
    if (bytes_.size() < sizeof header) fail("is shorter than its first number");
    std::memcpy(&header, bytes_.data(), sizeof header);
    if (header > bytes_.size() - sizeof header) fail("has a header longer than itself");
    const std::size_t data = sizeof header + static_cast<std::size_t>(header);
    const auto json =
        nlohmann::json::parse(bytes_.begin() + sizeof header, bytes_.begin() + static_cast<std::ptrdiff_t>(data));
    for (const auto& [name, entry] : json.items()) {
      if (name == "__metadata__") {
        metadata_ = entry;
        continue;
      }
      Stored t{entry.at("dtype"), entry.at("shape"), 0, 1};
      for (const std::int64_t n : t.shape) {
        if (n < 0 || (n > 0 && t.count > bytes_.size() / static_cast<std::size_t>(n)))
          fail(name + " is larger than the file");
        t.count *= static_cast<std::size_t>(n);
      }
      const std::size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
      if (begin > end || end > bytes_.size() - data || end - begin != t.count * element_size(t.type))
        fail(name + " does not lie in the file as its shape says");
      t.begin = data + begin;
      tensors_[name] = t;
    }
  }

  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  const std::map<std::string, Stored>& tensors() const { return tensors_; }
  const nlohmann::json& metadata() const { return metadata_; }

  const Stored& at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) fail("has no tensor " + name);
    return found->second;
  }

  /// F32 as it is, BF16 widened.
  std::vector<float> floats(const std::string& name) const {
    const Stored& t = at(name);
    std::vector<float> values(t.count);
    if (t.type == "F32") {
      if (t.count) std::memcpy(values.data(), bytes_.data() + t.begin, t.count * sizeof(float));
    } else if (t.type == "BF16") {
      for (std::size_t i = 0; i < t.count; ++i) {
        std::uint16_t half = 0;
        std::memcpy(&half, bytes_.data() + t.begin + 2 * i, sizeof half);
        const std::uint32_t bits = std::uint32_t{half} << 16;
        std::memcpy(&values[i], &bits, sizeof bits);
      }
    } else {
      fail(name + " is " + t.type + ", expected F32 or BF16");
    }
    return values;
  }

  /// As they lie in the file.
  std::span<const std::byte> bytes(const std::string& name) const {
    const Stored& t = at(name);
    return std::as_bytes(std::span(bytes_)).subspan(t.begin, t.count * element_size(t.type));
  }

  /// I32 or I64 whose values fit 32 bits.
  std::vector<std::int32_t> integers(const std::string& name) const {
    const Stored& t = at(name);
    std::vector<std::int32_t> values(t.count);
    for (std::size_t i = 0; i < t.count; ++i) {
      std::int64_t wide = 0;
      if (t.type == "I64") {
        std::memcpy(&wide, bytes_.data() + t.begin + 8 * i, sizeof wide);
      } else if (t.type == "I32") {
        std::int32_t narrow = 0;
        std::memcpy(&narrow, bytes_.data() + t.begin + 4 * i, sizeof narrow);
        wide = narrow;
      } else {
        fail(name + " is " + t.type + ", expected I32 or I64");
      }
      if (wide < std::numeric_limits<std::int32_t>::min() || wide > std::numeric_limits<std::int32_t>::max())
        fail(name + " has a value of more than 32 bits");
      values[i] = static_cast<std::int32_t>(wide);
    }
    return values;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(path_ + " " + what); }

  std::string path_;
  std::vector<char> bytes_;
  std::map<std::string, Stored> tensors_;
  nlohmann::json metadata_;
};

}  // namespace goldens
