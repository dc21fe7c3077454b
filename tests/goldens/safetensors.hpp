// Tensors of a golden file as vectors; what is not as it should be is an exception.
#pragma once

#include <chimera/io/safetensors.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace goldens {

class Safetensors {
 public:
  explicit Safetensors(const std::string& path) : path_(path) {
    auto file = chimera::Safetensors::open(path);
    if (!file) throw std::runtime_error(file.error().message);
    file_ = std::move(*file);
  }

  bool has(const std::string& name) const { return file_.tensor(name) != nullptr; }

  std::string metadata(const std::string& name) const {
    const auto text = file_.metadata(name);
    if (!text) fail("has no metadata " + name);
    return std::string(*text);
  }

  /// As they lie in the file.
  std::span<const std::byte> bytes(const std::string& name) const { return at(name).data; }

  /// F32 as it is, BF16 and I8 widened.
  std::vector<float> floats(const std::string& name) const {
    const chimera::SafetensorsTensor& t = at(name);
    std::vector<std::uint32_t> bits;
    if (t.dtype == chimera::Dtype::f32)
      bits = values<std::uint32_t>(t);
    else if (t.dtype == chimera::Dtype::bf16)
      for (std::uint16_t half : values<std::uint16_t>(t)) bits.push_back(std::uint32_t{half} << 16);
    else if (t.dtype == chimera::Dtype::i8)
      for (std::int8_t whole : values<std::int8_t>(t))
        bits.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(whole)));
    else
      fail(name + " is neither F32, BF16 nor I8");
    std::vector<float> floats(bits.size());
    if (!bits.empty()) std::memcpy(floats.data(), bits.data(), bits.size() * sizeof(float));
    return floats;
  }

  /// I32 or I64 whose values fit 32 bits.
  std::vector<std::int32_t> integers(const std::string& name) const {
    const chimera::SafetensorsTensor& t = at(name);
    if (t.dtype == chimera::Dtype::i32) return values<std::int32_t>(t);
    if (t.dtype != chimera::Dtype::i64) fail(name + " is neither I32 nor I64");
    std::vector<std::int32_t> narrow;
    for (std::int64_t wide : values<std::int64_t>(t)) {
      narrow.push_back(static_cast<std::int32_t>(wide));
      if (narrow.back() != wide) fail(name + " has a value of more than 32 bits");
    }
    return narrow;
  }

 private:
  const chimera::SafetensorsTensor& at(const std::string& name) const {
    const chimera::SafetensorsTensor* t = file_.tensor(name);
    if (!t) fail("has no tensor " + name);
    return *t;
  }
  template <class T>
  static std::vector<T> values(const chimera::SafetensorsTensor& t) {
    std::vector<T> values(static_cast<std::size_t>(t.size()));
    if (!values.empty()) std::memcpy(values.data(), t.data.data(), t.data.size());
    return values;
  }
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(path_ + " " + what); }

  std::string path_;
  chimera::Safetensors file_;
};

}  // namespace goldens
