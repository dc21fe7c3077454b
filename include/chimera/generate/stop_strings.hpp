// Ends a text where one of some strings appears, while the text streams.
#pragma once

#include <chimera/core/namespace.hpp>
#include <chimera/core/result.hpp>
#include <chimera/core/utf8.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chimera {

/// Hands text on, but for what may yet become a stop string: that waits for the text to come. Where text is cut into
/// pieces, as by tokens, makes no difference. Whole characters come out if whole characters go in.
class StopStrings {
 public:
  static constexpr std::size_t most_strings = 64, most_bytes = 256;

  static Result<StopStrings> create(std::vector<std::string> strings);

  /// What may be shown of the text so far; nothing once it has stopped. It stops at the first end of a stop string; of
  /// those that end there the longest is cut off.
  std::string push(std::string_view text);

  /// The end of the text: what was still held back.
  std::string flush() { return std::exchange(held_, {}); }

  bool stopped() const { return !found_.empty(); }
  /// The string that ended the text; empty before.
  const std::string& found() const { return found_; }

  /// For another text.
  void reset() { held_.clear(), found_.clear(); }

 private:
  StopStrings() = default;

  /// Bytes at the end of what is held that begin a stop string, as many as there are.
  std::size_t possible() const;

  std::vector<std::string> strings_;
  std::string held_, found_;
};

}  // namespace chimera

#if CHIMERA_BODIES
namespace chimera {

CHIMERA_FUNCTION Result<StopStrings> StopStrings::create(std::vector<std::string> strings) {
  if (strings.size() > most_strings)
    return Error{"expected at most " + std::to_string(most_strings) + " stop strings, found " +
                 std::to_string(strings.size())};
  for (const std::string& s : strings) {
    if (s.empty() || s.size() > most_bytes)
      return Error{"a stop string has 1 to " + std::to_string(most_bytes) + " bytes, found " +
                   std::to_string(s.size())};
    for (std::string_view rest = s; !rest.empty(); rest.remove_prefix(utf8_size(rest)))
      if (utf8_size(rest) == 0) return Error{"a stop string must be UTF-8; \"" + s + "\" is not"};
  }
  StopStrings stop;
  stop.strings_ = std::move(strings);
  return stop;
}

CHIMERA_FUNCTION std::string StopStrings::push(std::string_view text) {
  std::string shown;
  for (const char c : text) {
    if (stopped()) break;
    held_ += c;
    const std::string* found = nullptr;
    for (const std::string& s : strings_)
      if (held_.ends_with(s) && (!found || s.size() > found->size())) found = &s;
    const std::size_t release = held_.size() - (found ? found->size() : possible());
    shown.append(held_, 0, release);
    held_.erase(0, release);
    if (found) found_ = std::exchange(held_, {});
  }
  return shown;
}

CHIMERA_FUNCTION std::size_t StopStrings::possible() const {
  for (std::size_t from = 0; from < held_.size(); ++from) {
    const std::string_view end = std::string_view(held_).substr(from);
    if (std::any_of(strings_.begin(), strings_.end(), [&](const std::string& s) { return s.starts_with(end); }))
      return end.size();
  }
  return 0;
}

}  // namespace chimera
#endif
