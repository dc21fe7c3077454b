// Numbers of any type from text, in no locale: std::from_chars, and what stands for it where it takes no floats
// (libc++ before 20).
#pragma once

#include <chimera/core/float_bits.hpp>
#include <chimera/core/platform/platform.hpp>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <version>

namespace chimera {

namespace read_number_parts {

/// How many characters at the beginning are a number as std::from_chars reads it: an optional minus, digits with an
/// optional point, an optional exponent; or inf, infinity, nan.
inline std::size_t number_length(std::string_view text) {
  std::size_t at = text.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const std::size_t from = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9') ++at;
    return at - from;
  };
  for (const std::string_view word : {"infinity", "inf", "nan"})
    if (std::equal(word.begin(), word.end(), text.begin() + static_cast<std::ptrdiff_t>(at),
                   text.begin() + static_cast<std::ptrdiff_t>(std::min(text.size(), at + word.size())),
                   [](char a, char b) { return a == (b | 0x20); }))
      return at + word.size();
  std::size_t mantissa = digits();
  if (at < text.size() && text[at] == '.') ++at, mantissa += digits();
  if (mantissa == 0) return 0;
  const std::size_t whole = at;
  if (at < text.size() && (text[at] | 0x20) == 'e') {
    ++at;
    if (at < text.size() && (text[at] == '-' || text[at] == '+')) ++at;
    if (digits() == 0) return whole;
  }
  return at;
}

/// What std::from_chars does with a float or a double.
template <class T>
std::from_chars_result read_real(const char* first, const char* last, T& value) {
  const std::string_view all(first, static_cast<std::size_t>(last - first));
  const std::size_t length = number_length(all);
  if (length == 0) return {first, std::errc::invalid_argument};
  const std::string text(all.substr(0, length));
  T read{};
  platform::read_number(text.c_str(), read);
  const std::string_view mantissa = std::string_view(text).substr(0, text.find_first_of("eE"));
  const bool named = text.find_first_of("nN") != text.npos, zero = mantissa.find_first_of("123456789") == text.npos;
  if (!named && (read == 0 ? !zero : !is_finite(read))) return {first + length, std::errc::result_out_of_range};
  value = read;
  return {first + length, std::errc{}};
}

}  // namespace read_number_parts

/// As std::from_chars.
template <class T>
std::from_chars_result read_number(const char* first, const char* last, T& value) {
#if !defined(__cpp_lib_to_chars)
  if constexpr (std::is_floating_point_v<T>)
    return read_number_parts::read_real(first, last, value);
  else
#endif
    return std::from_chars(first, last, value);
}

}  // namespace chimera
