// What GGUF and safetensors share: looking up by name, and writing tensors behind a header that declares them.
#pragma once

#include <chimera/core/files.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

namespace tensor_file_parts {

/// UTF-8 without control characters: what may stand in a message.
inline bool printable(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_size(text);
    if (length == 0 || text[0] == 0x7F || (length == 1 && text[0] < 0x20)) return false;
    text.remove_prefix(length);
  }
  return true;
}

/// The places of a vector's items in the order of their names. `name_of(item)` gives a view.
class NameIndex {
 public:
  /// Two items of one name are an error.
  template <class T, class Name>
  Result<void> build(const std::vector<T>& items, Name&& name_of, std::string_view what) {
    order_.resize(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) order_[i] = static_cast<std::uint32_t>(i);
    std::sort(order_.begin(), order_.end(),
              [&](std::uint32_t a, std::uint32_t b) { return name_of(items[a]) < name_of(items[b]); });
    const auto twice = std::adjacent_find(order_.begin(), order_.end(), [&](std::uint32_t a, std::uint32_t b) {
      return name_of(items[a]) == name_of(items[b]);
    });
    if (twice == order_.end()) return {};
    return Error{"there are two " + std::string(what) + " named " + std::string(name_of(items[*twice]))};
  }

  /// The item of that name; null if there is none.
  template <class T, class Name>
  const T* find(const std::vector<T>& items, Name&& name_of, std::string_view name) const {
    const auto found = std::lower_bound(order_.begin(), order_.end(), name,
                                        [&](std::uint32_t i, std::string_view n) { return name_of(items[i]) < n; });
    return found != order_.end() && name_of(items[*found]) == name ? &items[*found] : nullptr;
  }

 private:
  std::vector<std::uint32_t> order_;
};

/// A file of a header and parts that follow one another: the header first, then each part's bytes in as many pieces as
/// is convenient. A file that is not whole never gets its name.
class TensorStream {
 public:
  struct Part {
    std::string name;
    std::uint64_t bytes, padding;  // padding: zeros behind it
  };

  Result<void> begin(const std::string& path, std::string_view header, std::vector<Part> parts) {
    auto file = AtomicFile::create(path);
    if (!file) return file.error();
    file_.emplace(std::move(*file));
    parts_ = std::move(parts);
    current_ = 0, written_ = 0;
    return file_->write(header);
  }

  /// More of the part that is being written. No piece goes over the end of its part.
  Result<void> append(std::span<const std::byte> piece) {
    if (piece.empty()) return {};
    skip_empty();
    if (current_ == parts_.size()) return Error{"there is no tensor left to write"};
    const Part& part = parts_[current_];
    if (piece.size() > part.bytes - written_)
      return Error{"tensor " + part.name + " takes " + std::to_string(part.bytes) + " bytes, " +
                   std::to_string(written_ + piece.size()) + " were given"};
    if (Result<void> s = file_->write(piece.data(), piece.size()); !s) return s;
    written_ += piece.size();
    if (written_ < part.bytes) return {};
    ++current_, written_ = 0;
    return file_->write(std::string(static_cast<std::size_t>(part.padding), '\0'));
  }

  /// Brings the file to the disk under its name.
  Result<void> commit() {
    if (!file_) return Error{"there is no file to commit: it was not begun"};
    skip_empty();
    if (current_ < parts_.size())
      return Error{"tensor " + parts_[current_].name + " takes " + std::to_string(parts_[current_].bytes) + " bytes, " +
                   std::to_string(written_) + " were given"};
    return file_->commit();
  }

 private:
  void skip_empty() {
    while (current_ < parts_.size() && parts_[current_].bytes == 0) ++current_;
  }

  std::optional<AtomicFile> file_;
  std::vector<Part> parts_;
  std::size_t current_ = 0;    // part that is being written
  std::uint64_t written_ = 0;  // bytes of it
};

}  // namespace tensor_file_parts

}  // namespace chimera
