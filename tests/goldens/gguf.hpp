// A reader of GGUF weights for the tests: f32 and the block formats of the golden models, decoded to f32.
// Formats: ggml's ggml-common.h and ggml-quants.c (dequantize_row_*).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace goldens {

class Gguf {
 public:
  explicit Gguf(const std::filesystem::path& path) : path_(path.string()) {
    std::ifstream file(path, std::ios::binary);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (!file || error || size > std::uintmax_t{1} << 32) fail("cannot be read");
    bytes_.resize(static_cast<std::size_t>(size));
    if (!file.read(reinterpret_cast<char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size())))
      fail("cannot be read");
    if (std::memcmp(take(4), "GGUF", 4) != 0 || number<std::uint32_t>() != 3) fail("is not GGUF version 3");
    const auto tensors = number<std::uint64_t>(), pairs = number<std::uint64_t>();
    std::size_t alignment = 32;
    for (std::uint64_t i = 0; i < pairs; ++i) {
      const std::string key = text();
      const auto type = number<std::uint32_t>();
      if (key == "general.alignment" && type == 4)
        alignment = number<std::uint32_t>();
      else
        skip(type);
    }
    for (std::uint64_t i = 0; i < tensors; ++i) {
      const std::string name = text();
      Entry& e = entries_[name];
      const auto dimensions = number<std::uint32_t>();
      if (dimensions > 4) fail(name + " has more than four dimensions");
      for (std::uint32_t d = 0; d < dimensions; ++d) {
        const auto n = number<std::uint64_t>();
        if (n > 0 && e.count > (std::uint64_t{1} << 32) / n) fail(name + " is larger than the file");
        e.count *= n;
      }
      e.type = number<std::uint32_t>();
      e.offset = number<std::uint64_t>();
    }
    if (alignment == 0) fail("has an alignment of 0");
    data_ = (at_ + alignment - 1) / alignment * alignment;
  }

  std::vector<float> floats(const std::string& name) const {
    const auto found = entries_.find(name);
    if (found == entries_.end()) fail("has no tensor " + name);
    const Entry& e = found->second;
    const Format f = format(e.type);
    const std::uint64_t bytes = e.count / f.values * f.bytes;
    if (e.count % f.values != 0 || data_ > bytes_.size() || e.offset > bytes_.size() - data_ ||
        bytes > bytes_.size() - data_ - e.offset)
      fail(name + " does not lie in the file");
    std::vector<float> y(e.count);
    const std::uint8_t* block = bytes_.data() + data_ + e.offset;
    for (std::uint64_t i = 0; i < e.count; i += f.values, block += f.bytes) f.decode(block, y.data() + i);
    return y;
  }

 private:
  struct Entry {
    std::uint64_t count = 1, offset = 0;
    std::uint32_t type = 0;
  };
  struct Format {
    std::uint64_t values, bytes;  // of one block
    void (*decode)(const std::uint8_t* block, float* y);
  };

  static float half(const std::uint8_t* p) {
    const int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -24)
                                          : std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
  }

  static void decode_f32(const std::uint8_t* block, float* y) { std::memcpy(y, block, sizeof *y); }
  static void decode_q4_0(const std::uint8_t* block, float* y) {
    for (int i = 0; i < 16; ++i) {
      y[i] = half(block) * static_cast<float>((block[2 + i] & 15) - 8);
      y[16 + i] = half(block) * static_cast<float>((block[2 + i] >> 4) - 8);
    }
  }
  static void decode_q8_0(const std::uint8_t* block, float* y) {
    for (int i = 0; i < 32; ++i) y[i] = half(block) * static_cast<float>(static_cast<std::int8_t>(block[2 + i]));
  }
  /// d, dmin, 8 pairs of 6-bit (scale, minimum) in 12 bytes, 256 4-bit values: y = d scale q - dmin minimum.
  static void decode_q4_k(const std::uint8_t* block, float* y) {
    const float d = half(block), dmin = half(block + 2);
    const std::uint8_t *s = block + 4, *q = block + 16;
    for (int j = 0; j < 8; ++j) {
      const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
      const int minimum = j < 4 ? s[j + 4] & 63 : (s[j + 4] >> 4) | (s[j] >> 6) << 4;
      const float factor = d * static_cast<float>(scale), shift = dmin * static_cast<float>(minimum);
      for (int i = 0; i < 32; ++i)
        y[32 * j + i] = factor * static_cast<float>(q[j / 2 * 32 + i] >> j % 2 * 4 & 15) - shift;
    }
  }
  /// Low 4 bits of 256 values, their high 2 bits, 16 scales, d: y = d scale (q - 32).
  static void decode_q6_k(const std::uint8_t* block, float* y) {
    const float d = half(block + 208);
    for (int i = 0; i < 256; ++i) {
      const int part = i / 128, run = i / 32 % 4, l = i % 32;
      const int low = block[part * 64 + run % 2 * 32 + l] >> run / 2 * 4 & 15;
      const int high = block[128 + part * 32 + l] >> 2 * run & 3;
      const auto scale = static_cast<std::int8_t>(block[192 + i / 16]);
      y[i] = d * static_cast<float>(scale) * static_cast<float>((low | high << 4) - 32);
    }
  }

  Format format(std::uint32_t type) const {
    switch (type) {
      case 0: return {1, 4, decode_f32};
      case 2: return {32, 18, decode_q4_0};
      case 8: return {32, 34, decode_q8_0};
      case 12: return {256, 144, decode_q4_k};
      case 14: return {256, 210, decode_q6_k};
      default: fail("has a tensor of type " + std::to_string(type) + ", which is not read here");
    }
  }

  const std::uint8_t* take(std::uint64_t n) {
    if (n > bytes_.size() - at_) fail("ends within its header");
    at_ += n;
    return bytes_.data() + at_ - n;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
  std::string text() {
    const auto n = number<std::uint64_t>();
    return {reinterpret_cast<const char*>(take(n)), n};
  }
  /// A value of the header's types: 8 a string, 9 an array, the rest numbers.
  void skip(std::uint32_t type) {
    constexpr std::uint64_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (type == 8) {
      text();
    } else if (type == 9) {
      const auto element = number<std::uint32_t>();
      const auto count = number<std::uint64_t>();
      if (element == 9) fail("has an array of arrays");
      for (std::uint64_t i = 0; i < count; ++i) skip(element);
    } else if (type < std::size(sizes)) {
      take(sizes[type]);
    } else {
      fail("has a value of unknown type");
    }
  }
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(path_ + " " + what); }

  std::string path_;
  std::vector<std::uint8_t> bytes_;
  std::size_t at_ = 0, data_ = 0;
  std::map<std::string, Entry> entries_;
};

}  // namespace goldens
